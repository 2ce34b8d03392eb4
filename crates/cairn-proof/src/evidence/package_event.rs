//! Parses one event of a package: its content, which is hashed, and the members next to the content.
//!
//! The rules are those of the layer `events` in `docs/verification.md`, "How a verifier checks a package".

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use crate::chain::fields::SALT_LEN;
use crate::chain::json::{Parser, ParserScratch};
use crate::chain::{AgentKey, Field, Hash, Link, Sequence, Stub, check_field, scan};

/// The fields that every stored event has, in addition to `id`, `agent_id` and `received_at`.
const REQUIRED: [Field; 5] =
    [Field::ActionType, Field::CaptureMethod, Field::SchemaVersion, Field::Source, Field::Timestamp];

/// A parsed event. Only its form was checked.
pub struct PackageEvent<'r> {
    /// The canonical bytes of the content, or of what is left of it.
    pub canonical: &'r [u8],
    /// What is left, if the content was erased.
    pub stub: Option<Stub>,
    /// The stated sequence.
    pub sequence: Sequence,
    /// The stated hash of the event before it.
    pub prev_hash: Hash,
    /// The stated hash.
    pub hash: Hash,
    /// The id, as a canonical value.
    pub id: &'r [u8],
    /// The agent id, as a canonical value.
    pub agent_id: &'r [u8],
    /// The time of receipt, as a canonical value.
    pub received_at: &'r [u8],
    /// Why no stored event has these members, if so.
    pub invalid: Option<String>,
}

impl PackageEvent<'_> {
    /// The link that the event states, in the chain of `agent`.
    pub fn link(&self, agent: AgentKey) -> Link<'_> {
        let &PackageEvent { sequence, prev_hash, hash, canonical, .. } = self;
        Link { agent, sequence, prev_hash, hash, canonical: self.stub.is_none().then_some(canonical) }
    }
}

/// Parses events. Its buffers are reused from event to event.
#[derive(Default)]
pub struct PackageEventReader {
    /// Whether the events are those of a package of version 1.0.
    is_first_version: bool,
    scratch: ParserScratch,
    /// The event with all members, in canonical form.
    event: Vec<u8>,
    /// The content of the event, in canonical form.
    canonical: Vec<u8>,
}

impl PackageEventReader {
    /// A reader of the events of a package, which may be one of version 1.0.
    pub fn new(is_first_version: bool) -> PackageEventReader {
        PackageEventReader { is_first_version, ..PackageEventReader::default() }
    }

    /// Parses an event.
    ///
    /// # Errors
    /// When it has no canonical form, is not an object, or has no valid `hash`, `prev_hash` and `sequence`, or no `id`,
    /// `agent_id` and `received_at`.
    pub fn read(&mut self, text: &str) -> Result<PackageEvent<'_>, String> {
        let PackageEventReader { is_first_version, scratch, event, canonical } = self;
        event.clear();
        let mut parser = Parser::new(text, 0, scratch, usize::MAX);
        parser.value(event).and_then(|()| parser.end()).map_err(|error| error.to_string())?;
        if event.first() != Some(&b'{') {
            return Err("expected an object".to_owned());
        }
        let has_content = *is_first_version || scan::member(event, ERASED).is_none();
        let invalid = write_content(event, *is_first_version, has_content, canonical);
        // A stub that is none has no hash that can be computed, and is no event.
        let stub = if has_content { None } else { Some(read_stub(canonical).map_err(|why| format!("erased: {why}"))?) };
        let missing = REQUIRED.iter().find(|field| has_content && scan::member(canonical, field.name()).is_none());
        let invalid = invalid.or_else(|| missing.map(|field| format!("{} is missing", field.name())));
        let text = |name: &str| scan::member(event, name).and_then(scan::text);
        let value = |field: Field| {
            let value = scan::member(canonical, field.name());
            value.ok_or_else(|| format!("{} is missing", field.name()))
        };
        let hash = |name: &str| {
            let hash = text(name).unwrap_or_default().parse::<Hash>();
            hash.map_err(|error| format!("{name}: {error}"))
        };
        let sequence =
            scan::member(event, "sequence").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        Ok(PackageEvent {
            sequence: Sequence(sequence.ok_or("sequence: expected a number")?),
            prev_hash: hash("prev_hash")?,
            hash: hash("hash")?,
            id: value(Field::Id)?,
            agent_id: value(Field::AgentId)?,
            received_at: value(Field::ReceivedAt)?,
            canonical,
            stub,
            invalid,
        })
    }
}

/// The member that an event has instead of its content if that was erased.
const ERASED: &str = "erased";

/// Writes the members of an event that are hashed or, without content, those that are left. Returns why no stored event has one
/// of the members, if so.
fn write_content(event: &[u8], is_first_version: bool, has_content: bool, out: &mut Vec<u8>) -> Option<String> {
    out.clear();
    let mut invalid = None;
    for (key, value) in scan::members(event) {
        let field = Field::from_name(key);
        let is_mark = !has_content && key == ERASED.as_bytes();
        let error = match field {
            Some(field @ (Field::Redactions | Field::Salt)) if is_first_version => {
                Some(format!("{}: version 1.0 does not have this field", field.name()))
            }
            Some(field) => field_error(field, value),
            None if is_mark => None,
            None => member_error(key, value),
        };
        invalid = invalid.or(error);
        if field.is_some() || is_mark {
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.push(b'"');
            out.extend_from_slice(key);
            out.extend_from_slice(b"\":");
            out.extend_from_slice(value);
        }
    }
    out.extend_from_slice(if out.is_empty() { b"{}" } else { b"}" });
    invalid
}

