//! The relay: every event is delivered at least once, in the order of its session, under every kind of upstream
//! failure.

pub mod agnost_mapping;
pub mod chaos;
pub mod delivery;
pub mod faults;
mod file;
pub mod isolation;
pub mod shutdown;
mod webhook;
