//! What the tests share: a server of their own, an upstream, a forger of packages.

pub mod forger;
pub mod harness;
pub mod modules;
pub mod protobuf;
pub mod upstream;
#[path = "../../benches/work.rs"]
pub mod work;
