//! Where the values of an event's fields are, within the buffer that holds them.

use super::fields::Field;

/// A range of an event's values, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// Where it begins.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
}

/// Where each field of [`Field::ALL`] is; `None` if it is absent or null.
pub type Slots = [Option<Slot>; Field::ALL.len()];
