//! Cairn makes what AI agents did provable.
pub mod chain;
