//! For whom a log line is. A person at a terminal gets short lines when something changes; a collector gets complete ones at
//! intervals. The targets of a line tell which it is for; most lines have neither and are for both.

/// The target of lines that only a terminal shows.
pub const FOR_TERMINAL: &str = "cairn::terminal";
/// The target of lines that a terminal does not show, because it shows the same more shortly.
pub const FOR_COLLECTOR: &str = "cairn::collector";
