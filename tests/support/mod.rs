//! Shared by all tests: servers to test against, an upstream, forged evidence packages, the module graph of the sources,
//! and what tests require of the machine.

pub mod forger;
pub mod grpc;
pub mod harness;
pub mod load;
pub mod machine;
pub mod modules;
pub mod protobuf;
pub mod upstream;
#[path = "../../benches/work.rs"]
pub mod work;
