//! What every port shares: connections with their time-outs, answers in JSON, and errors that say who must act.

mod activity;
mod answer;
mod causes;
mod connections;
mod inflight;
mod params;

pub use answer::{Problem, json_response, retry_after};
pub use causes::Causes;
pub use connections::{Shortcut, Timeouts, serve};
pub use inflight::{Inflight, Reserved};
pub use params::Params;
