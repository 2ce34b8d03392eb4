//! Shared by all tests: servers to test against, an upstream, forged evidence packages, and the module graph of the
//! sources.

pub mod forger;
pub mod harness;
pub mod modules;
pub mod protobuf;
pub mod upstream;
#[path = "../../benches/work.rs"]
pub mod work;
