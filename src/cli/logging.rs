//! The process log: its format and its level.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{self, LogConfig, LogFormat};

/// Whether log lines are written as text, not as JSON.
pub fn is_text(config: &LogConfig) -> bool {
    match config.format {
        LogFormat::Auto => io::stdout().is_terminal(),
        LogFormat::Json => false,
        LogFormat::Text => true,
    }
}

/// Handle to change the log level while the process runs.
#[derive(Clone)]
pub struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Changes the level.
    pub fn set(&self, level: &str) {
        if let Err(error) = self.0.reload(levels(level)) {
            tracing::error!(%error, "failed to change the log level");
        }
    }
}

/// Parses `log.level`, which was checked with the configuration.
fn levels(text: &str) -> Targets {
    config::parse_levels(text).unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

/// Installs the global subscriber that writes the process log.
pub fn start_log(config: &LogConfig) -> LogLevel {
    let (filter, level) = reload::Layer::new(levels(&config.level));
    let lines = tracing_subscriber::fmt::layer().with_target(false);
    let subscriber = tracing_subscriber::registry().with(filter);
    if is_text(config) {
        subscriber.with(lines.with_ansi(io::stdout().is_terminal())).init();
    } else {
        subscriber.with(lines.json().flatten_event(true).with_current_span(false).with_span_list(false)).init();
    }
    LogLevel(level)
}
