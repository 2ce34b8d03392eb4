//! The relay: every committed event reaches each destination at least once, in the order of its session.
//!
//! | file | |
//! |---|---|
//! | [`config`] | the settings |
//! | [`destinations`] | all destinations |
//! | [`handle`] | one running destination: its specification, its thread, how to stop it |
//! | [`event`] | an event as destinations see it, and the filter |
//! | [`sessions`] | the sessions that have events to send, in memory |
//! | [`destination`] | the trait that every destination implements; [`agnost`] is one |
//! | [`upstream`] | requests over HTTP, and what their responses mean |
//! | [`circuit`] | back-off and circuit breaker |
//! | [`backlog`] | what waits, and what was refused, on disk |
//! | [`consumer`] | the thread of a destination: reads commits, sends, keeps results |
//! | [`outcome`] | the result of a request: done, retry, or dead letter |
//! | [`commands`], [`dead_letters`] | what operators do with dead letters |
//!
//! Nothing here is on the path of an answer: an upstream that is down makes the backlog on disk longer, and nothing else.

mod agnost;
mod backlog;
mod circuit;
mod commands;
pub mod config;
mod consumer;
mod dead_letters;
mod destination;
mod destinations;
mod error;
mod event;
mod handle;
mod metrics;
mod outcome;
mod report;
mod routes;
mod sessions;
mod status;
mod upstream;

pub use config::{DestinationConfig, RelayConfig};
pub use destinations::{Changes, Relay};
pub use error::RelayError;
pub use routes::{reads, repairs};
