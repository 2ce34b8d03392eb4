//! The configuration: the settings of all stages, the source of each value, and messages for invalid values.
//!
//! Each stage owns its settings and checks them; [`checks`] composes these checks. Loading and checking starts nothing.
//! `docs/configuration.md` describes every setting.

mod checks;
mod diagnostics;
mod duplicate_keys;
mod load;
mod log_level;
mod memory;
mod provenance;
mod settings;

pub use load::{ConfigError, Flags, Loaded, StorageFlags, load};
pub use log_level::parse_levels;
pub use settings::{AdminConfig, Config, LogConfig, LogFormat, ShutdownConfig, differences};
