//! The promises, a file each. One binary, because linking the database takes long.

mod agnost;
mod allocations;
mod config;
mod export;
mod faults;
mod follow;
mod forger;
mod harness;
mod http;
mod ingest;
mod log;
mod log_attacks;
mod log_keys;
mod mapping;
mod merkle;
mod otlp;
mod otlp_attacks;
mod otlp_spans;
mod packages;
mod packages_in_part;
mod protobuf;
mod query;
mod readme;
mod relay;
mod relay_chaos;
mod relay_faults;
mod relay_neighbours;
mod restart;
mod scale;
mod tidy;
mod upstream;
mod vectors;
mod verify;
#[path = "../benches/work.rs"]
mod work;
