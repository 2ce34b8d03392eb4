//! Operation: configuration, authentication, transport, pods, documents, load, and the structure of the sources.

pub mod auth;
pub mod commands;
pub mod config;
pub mod config_file;
mod config_placeholders;
pub mod documents;
pub mod fairness;
pub mod front;
mod http;
pub mod http2;
pub mod logging;
pub mod pod;
pub mod reload;
pub mod scale;
pub mod scale_hostile;
pub mod scale_in_time;
pub mod scale_memory;
pub mod service;
pub mod structure;
pub mod transport;
