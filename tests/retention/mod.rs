//! What retention drops, what is left, and what proves it.

pub mod dropping;
pub mod interrupted;
pub mod small_volume;
pub mod tampering;
