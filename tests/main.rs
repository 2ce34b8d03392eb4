//! The promises, a file each. One binary, because linking the database takes long.

mod config;
mod faults;
mod harness;
mod http;
mod ingest;
mod query;
mod readme;
mod restart;
mod scale;
mod tidy;
mod vectors;
mod verify;
