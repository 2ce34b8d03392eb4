//! The places of the fields of an event in the buffer with their values.

use super::fields::Field;

/// A range of a buffer, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// The offset of the first byte.
    pub start: usize,
    /// The offset after the last byte.
    pub end: usize,
}

/// The place of each field, in the order of [`Field::ALL`]; `None` if the field is absent or null.
pub type Slots = [Option<Slot>; Field::ALL.len()];
