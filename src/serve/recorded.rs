//! What a server reports to its recorder. `docs/recorder.md` describes the events.

use serde_json::{Value, json};

use crate::config::Config;
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::keys::ShardId;

/// The start of a server. `was_stopped`: whether its last run ended in order; `None` if there was none.
pub fn start(config: &Config, api_keys: Option<Vec<String>>, was_stopped: Option<bool>) -> Value {
    let redaction = &config.redaction;
    let rules: Vec<&str> = redaction.rules.iter().map(|rule| &*rule.name).collect();
    let mut input = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "configuration": config.digest(),
        "redaction": {"presets": redaction.presets, "rules": rules, "keys": redaction.keys},
    });
    if let Some(keys) = api_keys {
        input["api_keys"] = keys.into();
    }
    if let Some(was_stopped) = was_stopped {
        input["clean"] = was_stopped.into();
    }
    input
}

/// A change of settings or keys while the server runs. `applied` are the settings that changed, and `api_keys` the fingerprints
/// of the keys now.
pub fn change(config: &Config, applied: &[String], api_keys: Option<Vec<String>>) -> Value {
    let mut input = json!({"configuration": config.digest(), "changed": applied});
    if let Some(keys) = api_keys {
        input["api_keys"] = keys.into();
    }
    input
}

/// A step of the clock that a shard has found.
pub fn clock_step(shard: ShardId, step: ClockStep) -> Value {
    json!({"shard": shard.0, "position": step.position.0, "by_seconds": step.by_ms() as f64 / 1000.0})
}
