//! Parses `log.level`.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// Parses a level, optionally with other levels for modules, such as `info,cairn::relay=debug`. `None` if it is
/// invalid.
pub fn parse_levels(text: &str) -> Option<Targets> {
    // `Targets` would accept an empty level, and take an unknown level for the name of a module.
    let level = |word: &str| Some(word.trim()).filter(|word| !word.is_empty())?.parse::<LevelFilter>().ok();
    let is_module =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
    let mut levels = Targets::new();
    for part in text.split(',') {
        levels = match part.split_once('=') {
            Some((name, word)) => levels.with_target(Some(name.trim()).filter(|name| is_module(name))?, level(word)?),
            None => levels.with_default(level(part)?),
        };
    }
    Some(levels)
}
