//! Erasure: removes the content of events for good, and proves that it did. `docs/erasure.md` describes it.
//!
//! An erasure is recorded before anything is erased: its record in the chain of the recorder names every event. A thread then
//! carries out what is recorded, also after a crash. Holds keep events from it.
//!
//! | file | |
//! |---|---|
//! | [`selection`] | which events a request means |
//! | [`select`] | finds these events |
//! | [`holds`] | the events that are kept |
//! | [`eraser`] | the thread that carries out what is recorded |
//! | [`routes`] | the calls |

mod eraser;
pub mod holds;
pub mod routes;
pub mod select;
pub mod selection;

pub use eraser::{Eraser, EraserThread, RelayErasure};
pub use routes::{erasure_routes, read_routes};