/// Parses what is left of an erased event.
fn read_stub(canonical: &[u8]) -> Result<Stub, String> {
    let agent_id = scan::member(canonical, Field::AgentId.name()).and_then(scan::text).unwrap_or_default();
    Stub::parse(canonical, AgentKey::of(&agent_id))
}

/// Why a value is not valid for a field of the content, if it is not.
fn field_error(field: Field, value: &[u8]) -> Option<String> {
    if value == b"null" {
        return Some(format!("{}: a stored event has no null fields", field.name()));
    }
    if field == Field::SchemaVersion && value != br#""1.0""# {
        return Some("schema_version: expected \"1.0\"".to_owned());
    }
    if field == Field::Salt && !scan::text(value).is_some_and(|salt| is_salt(&salt)) {
        return Some(format!("salt: expected {SALT_LEN} characters of base64url"));
    }
    if field == Field::Redactions && serde_json::from_slice::<BTreeMap<String, NonZeroU64>>(value).is_err() {
        return Some("redactions: expected an object of numbers".to_owned());
    }
    if field == Field::CaptureMethod && value.first() != Some(&b'"') {
        return Some("capture_method: expected a string".to_owned());
    }
    check_field(field, value).err().map(|error| error.to_string())
}

fn is_salt(text: &str) -> bool {
    text.len() == SALT_LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Why a member is not one of those next to the content, if it is not.
fn member_error(key: &[u8], value: &[u8]) -> Option<String> {
    match key {
        b"hash" | b"prev_hash" | b"sequence" => None,
        b"validation_warnings" => {
            let is_string_array = serde_json::from_slice::<Vec<String>>(value).is_ok();
            (!is_string_array).then(|| "validation_warnings: expected an array of strings".to_owned())
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
    fn the_hashed_bytes_consist_of_the_content_alone() {
        let mut reader = PackageEventReader::default();
        let text = format!(
            r#"{{ {HASHES}, "validation_warnings": ["w"], {NEEDED}, "action_input": {{"b": 1.0, "a": 9007199254740993}} }}"#
        );
        let event = reader.read(&text).unwrap();
        assert_eq!(event.invalid, None);
        let expected = concat!(
            r#"{"action_input":{"a":9007199254740993,"b":1},"action_type":"CUSTOM","agent_id":"a","#,
            r#""capture_method":"http-api","id":"0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f","received_at":"x","#,
            r#""schema_version":"1.0","source":"sdk","timestamp":"2026-02-17T10:30:00Z"}"#
        );
        assert_eq!(std::str::from_utf8(event.canonical).unwrap(), expected);
    }

    #[test]
    fn only_events_of_later_versions_have_a_salt_and_redactions() {
        let more = r#""redactions":{"email":2},"salt":"AAAAAAAAAAAAAAAAAAAA_-""#;
        let text = format!("{{{HASHES},{NEEDED},{more}}}");
        assert_eq!(PackageEventReader::new(false).read(&text).unwrap().invalid, None);
        let invalid = PackageEventReader::new(true).read(&text).unwrap().invalid;
        assert_eq!(invalid.as_deref(), Some("redactions: version 1.0 does not have this field"));
    }

    #[test]
    fn a_member_that_no_stored_event_has_is_reported_by_name() {
        let mut reader = PackageEventReader::default();
        for (more, named) in [
            (r#""colour":"red""#, "unknown field \"colour\""),
            (r#""error_message":null"#, "error_message"),
            (r#""duration_ms":"1""#, "duration_ms"),
            (r#""validation_warnings":[1]"#, "validation_warnings"),
            (r#""receipt":{}"#, "unknown field \"receipt\""),
            (r#""salt":"short""#, "salt"),
            (r#""salt":"AAAAAAAAAAAAAAAAAAAAA+""#, "salt"),
            (r#""redactions":{"email":0}"#, "redactions"),
            (r#""redactions":[]"#, "redactions"),
        ] {
            let text = format!("{{{HASHES},{NEEDED},{more}}}");
            let invalid = reader.read(&text).unwrap().invalid;
            assert!(invalid.as_ref().is_some_and(|why| why.contains(named)), "{more}: {invalid:?}");
        }
        for text in ["", "[]", "{}", "{", &format!("{{{NEEDED}}}"), &format!("{{{HASHES}}}")] {
            assert!(reader.read(text).is_err(), "{text}");
        }
        for (from, to) in [("\"1.0\"", "7"), ("\"http-api\"", "{}"), ("\"source\":\"sdk\",", "")] {
            let text = format!("{{{HASHES},{NEEDED}}}").replace(from, to);
            assert!(reader.read(&text).unwrap().invalid.is_some(), "{text}");
        }
        let twice = format!(r#"{{{HASHES},{NEEDED},"agent_id":"b"}}"#);
        assert!(reader.read(&twice).is_err_and(|why| why.contains("duplicate")));
        let upper = format!("{{{},{NEEDED}}}", HASHES.replace('a', "A"));
        assert!(reader.read(&upper).is_err(), "hashes are lower-case");
    }
}
