//! The relay: sends every committed event to each destination at least once, in the order of its session.
//!
//! The rules are specified in `docs/relay.md`, those of Agnost in `docs/agnost.md`, section "Relay to Agnost", and the settings in
//! `docs/configuration.md`, section "Relay". Each destination has a thread that owns its cursor, its sessions and its rows in the family
//! `relay`.
//!
//! | file | |
//! |---|---|
//! | [`config`], [`checks`] | the settings, and what is wrong with them |
//! | [`destinations`] | all destinations: start, change, stop |
//! | [`handle`] | one running destination: its specification and its thread |
//! | [`event`] | a committed event as destinations read it, and the filter |
//! | [`sessions`] | in memory: the sessions with events to send |
//! | [`destination`] | the trait of destinations; [`agnost`], [`webhook`] and [`file`] implement it |
//! | [`batches`] | lanes and lines of the destinations that send events together |
//! | [`upstream`] | HTTP requests and the classification of their responses |
//! | [`circuit`] | back-off and circuit breaker |
//! | [`backlog`] | on disk: cursor, waiting events, dead letters |
//! | [`consumer`] | the thread of a destination: reads commits, sends events, stores results |
//! | [`request`] | reads the events of a request, and sends it |
//! | [`outcome`] | handles the result of a request: acknowledged, retry, or dead letter |
//! | [`commands`], [`dead_letters`] | retries and drops dead letters for operators |
//! | [`report`], [`metrics`], [`status`] | log lines, metrics, and the state shown to operators |
//!
//! The relay never delays the response to a sender: while an upstream is unavailable, only the backlog on disk grows.

mod agnost;
mod backlog;
mod batches;
mod checks;
mod circuit;
mod commands;
pub mod config;
mod consumer;
mod dead_letters;
mod destination;
mod destinations;
mod erased;
mod error;
mod event;
mod file;
mod handle;
mod metrics;
mod outcome;
mod report;
mod request;
mod routes;
mod sessions;
mod status;
mod upstream;
mod webhook;

pub use config::{DestinationConfig, RelayConfig};
pub use destinations::{PreparedChanges, Relay, Unsent};
pub use error::RelayError;
pub use routes::{dead_letter_routes, read_routes};
