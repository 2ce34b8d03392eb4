//! `log.level`: which lines are logged.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// What is logged, in the words of `log.level`: a level, and others for parts of the program, as `info,cairn::relay=debug`.
/// `None` if it cannot be read.
pub fn levels(text: &str) -> Option<Targets> {
    // An empty level would be read as one, and an unknown word taken for the name of a part.
    let level = |word: &str| Some(word.trim()).filter(|word| !word.is_empty())?.parse::<LevelFilter>().ok();
    let is_part =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
    let mut levels = Targets::new();
    for part in text.split(',') {
        levels = match part.split_once('=') {
            Some((name, word)) => levels.with_target(Some(name.trim()).filter(|name| is_part(name))?, level(word)?),
            None => levels.with_default(level(part)?),
        };
    }
    Some(levels)
}
