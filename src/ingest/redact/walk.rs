//! Applies the rules to every string in a JSON value, at any depth, also in JSON that a string contains.

use std::borrow::Cow;

use cairn_proof::chain::string::{compare_keys, write_string};
use cairn_proof::chain::{canonicalize, scan};

use super::config::Action;
use super::rules::{Fields, Found, Rules};
use crate::text::glob::Glob;

/// How deep JSON in strings of JSON is read. What is deeper is examined as text.
const MAX_NESTED_JSON: u32 = 8;
/// The shortest number that may identify something, in bytes.
const MIN_NUMBER_LEN: usize = 12;

/// What became of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was.
    Same,
    /// It was changed.
    Changed,
    /// It has to be removed.
    Dropped,
}

/// What became of a text.
enum Text {
    Same,
    Changed(String),
    Dropped,
}

/// The redaction of one field.
pub struct Walk<'r> {
    pub rules: &'r Rules,
    /// Members whose value is replaced, by name.
    pub keys: &'r [Glob],
    /// The field.
    pub field: Fields,
    /// How often each rule matched, and after them the names of members.
    pub counts: &'r mut [u64],
    /// How deep in JSON in strings the walk is.
    pub nested: u32,
}

impl Walk<'_> {
    /// Appends what a canonical value becomes, in canonical form. `name` is the name of the member that it is the value of. If the
    /// value has to be removed, what was appended is meaningless.
    pub fn value(&mut self, value: &[u8], name: Option<&str>, out: &mut Vec<u8>) -> Outcome {
        match value.first() {
            Some(b'{') => self.object(value, out),
            Some(b'[') => self.array(value, name, out),
            Some(b'"') => {
                let text = scan::text(value).unwrap_or_default();
                match self.text(&text, name) {
                    Text::Same => {
                        out.extend_from_slice(value);
                        Outcome::Same
                    }
                    Text::Changed(changed) => {
                        write_string(&changed, out);
                        Outcome::Changed
                    }
                    Text::Dropped => Outcome::Dropped,
                }
            }
            Some(b'1'..=b'9') if value.len() >= MIN_NUMBER_LEN && value.iter().all(u8::is_ascii_digit) => {
                let digits = String::from_utf8_lossy(value);
                let found = self.rules.find(&digits, None, self.field, true);
                match self.replace(&digits, &found) {
                    Text::Changed(changed) => {
                        write_string(&changed, out);
                        Outcome::Changed
                    }
                    Text::Dropped => Outcome::Dropped,
                    Text::Same => {
                        out.extend_from_slice(value);
                        Outcome::Same
                    }
                }
            }
            _ => {
                out.extend_from_slice(value);
                Outcome::Same
            }
        }
    }

    fn array(&mut self, value: &[u8], name: Option<&str>, out: &mut Vec<u8>) -> Outcome {
        out.push(b'[');
        let mut outcome = Outcome::Same;
        for (index, element) in scan::elements(value).enumerate() {
            out.extend_from_slice(if index == 0 { b"" } else { b"," });
            let start = out.len();
            match self.value(element, name, out) {
                Outcome::Same => {}
                Outcome::Changed => outcome = Outcome::Changed,
                // The other elements keep their places.
                Outcome::Dropped => {
                    out.truncate(start);
                    out.extend_from_slice(b"null");
                    outcome = Outcome::Changed;
                }
            }
        }
        out.push(b']');
        outcome
    }

    fn object(&mut self, value: &[u8], out: &mut Vec<u8>) -> Outcome {
        let mut outcome = Outcome::Same;
        let mut members: Vec<(Cow<'_, str>, Vec<u8>)> = Vec::new();
        let mut has_other_keys = false;
        // An entry of a list, as in a manifest of Kubernetes: `{"name": "SECRET_KEY", "value": "..."}`.
        let entry = scan::member(value, "name").and_then(scan::text);
        for (key, member) in scan::members(value) {
            let key = std::str::from_utf8(key).ok().and_then(scan::unescape).unwrap_or_default();
            let mut written = Vec::new();
            if self.keys.iter().any(|name| name.matches(&key)) && member != b"null" {
                write_string(&format!("[REDACTED:{key}]"), &mut written);
                *self.counts.last_mut().unwrap_or(&mut 0) += 1;
                outcome = Outcome::Changed;
            } else {
                let name = if key == "value" { entry.as_deref().unwrap_or(&key) } else { &key };
                match self.value(member, Some(name), &mut written) {
                    Outcome::Same => {}
                    Outcome::Changed => outcome = Outcome::Changed,
                    Outcome::Dropped => {
                        outcome = Outcome::Changed;
                        continue;
                    }
                }
            }
            // The name itself may be what is looked for: a map from addresses to people.
            let found = self.rules.find(&key, None, self.field, false);
            let key = match self.replace(&key, &found) {
                Text::Same => key,
                Text::Changed(changed) => {
                    has_other_keys = true;
                    Cow::Owned(changed)
                }
                Text::Dropped => {
                    outcome = Outcome::Changed;
                    continue;
                }
            };
            members.push((key, written));
        }
        if has_other_keys {
            outcome = Outcome::Changed;
            number_equal_keys(&mut members);
        }
        out.push(b'{');
        for (index, (key, member)) in members.iter().enumerate() {
            out.extend_from_slice(if index == 0 { b"" } else { b"," });
            write_string(key, out);
            out.push(b':');
            out.extend_from_slice(member);
        }
        out.push(b'}');
        outcome
    }

    fn text(&mut self, text: &str, name: Option<&str>) -> Text {
        if self.nested < MAX_NESTED_JSON && text.contains(['{', '[', '"']) {
            let (mut has_json, mut changed) = (false, String::new());
            match self.json(text) {
                Some(Text::Same) => return Text::Same,
                Some(done) => return done,
                None => {
                    // Several texts of JSON, one on each line.
                    for line in text.split_inclusive('\n') {
                        match self.json(line.trim_end()) {
                            Some(Text::Changed(json)) => {
                                changed.push_str(&json);
                                changed.push_str(&line[line.trim_end().len()..]);
                                has_json = true;
                            }
                            Some(Text::Dropped) => has_json = true,
                            _ => changed.push_str(line),
                        }
                    }
                }
            }
            if has_json {
                return match self.plain(&changed, name) {
                    Text::Same => Text::Changed(changed),
                    done => done,
                };
            }
        }
        self.plain(text, name)
    }

    /// Redacts a text that is a JSON object, array or string; `None` if it is none.
    fn json(&mut self, text: &str) -> Option<Text> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        text.trim_start().starts_with(['{', '[', '"']).then_some(())?;
        let canonical = canonicalize(text).ok()?;
        let mut out = Vec::with_capacity(canonical.len());
        self.nested += 1;
        let outcome = self.value(&canonical, None, &mut out);
        self.nested -= 1;
        Some(match outcome {
            Outcome::Same => Text::Same,
            Outcome::Changed => Text::Changed(String::from_utf8(out).unwrap_or_default()),
            Outcome::Dropped => Text::Dropped,
        })
    }

    fn plain(&mut self, text: &str, name: Option<&str>) -> Text {
        let found = self.rules.find(text, name, self.field, false);
        self.replace(text, &found)
    }

    fn replace(&mut self, text: &str, found: &[Found]) -> Text {
        if found.is_empty() {
            return Text::Same;
        }
        found.iter().for_each(|found| self.counts[found.rule] += 1);
        if found.iter().any(|found| self.rules.rules[found.rule].action == Action::Drop) {
            return Text::Dropped;
        }
        let (mut changed, mut at) = (String::with_capacity(text.len()), 0);
        for found in found {
            changed.push_str(&text[at..found.start]);
            self.rules.write_replacement(found, &text[found.start..found.end], &mut changed);
            at = found.end;
        }
        changed.push_str(&text[at..]);
        Text::Changed(changed)
    }
}

/// Sorts members by name in canonical order, and numbers those whose names became equal: `[REDACTED:email]`, `[REDACTED:email] 2`.
fn number_equal_keys(members: &mut Vec<(Cow<'_, str>, Vec<u8>)>) {
    let mut taken: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
    let names: std::collections::HashSet<String> = members.iter().map(|(key, _)| key.to_string()).collect();
    for (key, _) in members.iter_mut() {
        let count = taken.entry(key.to_string()).or_insert(0);
        *count += 1;
        if *count > 1 {
            let mut numbered = format!("{key} {count}");
            while names.contains(&numbered) || taken.contains_key(&numbered) {
                numbered.push('\'');
            }
            taken.insert(numbered.clone(), 1);
            *key = Cow::Owned(numbered);
        }
    }
    members.sort_by(|(a, _), (b, _)| compare_keys(a, b));
}
