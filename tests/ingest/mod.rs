//! Ingest: every wire format, its limits, and hostile input.

pub mod agnost;
pub mod allocations;
pub mod events;
mod grpc;
pub mod labels;
pub mod limits;
pub mod otlp;
pub mod otlp_attacks;
mod otlp_captures;
mod otlp_kept;
pub mod otlp_spans;
mod redaction;
mod salt;
pub mod smuggling;
