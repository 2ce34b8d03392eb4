//! HTTP transport of every listener: sockets, TLS, connections with time-outs, the memory limit of requests, and
//! responses and errors in JSON.
//!
//! The settings are specified in `docs/configuration.md`, sections "Listeners and TLS" and "Limits". Authentication is
//! in [`crate::auth`]; routes belong to the stages.

mod address;
mod config;
mod connections;
mod error_chain;
mod front;
pub mod grpc;
mod listener;
mod memory_budget;
mod protocols;
mod query;
mod readers;
mod response;
mod timeouts;
mod tls;

pub use address::{Address, Addresses};
pub use config::HttpConfig;
pub use connections::{ConnectionLimits, FastPath, serve};
pub use error_chain::ErrorChain;
pub use front::{Front, HasKeys, OnRefusal, RefusedRequest};
pub use listener::{Listener, Peer};
pub use memory_budget::{MemoryBudget, Reserved};
pub use protocols::Protocols;
pub use query::{PathSegments, QueryParams, parse_number};
pub use readers::{Read, Readers, Turn};
pub use response::{ApiError, Logged, json_response, set_retry_after};
pub use timeouts::Timeouts;
pub use tls::{PreparedTls, Tls, TlsConfig, TlsError};
