//! OTLP/HTTP: `POST /v1/traces` and `POST /v1/logs`, in protobuf or JSON; and OTLP/gRPC. One span or log record is one event.
//!
//! The protocol is the OpenTelemetry Protocol Specification 1.x, sections "OTLP/HTTP" and "OTLP/gRPC"; the mapping is specified in
//! `docs/otlp.md`. A request is checked as a whole before any of it is stored. It is then stored in parts, so that it
//! takes little more memory than its body. A repeated export stores nothing twice.
//!
//! The path of a request: [`json`] converts a JSON body to protobuf, [`request`] iterates over its items, and [`map`]
//! maps each item to an event, using [`span`] or [`record`], [`attributes`], [`value`] and [`family`]. [`wire`] reads
//! protobuf in place.

mod ancestors;
mod answer;
mod any_value;
mod assembled;
mod attributes;
mod event;
mod facts;
mod found;
mod http;
mod ids;
mod json;
mod json_request;
mod labels;
mod map;
pub mod mapping;
mod notes;
mod omit;
mod record;
mod request;
mod resource;
mod schema;
mod span;
mod span_events;
mod stored;
mod text_tests;
mod value;
mod wire;

pub use answer::with_status;
pub use http::routes;
pub use json_request::{Converted, to_protobuf};
pub use map::{Limits, Mapped, Mapper, Surroundings};
pub use mapping::compiled::Mapping;
pub use mapping::custom::MappingRow;
pub use request::{Item, Items, Signal};
pub use stored::{NoEvents, StoredEvents};
pub use value::Fault;
