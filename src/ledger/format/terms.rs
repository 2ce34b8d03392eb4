//! Terms: the keys of the index, which finds events by type, status, session and label.

use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use cairn_proof::chain::{Content, DEFAULT_ACTION_TYPE, Field, scan};

/// The terms of one event. The number that most events have needs no allocation.
pub type Terms = SmallVec<[Term; 8]>;

/// A hash of a field or label and its value. Two terms may collide, so a reader that finds an event by a term has to
/// check the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u128);

impl Term {
    /// The term of events with the value `text` in `field`.
    pub fn field(field: Field, text: &str) -> Term {
        Term::of(field, text.as_bytes())
    }

    fn of(field: Field, text: &[u8]) -> Term {
        Term(xxh3_128_with_seed(text, seed(field)))
    }

    /// The term of events with this label. Numbers and booleans are given as in canonical JSON.
    pub fn label(key: &str, value: &str) -> Term {
        Term(xxh3_128_with_seed(value.as_bytes(), xxh3_64_with_seed(key.as_bytes(), seed(Field::Labels))))
    }
}

/// The seed of the terms of a field: a part of the format, which does not change when fields are added.
const fn seed(field: Field) -> u64 {
    match field {
        Field::ActionStatus => 3,
        Field::ActionType => 4,
        Field::Labels => 10,
        Field::SessionId => 14,
        _ => u64::MAX,
    }
}

/// The fields that are indexed.
pub const FIELDS: [Field; 4] = [Field::ActionStatus, Field::ActionType, Field::Labels, Field::SessionId];

/// The terms of an event, from its canonical bytes.
pub fn of_event(canonical: &[u8]) -> Terms {
    let mut terms = Terms::new();
    for (key, value) in scan::members(canonical) {
        if let Some(field) = FIELDS.into_iter().find(|field| field.name().as_bytes() == key) {
            add(field, value, &mut terms);
        }
    }
    terms
}

/// Caches the terms of the labels of the previous event, which are usually those of the next event, too.
#[derive(Default)]
pub struct LastLabels {
    /// The labels, as a canonical value.
    labels: Vec<u8>,
    terms: Terms,
}

impl LastLabels {
    fn terms_of(&mut self, labels: &[u8]) -> &[Term] {
        if self.labels != labels {
            self.labels.clear();
            self.labels.extend_from_slice(labels);
            self.terms.clear();
            add(Field::Labels, labels, &mut self.terms);
        }
        &self.terms
    }
}

/// The terms of an event, from content that has not been written as canonical bytes. The same as [`of_event`].
pub fn of_content(content: &Content<'_>) -> Terms {
    terms_of(content, |labels, terms| add(Field::Labels, labels, terms))
}

/// The terms of an event of many.
pub fn of_next(content: &Content<'_>, last: &mut LastLabels) -> Terms {
    terms_of(content, |labels, terms| terms.extend_from_slice(last.terms_of(labels)))
}

fn terms_of(content: &Content<'_>, add_labels: impl FnOnce(&[u8], &mut Terms)) -> Terms {
    let (mut terms, mut add_labels) = (Terms::new(), Some(add_labels));
    for field in FIELDS {
        match content.value(field) {
            Some(value) if field == Field::Labels => {
                if let Some(add_labels) = add_labels.take() {
                    add_labels(value, &mut terms);
                }
            }
            Some(value) => add(field, value, &mut terms),
            None if field == Field::ActionType => terms.push(Term::field(field, DEFAULT_ACTION_TYPE)),
            None => {}
        }
    }
    terms
}

fn add(field: Field, value: &[u8], terms: &mut Terms) {
    for_each(field, value, |term| terms.push(term));
}

/// Passes the terms of one of the indexed fields to `visit`, given its canonical value.
pub fn for_each(field: Field, value: &[u8], mut visit: impl FnMut(Term)) {
    if field != Field::Labels {
        match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
            // A string without escapes needs no decoding.
            Some(text) if !text.contains(&b'\\') => visit(Term::of(field, text)),
            _ => scan::text(value).into_iter().for_each(|text| visit(Term::field(field, &text))),
        }
        return;
    }
    for (key, value) in scan::members(value) {
        let key = std::str::from_utf8(key).ok().and_then(scan::unescape);
        if let (Some(key), Some(value)) = (key, scan::text_or_literal(value)) {
            visit(Term::label(&key, &value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::chain::{EventReader, EventSource};

    #[test]
    fn terms_are_those_of_earlier_versions() {
        // Of the first version, whose ledgers must be found in without rebuilding their index.
        let terms = [
            (Term::field(Field::ActionStatus, "error"), 3),
            (Term::field(Field::ActionType, "error"), 4),
            (Term::field(Field::SessionId, "error"), 14),
        ];
        for (term, seed) in terms {
            assert_eq!(term, Term(xxh3_128_with_seed(b"error", seed)));
        }
        let label = Term(xxh3_128_with_seed(b"prod", xxh3_64_with_seed(b"env", 10)));
        assert_eq!(Term::label("env", "prod"), label);
        assert!(FIELDS.into_iter().all(|field| seed(field) != u64::MAX), "each indexed field has a seed");
    }

    #[test]
    fn an_event_is_found_by_type_status_session_and_labels() {
        let canonical = br#"{"action_input":{"session_id":"not this"},"action_status":"error","action_type":"CUSTOM","agent_id":"a","labels":{"a b":"x\ny","n":1.5,"ok":true},"session_id":"s"}"#;
        let found = of_event(canonical);
        let expected = [
            Term::field(Field::ActionStatus, "error"),
            Term::field(Field::ActionType, "CUSTOM"),
            Term::label("a b", "x\ny"),
            Term::label("n", "1.5"),
            Term::label("ok", "true"),
            Term::field(Field::SessionId, "s"),
        ];
        assert_eq!(found[..], expected);
        assert_ne!(Term::label("ab", "c"), Term::label("a", "bc"));
    }

    #[test]
    fn an_event_has_the_same_terms_before_and_after_it_is_written() {
        let (mut reader, mut last) = (EventReader::default(), LastLabels::default());
        for event in [
            r#"{"agent_id":"a"}"#,
            r#"{"session_id":"s \u00e9","agent_id":"a","labels":{"b":true,"a\n":"x","c":-0.5},"action_type":"LLM_CALL"}"#,
            r#"{"agent_id":"a","action_status":"error","labels":{},"action_type":null,"metadata":{"session_id":"no"}}"#,
        ] {
            let (content, _) = reader.read(event, 0, EventSource::HTTP_API, usize::MAX).unwrap();
            let (before, mut canonical) = (of_content(&content), Vec::new());
            content.write(&mut canonical);
            assert_eq!(before, of_event(&canonical), "{event}");
            assert_eq!(before, of_next(&content, &mut last), "{event}");
            assert_eq!(before, of_next(&content, &mut last), "{event}");
            assert!(!before.is_empty());
        }
    }
}
