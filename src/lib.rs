//! Cairn makes what AI agents did provable: it takes each event of an agent, links it into that agent's SHA-256
//! chain, has it on disk before it answers, and lets anybody verify it.
//!
//! The modules stand in the order of an event's way; [`chain`] is what all of them share.

/// The rules: events, canonical bytes, chains. Pure.
pub mod chain;

/// Connections, answers and errors, for every port.
pub mod http;

/// Who may call, and how much.
pub mod access;

/// Accept, validate, dispatch.
pub mod ingest;

/// Seal, commit, index; and reading what was committed.
pub mod ledger;

/// One tree over all events, signed.
pub mod tlog;

/// Sends what was committed on to other places.
pub mod relay;

/// What an auditor checks, with nothing but a file or a log, and a key.
pub mod evidence;

/// Query, verify, export.
pub mod audit;

/// Metrics and probes.
pub mod admin;

/// All settings, and where they came from.
pub mod config;
/// Words of others, as they may be shown.
pub mod harmless;
/// What a mistyped name was probably meant to be.
pub mod nearest;
/// Sizes and times in settings.
pub mod units;

/// Puts it all together, runs it, shuts it down.
pub mod serve;

/// The command line.
pub mod cli;
