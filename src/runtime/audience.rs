//! For whom a log line is. A person at a terminal gets short lines when something changes; a collector gets complete ones at
//! intervals. The name of a line tells which it is for; most lines have neither and are for both. Names are not shown, and
//! `log.level` does not know them.

/// The name of lines that only a terminal shows.
pub const FOR_TERMINAL: &str = "for a terminal";
/// The name of lines that a terminal does not show, because it shows the same more shortly.
pub const FOR_COLLECTOR: &str = "for a collector";
