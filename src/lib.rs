//! Cairn makes what AI agents did provable: it links each event of an agent into that agent's SHA-256 chain, has it on
//! disk before it answers, and lets anyone verify the result.
//!
//! The modules are listed in the order of the data flow. The rules of events, chains, trees and packages are in the
//! crate `cairn_proof`, which every module may import. `ARCHITECTURE.md` follows an event through the folders.

/// Text that people write or read: settings, units, suggestions for mistyped names.
pub mod text;

/// Supervised threads, clock and log throttle.
pub mod runtime;

/// Transport: listeners, TLS, connections, timeouts, responses.
pub mod http;

/// Authentication, scopes and rate limits.
pub mod auth;

/// Accepts, validates and dispatches events in every wire format.
pub mod ingest;

/// Seals and commits events, and reads them back.
pub mod ledger;

/// The transparency log: a Merkle tree over all events, with signed checkpoints.
pub mod tlog;

/// The agent in whose chain the server records what it does itself.
pub mod recorder;

/// Relays committed events to other systems.
pub mod relay;

/// Queries, verifies and exports stored events.
pub mod audit;

/// The configuration of all stages, and where each value came from.
pub mod config;

/// Composes, runs, reloads and shuts down the stages.
pub mod serve;

/// The command line.
pub mod cli;
