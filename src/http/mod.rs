//! What every port shares: connections with their time-outs, answers in JSON, and errors that say who must act.

mod activity;
mod address;
mod answer;
mod causes;
mod connections;
mod inflight;
mod listener;
mod params;
mod tls;

pub use address::{Address, Addresses};
pub use answer::{Problem, json_response, retry_after};
pub use causes::Causes;
pub use connections::{ConnectionLimits, Shortcut, Timeouts, serve};
pub use inflight::{Inflight, Reserved};
pub use listener::{Listener, Peer};
pub use params::{Params, Segments, number};
pub use tls::{PreparedTls, Tls, TlsConfig, TlsError};
