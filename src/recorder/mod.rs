//! The recorder: the agent `cairn/INSTANCE`, in whose chain the server records what it does itself.
//!
//! Its events are stored, chained and logged like those of every agent. They show when the server ran, what it refused, and
//! what was changed, so that a quiet agent can be told from a server that was down. `docs/recorder.md` describes the events.
//!
//! | file | |
//! |---|---|
//! | [`chain`] | stores an event of the recorder |
//! | [`read`] | reads its events back |
//! | [`watch`] | the task that records heartbeats, refusals, and what other stages report |
//! | [`config`] | the settings |

mod chain;
mod config;
mod read;
mod watch;

pub use chain::{NotRecorded, Recorder};
pub use config::RecorderConfig;
pub use read::{erasures, id_of, read};
pub use watch::{Notes, Recording, Refusals, Watch, notes};
