//! Cairn makes what AI agents did provable: it takes each event of an agent, links it into that agent's SHA-256 chain, has it
//! on disk before it answers, and lets anybody verify it.
//!
//! The modules are listed in the order of the data flow. The rules of events, chains, trees and packages are in the crate
//! `cairn_proof`, which everything here may import. `ARCHITECTURE.md` follows an event through the folders.

/// Text that people write or read: names, units, settings.
pub mod text;

/// Threads, clock and log throttle.
pub mod runtime;

/// Transport: listeners, TLS, connections, timeouts, responses.
pub mod http;

/// Authentication, scopes and rate limits.
pub mod auth;

/// Accepts, validates and dispatches events, from every wire format.
pub mod ingest;

/// Seals and commits events, and reads them back.
pub mod ledger;

/// The transparency log: a Merkle tree over all events, with signed checkpoints.
pub mod tlog;

/// Relays committed events to other systems.
pub mod relay;

/// Query, verify, export.
pub mod audit;

/// The configuration of all stages, and where each value came from.
pub mod config;

/// Composes the stages, runs them, reloads them, shuts them down.
pub mod serve;

/// The command line.
pub mod cli;
