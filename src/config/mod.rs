//! The configuration: the settings of all stages, the source of each value, and messages for invalid values.
//!
//! Each stage owns its settings and checks them; [`checks`] composes these checks. Loading and checking starts nothing.
//! `docs/configuration.md` describes every setting.

mod checks;
mod diagnostics;
mod duplicate_keys;
mod environment;
mod extract;
mod input;
mod load;
mod log_level;
mod memory;
mod placeholders;
mod provenance;
mod schema;
mod settings;
mod sources;
mod substitution;

pub use environment::{allows_colors, is_lone_container, state_directories};
pub use input::{ConfigError, Flags, Scope, StorageFlags};
pub use load::{Loaded, load};
pub use log_level::parse_levels;
pub use schema::schema;
pub use settings::{AdminConfig, Config, LogConfig, LogFormat, ShutdownConfig, differences};
