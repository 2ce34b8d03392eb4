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
//! | [`retention`] | erases by age |
//! | [`routes`] | the calls |

mod eraser;
mod holds;
mod retention;
mod routes;
mod select;
pub mod selection;

pub use eraser::{Eraser, EraserThread, RelayErasure};
pub use retention::run as retain;
pub use routes::{erasure_routes, read_routes};
