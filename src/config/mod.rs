//! The configuration: the settings of all stages, where each came from, and what is wrong with them.
//!
//! Each stage owns its settings and checks them; [`checks`] composes these checks. Reading and checking starts nothing.

mod checks;
mod diagnostics;
mod duplicate_keys;
mod load;
mod log_level;
mod provenance;
mod settings;

pub use load::{ConfigError, Flags, Loaded, StorageFlags, load};
pub use log_level::levels;
pub use settings::{AdminConfig, Config, LogConfig, LogFormat, ShutdownConfig, differences};
