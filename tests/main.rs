//! The tests of the program, a file for each promise. They are one binary, because linking the database takes long.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod audit;
mod durability;
mod ingest;
mod log;
mod ops;
mod relay;
mod support;
