//! The expected value of each setting, declared once: for values of the wrong type and for values out of range.

use std::fmt;
use std::ops::RangeInclusive;

/// The expected value of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// Described in words.
    Text(&'static str),
    /// One of several words.
    Choice(&'static [&'static str]),
    /// A number in a range.
    Number(RangeInclusive<u64>),
    /// A size such as `64MiB`.
    Size,
    /// A duration such as `250ms`.
    Duration,
    /// A text, which may look like a number.
    String,
    /// A path.
    Path,
    /// A list of strings.
    Strings,
    /// `true` or `false`.
    Bool,
    /// A section with further settings.
    Section,
}

impl Expected {
    /// Whether any text is a value, also one that looks like a number.
    pub fn is_text(&self) -> bool {
        matches!(self, Expected::String | Expected::Path)
    }

    /// Whether a number is in the range.
    pub fn allows(&self, number: u64) -> bool {
        matches!(self, Expected::Number(range) if range.contains(&number))
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Text(text) => f.write_str(text),
            Expected::Choice(words) => match words.split_last() {
                Some((last, [])) => f.write_str(last),
                Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
                None => Ok(()),
            },
            Expected::Number(range) if *range.end() == u64::MAX => write!(f, "a number, at least {}", range.start()),
            Expected::Number(range) => write!(f, "a number from {} to {}", range.start(), range.end()),
            Expected::Size => f.write_str("a size such as 64MiB"),
            Expected::Duration => f.write_str("a duration such as 250ms or 10s"),
            Expected::String => f.write_str("a string"),
            Expected::Path => f.write_str("a path"),
            Expected::Strings => f.write_str("a list of strings, such as [one, two]"),
            Expected::Bool => f.write_str("true or false"),
            Expected::Section => f.write_str("a section with settings, one on each line"),
        }
    }
}

/// The expected values of the settings of one stage. A key that ends with `*` applies to every key with that prefix.
pub type Expectations = &'static [(&'static str, Expected)];

/// A setting with an invalid value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidSetting {
    /// The key, with dots between the levels.
    pub key: String,
    /// The key and what is wrong with its value. Never contains a secret.
    pub message: String,
    /// The key of the setting that limits this one.
    pub limited_by: Option<&'static str>,
}

impl InvalidSetting {
    /// A setting whose value is not the expected one.
    pub fn new(key: impl Into<String>, expected: impl fmt::Display, found: impl fmt::Display) -> InvalidSetting {
        let key = key.into();
        InvalidSetting { message: format!("{key}: expected {expected}, found {found}"), key, limited_by: None }
    }
}

/// The checks of one stage's settings.
#[derive(Debug, Default)]
pub struct Checks {
    invalid: Vec<InvalidSetting>,
}

impl Checks {
    /// Adds an error for a setting unless it is valid.
    pub fn require(&mut self, is_valid: bool, key: &str, expected: impl fmt::Display, found: impl fmt::Display) {
        if !is_valid {
            self.invalid.push(InvalidSetting::new(key, expected, found));
        }
    }

    /// Adds an error for a setting that is larger than another one, `limit_key`, allows.
    pub fn at_most<T: PartialOrd + fmt::Display>(&mut self, key: &str, found: T, limit_key: &'static str, limit: T) {
        if found > limit {
            let expected = format_args!("at most {limit_key}, {limit}");
            self.invalid
                .push(InvalidSetting { limited_by: Some(limit_key), ..InvalidSetting::new(key, expected, &found) });
        }
    }

    /// Adds an error if a number is not in the range that `expectations` gives for its setting.
    pub fn number(&mut self, expectations: Expectations, key: &str, found: u64) {
        if let Some((_, expected)) = expectations.iter().find(|(name, _)| *name == key) {
            self.require(expected.allows(found), key, expected, found);
        }
    }

    /// Adds an error if a duration is zero.
    pub fn positive(&mut self, key: &str, found: std::time::Duration) {
        self.require(!found.is_zero(), key, "more than 0s", humantime::format_duration(found));
    }

    /// Adds the errors of other checks.
    pub fn extend(&mut self, invalid: impl IntoIterator<Item = InvalidSetting>) {
        self.invalid.extend(invalid);
    }

    /// Returns the settings that are invalid.
    pub fn finish(self) -> Vec<InvalidSetting> {
        self.invalid
    }
}
