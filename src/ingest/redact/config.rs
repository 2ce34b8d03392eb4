//! The settings `redaction.*`. `docs/redaction.md` describes them.

use std::path::PathBuf;

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::patterns::{KEY_RULE, PATTERNS, Pattern, Preset, compile};
use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};

/// The maximum number of rules of the user.
const MAX_RULES: usize = 100;
/// The maximum length of the name of a rule.
const MAX_NAME_LEN: usize = 64;
/// The shortest key with which values are hashed, in bytes.
const MIN_KEY_LEN: usize = 16;

/// `redaction.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionConfig {
    /// Built-in patterns: presets and single ones.
    pub presets: Vec<String>,
    /// Rules of the user, and other actions for built-in patterns.
    pub rules: Vec<RuleConfig>,
    /// Members of objects whose value is replaced, by their name: patterns with `*`.
    pub keys: Vec<String>,
    /// Regular expressions of what is kept although a rule matches it.
    pub allow: Vec<String>,
    /// A file with the key of the action `hash`.
    pub hash_key_file: Option<PathBuf>,
}

impl Default for RedactionConfig {
    fn default() -> RedactionConfig {
        let presets = vec!["secrets".to_owned()];
        RedactionConfig { presets, rules: Vec::new(), keys: Vec::new(), allow: Vec::new(), hash_key_file: None }
    }
}

/// An entry of `redaction.rules`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// The name, which the replacement contains. That of a built-in pattern turns it on, and changes what is done.
    pub name: String,
    /// The regular expression; absent for a built-in pattern.
    #[serde(default)]
    pub pattern: Option<String>,
    /// What a match becomes; `[REDACTED:name]` if absent.
    #[serde(default)]
    pub replace: Option<String>,
    /// What is done with a match.
    #[serde(default)]
    pub action: Action,
    /// The fields that are examined; all if absent.
    #[serde(default)]
    pub fields: Option<Vec<RedactedField>>,
}

/// What is done with a match.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is replaced.
    #[default]
    Replace,
    /// The whole value that contains it is removed.
    Drop,
    /// It is replaced by its HMAC under `redaction.hash_key_file`, so that equal values stay comparable.
    Hash,
}

/// A field that is examined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedactedField {
    ActionInput,
    ActionName,
    ActionOutput,
    ErrorMessage,
    Labels,
    Metadata,
}

impl RedactionConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("redaction", Expected::Section),
        ("redaction.presets", Expected::Strings),
        ("redaction.rules", Expected::Text("a list of rules, see docs/redaction.md")),
        ("redaction.rules.*", Expected::Text("a rule with the keys of docs/redaction.md")),
        ("redaction.keys", Expected::Strings),
        ("redaction.allow", Expected::Strings),
        ("redaction.hash_key_file", Expected::Path),
    ];

    /// The built-in patterns that are on.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &'static Pattern> {
        let is_named = |pattern: &Pattern| {
            let preset = match pattern.preset {
                Preset::Secrets => "secrets",
                Preset::Pii => "pii",
            };
            let is_in_presets = self.presets.iter().any(|name| name == preset || name == pattern.name);
            is_in_presets || self.rules.iter().any(|rule| rule.name == pattern.name)
        };
        PATTERNS.iter().filter(move |pattern| is_named(pattern))
    }

    /// The key of the action `hash`; `None` if no rule has that action.
    ///
    /// # Errors
    /// When it is needed, and the file is missing, cannot be read or is too short.
    pub(super) fn hash_key(&self) -> Result<Option<Vec<u8>>, InvalidSetting> {
        if self.rules.iter().all(|rule| rule.action != Action::Hash) {
            return Ok(None);
        }
        let name = "redaction.hash_key_file";
        let path = self.hash_key_file.as_ref();
        let path =
            path.ok_or_else(|| InvalidSetting::new(name, "a file, because a rule has the action hash", "none"))?;
        let key = std::fs::read(path).map_err(|error| {
            InvalidSetting::new(name, "a readable file", format_args!("{}: {error}", path.display()))
        })?;
        let key = key.trim_ascii().to_vec();
        if key.len() < MIN_KEY_LEN {
            let expected = format!("a file with at least {MIN_KEY_LEN} bytes");
            return Err(InvalidSetting::new(name, expected, format_args!("{} bytes", key.len())));
        }
        Ok(Some(key))
    }

    /// Returns the settings with invalid values.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let is_known = |name: &String| {
            ["secrets", "pii"].contains(&&**name) || PATTERNS.iter().any(|pattern| pattern.name == *name)
        };
        for name in self.presets.iter().filter(|name| !is_known(name)) {
            checks.require(false, "redaction.presets", "secrets, pii, or names of docs/redaction.md", name);
        }
        let (rules, most) = (self.rules.len(), format!("at most {MAX_RULES} rules"));
        checks.require(rules <= MAX_RULES, "redaction.rules", most, rules);
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check(&self.rules[..index], &format!("redaction.rules[{index}]"), &mut checks);
        }
        for pattern in &self.allow {
            check_pattern("redaction.allow", pattern, &mut checks);
        }
        checks.extend(self.hash_key().err());
        checks.finish()
    }
}

impl RuleConfig {
    fn check(&self, before: &[RuleConfig], key: &str, checks: &mut Checks) {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
        let is_name = (1..=MAX_NAME_LEN).contains(&self.name.len()) && self.name.bytes().all(is_plain);
        let expected = format!("1 to {MAX_NAME_LEN} lower-case letters, digits, - and _");
        checks.require(is_name, &format!("{key}.name"), expected, format_args!("{:?}", self.name));
        let is_free = self.name != KEY_RULE && before.iter().all(|other| other.name != self.name);
        checks.require(is_free, &format!("{key}.name"), "a name of its own", &self.name);
        let is_built_in = PATTERNS.iter().any(|pattern| pattern.name == self.name);
        match &self.pattern {
            Some(pattern) => check_pattern(&format!("{key}.pattern"), pattern, checks),
            None => checks.require(is_built_in, &format!("{key}.pattern"), "a regular expression", "none"),
        }
        let is_used = self.replace.is_none() || self.action == Action::Replace;
        checks.require(is_used, &format!("{key}.replace"), "none, because of the action", "a replacement");
    }
}

fn check_pattern(key: &str, pattern: &str, checks: &mut Checks) {
    let compiled: Result<Regex, regex::Error> = compile(pattern);
    match compiled {
        Ok(regex) => checks.require(!regex.is_match(""), key, "a pattern that does not match nothing", pattern),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            checks.require(false, key, "a regular expression", format_args!("{pattern:?}: {reason}"));
        }
    }
}
