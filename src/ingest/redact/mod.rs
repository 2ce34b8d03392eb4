//! Redaction: removes secrets and personal data from events before they are hashed, so that they are on no disk and in no log.
//! `docs/redaction.md` specifies what is found and what it becomes.
//!
//! | file | content |
//! |---|---|
//! | [`config`] | the settings `redaction.*` |
//! | [`patterns`], [`numbers`] | the built-in patterns, and check digits |
//! | [`rules`] | compiled rules, and what they find in a text |
//! | [`walk`] | applies them to every string in a JSON value |

mod config;
#[cfg(test)]
mod examples;
mod numbers;
mod patterns;
mod rules;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::sync::Arc;

use ::metrics::{Counter, counter, describe_counter};
use cairn_proof::chain::string::write_string;
use cairn_proof::chain::{Field, Redact, Slot, Slots, scan};

use config::RedactedField;
pub use config::RedactionConfig;
use patterns::KEY_RULE;
use rules::{Fields, Rules};
use walk::{Outcome, Walk};

use crate::text::glob::Glob;
use crate::text::settings::InvalidSetting;

/// The members whose value is redacted in requests of the Agnost SDKs, one of which sends every HTTP header of its caller in its
/// metadata. `docs/agnost.md`, section "Redaction", lists them.
const AGNOST_KEYS: [&str; 8] =
    ["*authorization", "*cookie", "*api-key", "*api_key", "*apikey", "*token", "*secret*", "*password*"];
/// The fields that are examined. Identifiers are not.
const EXAMINED: [(Field, RedactedField); 6] = [
    (Field::ActionInput, RedactedField::ActionInput),
    (Field::ActionName, RedactedField::ActionName),
    (Field::ActionOutput, RedactedField::ActionOutput),
    (Field::ErrorMessage, RedactedField::ErrorMessage),
    (Field::Labels, RedactedField::Labels),
    (Field::Metadata, RedactedField::Metadata),
];

/// Redacts the events of an API.
pub struct Redactor {
    rules: Arc<Rules>,
    /// Members whose value is replaced, by name.
    keys: Vec<Glob>,
    /// A counter for each rule, and one for members by name.
    counters: Vec<Counter>,
}

