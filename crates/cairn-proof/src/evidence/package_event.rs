//! One event, as a package tells it: what is hashed, and what the sender says beside it.

use crate::chain::json::{Canonicalizer, Parser};
use crate::chain::{AgentKey, Field, Hash, Link, Sequence, check_field, scan};

/// The fields that every stored event has, besides those by which it is placed.
const ALWAYS: [Field; 5] =
    [Field::ActionType, Field::CaptureMethod, Field::SchemaVersion, Field::Source, Field::Timestamp];

/// An event that was told.
pub struct PackageEvent<'r> {
    /// Its content, as it is hashed.
    pub canonical: &'r [u8],
    /// What is said of its place in the chain.
    pub sequence: Sequence,
    /// The hash of the event before it.
    pub prev_hash: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// Its id, a canonical value.
    pub id: &'r [u8],
    /// Whose event it is, a canonical value.
    pub agent_id: &'r [u8],
    /// When it was received, a canonical value.
    pub received_at: &'r [u8],
    /// What a stored event cannot have, if it has any.
    pub wrong: Option<String>,
}

impl PackageEvent<'_> {
    /// Its link, in the chain of an agent.
    pub fn link(&self, agent: AgentKey) -> Link<'_> {
        let &PackageEvent { sequence, prev_hash, hash, canonical, .. } = self;
        Link { agent, sequence, prev_hash, hash, canonical }
    }
}

/// Reads events, with memory that is reused from one to the next.
#[derive(Default)]
pub struct PackageEventReader {
    memory: Canonicalizer,
    /// Everything that was told, in canonical form.
    whole: Vec<u8>,
    /// Of that, the content.
    canonical: Vec<u8>,
}

impl PackageEventReader {
    /// Reads an event.
    ///
    /// # Errors
    /// When it cannot be placed: it is no object in which every key is once, or has no id, agent, sequence or hashes.
    pub fn read(&mut self, text: &str) -> Result<PackageEvent<'_>, String> {
        let PackageEventReader { memory, whole, canonical } = self;
        whole.clear();
        let mut parser = Parser::new(text, 0, memory, usize::MAX);
        parser.value(whole).and_then(|()| parser.end()).map_err(|error| error.to_string())?;
        if whole.first() != Some(&b'{') {
            return Err("expected an object".to_owned());
        }
        canonical.clear();
        let mut wrong = None;
        for (key, value) in scan::members(whole) {
            match Field::from_name(key) {
                Some(field) => {
                    wrong = wrong.or_else(|| wrong_value(field, value));
                    canonical.push(if canonical.is_empty() { b'{' } else { b',' });
                    canonical.push(b'"');
                    canonical.extend_from_slice(key);
                    canonical.extend_from_slice(b"\":");
                    canonical.extend_from_slice(value);
                }
                None => wrong = wrong.or_else(|| wrong_beside(key, value)),
            }
        }
        canonical.extend_from_slice(if canonical.is_empty() { b"{}" } else { b"}" });
        let missing = ALWAYS.iter().find(|field| scan::member(canonical, field.name()).is_none());
        let wrong = wrong.or_else(|| missing.map(|field| format!("{} is missing", field.name())));
        let text = |name: &str| scan::member(whole, name).and_then(scan::text);
        let value = |field: Field| {
            let value = scan::member(canonical, field.name());
            value.ok_or_else(|| format!("{} is missing", field.name()))
        };
        let hash = |name: &str| {
            let hash = text(name).unwrap_or_default().parse::<Hash>();
            hash.map_err(|error| format!("{name}: {error}"))
        };
        let sequence =
            scan::member(whole, "sequence").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        Ok(PackageEvent {
            sequence: Sequence(sequence.ok_or("sequence: expected a number")?),
            prev_hash: hash("prev_hash")?,
            hash: hash("hash")?,
            id: value(Field::Id)?,
            agent_id: value(Field::AgentId)?,
            received_at: value(Field::ReceivedAt)?,
            canonical,
            wrong,
        })
    }
}

