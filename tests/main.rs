//! The integration tests: a folder for each area, a file for each promise (`docs/testing.md`). They are one binary,
//! because linking RocksDB takes long.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod durability;
mod erasure;
mod ingest;
mod log;
mod ops;
mod relay;
mod retention;
mod support;