impl std::fmt::Debug for Redactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Compiles the rules of a configuration, and registers their metrics with the current recorder.
    ///
    /// # Errors
    /// When a rule is invalid, or the key of the action `hash` cannot be read.
    pub fn new(config: &RedactionConfig) -> Result<Redactor, InvalidSetting> {
        describe_counter!("cairn_redactions_total", "Values that were redacted in events that arrived, by rule.");
        let rules = Arc::new(Rules::new(config)?);
        let names = rules.rules.iter().map(|rule| rule.name.to_string()).chain([KEY_RULE.to_owned()]);
        let counters = names.map(|name| counter!("cairn_redactions_total", "rule" => name)).collect();
        Ok(Redactor { rules, keys: config.keys.iter().map(|key| Glob::new(key)).collect(), counters })
    }

    /// The same rules for requests of the Agnost SDKs.
    #[must_use]
    pub fn for_agnost(&self) -> Redactor {
        let keys = self.keys.iter().cloned().chain(AGNOST_KEYS.map(Glob::new)).collect();
        Redactor { rules: Arc::clone(&self.rules), keys, counters: self.counters.clone() }
    }

    /// Whether canonical values may contain a match. Almost all events are done after this.
    fn may_match(&self, canonical: &[u8]) -> bool {
        !self.keys.is_empty() || !self.rules.rules.is_empty() && self.rules.may_match(canonical)
    }

    fn walk<'r>(&'r self, field: Fields, counts: &'r mut [u64]) -> Walk<'r> {
        Walk { rules: &self.rules, keys: &self.keys, field, counts, nested: 0 }
    }

    /// Redacts one field, and adds how often each rule matched to `counts`. Returns where the new value is in `values`, and `None` if
    /// the value was removed.
    fn field(&self, field: RedactedField, slot: Slot, values: &mut Vec<u8>, counts: &mut [u64]) -> Option<Slot> {
        let value = &values[slot.start..slot.end];
        let mut out = Vec::with_capacity(value.len());
        let mut walk = self.walk(Fields::of(field), counts);
        match walk.value(value, None, &mut out) {
            Outcome::Same => Some(slot),
            Outcome::Dropped => None,
            Outcome::Changed => {
                let start = values.len();
                values.extend_from_slice(&out);
                Some(Slot { start, end: values.len() })
            }
        }
    }

    /// Redacts a text that is no event, and returns it with the number of matches of each rule.
    pub fn text(&self, text: &str) -> (String, BTreeMap<&str, u64>) {
        let mut counts = vec![0; self.rules.rules.len() + 1];
        let mut quoted = Vec::with_capacity(text.len() + 2);
        write_string(text, &mut quoted);
        let mut out = Vec::with_capacity(quoted.len());
        let mut walk = self.walk(Fields::ALL, &mut counts);
        let text = match walk.value(&quoted, None, &mut out) {
            Outcome::Same => text.to_owned(),
            Outcome::Changed => scan::text(&out).unwrap_or_default().into_owned(),
            Outcome::Dropped => String::new(),
        };
        (text, self.named(&counts))
    }

    /// Redacts an event as it is sent, in canonical form, and returns it with the number of matches of each rule.
    pub fn event(&self, canonical: &[u8]) -> (Vec<u8>, BTreeMap<&str, u64>) {
        let mut counts = vec![0; self.rules.rules.len() + 1];
        let mut out = vec![b'{'];
        for (key, value) in scan::members(canonical) {
            // The member as an object of its own, as the walk of unknown fields sees it: they become metadata.
            let member = [b"{\"", key, b"\":", value, b"}"].concat();
            let field = Field::from_name(key);
            let examined = match EXAMINED.into_iter().find(|(examined, _)| Some(*examined) == field) {
                Some((_, examined)) => Some(examined),
                None => field.is_none().then_some(RedactedField::Metadata),
            };
            let mut redacted = Vec::new();
            let outcome = examined.map(|examined| {
                let mut walk = self.walk(Fields::of(examined), &mut counts);
                if field.is_none() {
                    return walk.value(&member, None, &mut redacted);
                }
                redacted.extend_from_slice(&member[..key.len() + 4]);
                let outcome = walk.value(value, None, &mut redacted);
                redacted.push(b'}');
                outcome
            });
            let member = match outcome {
                None => &member[..],
                Some(Outcome::Dropped) => b"{}",
                Some(_) => &redacted,
            };
            let inner = &member[1..member.len() - 1];
            out.extend_from_slice(if out.len() > 1 && !inner.is_empty() { b"," } else { b"" });
            out.extend_from_slice(inner);
        }
        out.push(b'}');
        (out, self.named(&counts))
    }

    fn named(&self, counts: &[u64]) -> BTreeMap<&str, u64> {
        let names = self.rules.rules.iter().map(|rule| &*rule.name).chain([KEY_RULE]);
        names.zip(counts).filter(|(_, count)| **count > 0).map(|(name, count)| (name, *count)).collect()
    }
}

impl Redact for Redactor {
    fn message(&self, message: String) -> String {
        if self.rules.rules.is_empty() || !self.rules.may_match(message.as_bytes()) {
            return message;
        }
        match self.text(&message).0 {
            // A rule that drops texts leaves nothing.
            dropped if dropped.is_empty() => "the message quotes what a rule of the redaction drops".to_owned(),
            redacted => redacted,
        }
    }

    fn redact(&self, values: &mut Vec<u8>, slots: &mut Slots) {
        if !self.may_match(values) {
            return;
        }
        let mut counts = vec![0; self.rules.rules.len() + 1];
        for (field, examined) in EXAMINED {
            if let Some(slot) = slots[field as usize] {
                slots[field as usize] = self.field(examined, slot, values, &mut counts);
            }
        }
        let named = self.named(&counts);
        if named.is_empty() {
            return;
        }
        let start = values.len();
        // Names and numbers can always be serialized, and the names of rules are in the order of canonical JSON.
        values.extend_from_slice(&serde_json::to_vec(&named).unwrap_or_default());
        slots[Field::Redactions as usize] = Some(Slot { start, end: values.len() });
        for (counter, count) in self.counters.iter().zip(&counts).filter(|(_, count)| **count > 0) {
            counter.increment(*count);
        }
    }
}
