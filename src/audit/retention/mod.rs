//! Retention: what happens to events with their age. `docs/retention.md` describes it.
//!
//! | file | |
//! |---|---|
//! | [`content`] | erases the content of old events: `retention.content` |
//! | [`events`] | drops old events whole: `retention.events` |
//! | [`plan`] | what is to be dropped |
//! | [`anchors`] | where the chains begin then |
//! | [`limits`] | how far events may be dropped |
//! | [`pace`] | how much of the time both take |

mod anchors;
mod content;
mod events;
mod limits;
mod pace;
mod plan;

pub use anchors::AnchorTree;
pub use content::run as erase_old;
pub use events::{Accepted, Dropper};
