//! OTLP/HTTP: `POST /v1/traces` and `POST /v1/logs`, in protobuf or JSON. One span or log record is one event.
//!
//! The rules are those of the OpenTelemetry Protocol Specification 1.x, section "OTLP/HTTP"; the mapping is the README's
//! section "From OpenTelemetry". A request is looked at as a whole before anything of it is stored. Then it is stored part
//! by part, so that it takes little more memory than its body. An exporter that repeats it stores nothing twice.
//!
//! The way of a request: [`json`] makes protobuf of a body in JSON, [`request`] finds its items, [`map`] makes an event of
//! each, with [`span`] or [`record`], [`attributes`], [`value`] and [`family`]; [`wire`] reads protobuf in place.

mod answer;
mod attributes;
mod event;
mod family;
mod http;
mod json;
mod map;
mod parts;
mod record;
mod request;
mod schema;
mod span;
mod value;
mod wire;

/// Answers errors as the exporters expect them: a `google.rpc.Status`, in the encoding of the request.
pub use answer::with_status;
pub use http::routes;
pub use json::to_protobuf;
pub use map::{Limits, Mapped, Mapper};
pub use request::{Item, Items, Signal};
pub use value::Fault;
