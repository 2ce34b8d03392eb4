//! The relay: at least once, in the order of the session, whatever the upstream does.

pub mod chaos;
pub mod delivery;
pub mod faults;
pub mod neighbours;
