//! What every port shares: connections with their time-outs, answers in JSON, and errors that say who must act.

mod activity;
mod answer;
mod connections;
mod inflight;

pub use answer::{Problem, json_response, retry_after};
pub use connections::{Timeouts, serve};
pub use inflight::{Inflight, Reserved};