/// What is wrong with a field of the content, if anything.
fn wrong_value(field: Field, value: &[u8]) -> Option<String> {
    if value == b"null" {
        return Some(format!("{}: a stored event has no field that is null", field.name()));
    }
    if field == Field::SchemaVersion && value != br#""1.0""# {
        return Some("schema_version: expected \"1.0\"".to_owned());
    }
    if field == Field::CaptureMethod && value.first() != Some(&b'"') {
        return Some("capture_method: expected a string".to_owned());
    }
    check_field(field, value).err().map(|error| error.to_string())
}

/// What is wrong with a member beside the content, if anything.
fn wrong_beside(key: &[u8], value: &[u8]) -> Option<String> {
    match key {
        b"hash" | b"prev_hash" | b"sequence" => None,
        b"validation_warnings" => {
            let is_texts = serde_json::from_slice::<Vec<String>>(value).is_ok();
            (!is_texts).then(|| "validation_warnings: expected an array of strings".to_owned())
        }
        _ => Some(format!("unknown field \"{}\"", String::from_utf8_lossy(key))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASHES: &str = concat!(
        r#""hash":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","#,
        r#""prev_hash":"0000000000000000000000000000000000000000000000000000000000000000","sequence":1"#
    );
    const NEEDED: &str = concat!(
        r#""id":"0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f","agent_id":"a","received_at":"x","action_type":"CUSTOM","#,
        r#""capture_method":"http-api","schema_version":"1.0","source":"sdk","timestamp":"2026-02-17T10:30:00Z""#
    );

    #[test]
    fn what_is_hashed_is_put_together_from_the_content_alone() {
        let mut reader = PackageEventReader::default();
        let text = format!(
            r#"{{ {HASHES}, "validation_warnings": ["w"], {NEEDED}, "action_input": {{"b": 1.0, "a": 9007199254740993}} }}"#
        );
        let told = reader.read(&text).unwrap();
        assert_eq!(told.wrong, None);
        let expected = concat!(
            r#"{"action_input":{"a":9007199254740993,"b":1},"action_type":"CUSTOM","agent_id":"a","#,
            r#""capture_method":"http-api","id":"0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f","received_at":"x","#,
            r#""schema_version":"1.0","source":"sdk","timestamp":"2026-02-17T10:30:00Z"}"#
        );
        assert_eq!(std::str::from_utf8(told.canonical).unwrap(), expected);
    }

    #[test]
    fn what_no_stored_event_has_is_named() {
        let mut reader = PackageEventReader::default();
        for (more, named) in [
            (r#""colour":"red""#, "unknown field \"colour\""),
            (r#""error_message":null"#, "error_message"),
            (r#""duration_ms":"1""#, "duration_ms"),
            (r#""validation_warnings":[1]"#, "validation_warnings"),
            (r#""receipt":{}"#, "unknown field \"receipt\""),
        ] {
            let text = format!("{{{HASHES},{NEEDED},{more}}}");
            let wrong = reader.read(&text).unwrap().wrong;
            assert!(wrong.as_ref().is_some_and(|wrong| wrong.contains(named)), "{more}: {wrong:?}");
        }
        for text in ["", "[]", "{}", "{", &format!("{{{NEEDED}}}"), &format!("{{{HASHES}}}")] {
            assert!(reader.read(text).is_err(), "{text}");
        }
        for (from, to) in [("\"1.0\"", "7"), ("\"http-api\"", "{}"), ("\"source\":\"sdk\",", "")] {
            let text = format!("{{{HASHES},{NEEDED}}}").replace(from, to);
            assert!(reader.read(&text).unwrap().wrong.is_some(), "{text}");
        }
        let twice = format!(r#"{{{HASHES},{NEEDED},"agent_id":"b"}}"#);
        assert!(reader.read(&twice).is_err_and(|why| why.contains("duplicate")));
        let upper = format!("{{{},{NEEDED}}}", HASHES.replace('a', "A"));
        assert!(reader.read(&upper).is_err(), "a hash has one form");
    }
}
