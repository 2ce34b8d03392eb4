//! Numbers with the word that they count.

use std::fmt::Display;

/// A number and its word, which gets an `s` unless the number is 1: `1 event`, `2 events`.
pub fn plural(count: impl Display, word: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {word}{ending}")
}
