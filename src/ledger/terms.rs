//! Terms: what the index finds events by, besides agent, time and id.

use xxhash_rust::xxh3::Xxh3;

use crate::chain::{Field, scan};

/// One thing that an event can be found by. A term is a hash: two may be the same by chance, so who finds an event
/// by it looks at the event itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u128);

impl Term {
    /// Events with this text in `field`.
    pub fn field(field: Field, text: &str) -> Term {
        Term::of(field, "", text)
    }

    /// Events with this label. A number or boolean is written as in canonical JSON.
    pub fn label(key: &str, value: &str) -> Term {
        Term::of(Field::Labels, key, value)
    }

    fn of(field: Field, key: &str, text: &str) -> Term {
        let mut hasher = Xxh3::new();
        hasher.update(&[field as u8]);
        hasher.update(&(key.len() as u64).to_be_bytes());
        hasher.update(key.as_bytes());
        hasher.update(text.as_bytes());
        Term(hasher.digest128())
    }
}

/// Tells every term of an event with these canonical bytes.
pub fn of_event(canonical: &[u8], mut tell: impl FnMut(Term)) {
    for (key, value) in scan::members(canonical) {
        match Field::from_name(key) {
            Some(Field::Labels) => {
                for (key, value) in scan::members(value) {
                    let key = std::str::from_utf8(key).ok().and_then(scan::unescape);
                    if let (Some(key), Some(value)) = (key, scan::text_or_literal(value)) {
                        tell(Term::label(&key, &value));
                    }
                }
            }
            Some(field @ (Field::ActionType | Field::ActionStatus | Field::SessionId)) => {
                if let Some(text) = scan::text(value) {
                    tell(Term::field(field, &text));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_found_by_type_status_session_and_labels() {
        let canonical = br#"{"action_input":{"session_id":"not this"},"action_status":"error","action_type":"CUSTOM","agent_id":"a","labels":{"a b":"x\ny","n":1.5,"ok":true},"session_id":"s"}"#;
        let mut found = Vec::new();
        of_event(canonical, |term| found.push(term));
        let expected = [
            Term::field(Field::ActionStatus, "error"),
            Term::field(Field::ActionType, "CUSTOM"),
            Term::label("a b", "x\ny"),
            Term::label("n", "1.5"),
            Term::label("ok", "true"),
            Term::field(Field::SessionId, "s"),
        ];
        assert_eq!(found, expected);
        assert_ne!(Term::label("ab", "c"), Term::label("a", "bc"));
    }
}
