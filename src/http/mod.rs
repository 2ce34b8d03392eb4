//! What every port shares: connections with their time-outs, answers in JSON, and errors that say who must act.

mod address;
mod connections;
mod error_chain;
mod listener;
mod memory_budget;
mod query;
mod response;
mod timeouts;
mod tls;

pub use address::{Address, Addresses};
pub use connections::{ConnectionLimits, FastPath, serve};
pub use error_chain::ErrorChain;
pub use listener::{Listener, Peer};
pub use memory_budget::{MemoryBudget, Reserved};
pub use query::{PathSegments, QueryParams, number};
pub use response::{ApiError, json_response, retry_after};
pub use timeouts::Timeouts;
pub use tls::{PreparedTls, Tls, TlsConfig, TlsError};
