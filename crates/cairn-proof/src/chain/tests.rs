//! Tests across the files of this module: canonical bytes against the reference implementation, and whole events.

use proptest::prelude::*;
use serde_json::Value;

use super::canonical::FastChecker;
use super::event::EventReader;
use super::json::Fault;
use super::reference::reference_canonical;
use super::source::EventSource;
use super::{Field, canonicalize, scan};

/// Strings that exercise every rule: escapes, and characters whose order differs between UTF-8 and UTF-16.
fn text() -> impl Strategy<Value = String> {
    let awkward =
        prop::sample::select(vec!['"', '\\', '\n', '\u{1}', '\u{7f}', 'é', '\u{fb33}', '\u{ffff}', '😀', 'a']);
    prop_oneof![prop::collection::vec(awkward, 0..4).prop_map(String::from_iter), "[a-z_]{0,12}", any::<String>(),]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no infinities and no NaN", |n| n.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..8).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn canonical_bytes_equal_those_of_the_reference_implementation(value in json(), pretty in any::<bool>()) {
        let sent = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        prop_assert_eq!(String::from_utf8(canonicalize(&sent).unwrap()).unwrap(), reference_canonical(&value));
    }

    #[test]
    fn canonical_bytes_are_their_own_canonical_form(value in json()) {
        let once = canonicalize(&value.to_string()).unwrap();
        let twice = canonicalize(std::str::from_utf8(&once).unwrap()).unwrap();
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn the_fast_path_accepts_only_canonical_bytes(value in json(), cut in 0usize..200, other in any::<char>()) {
        let object = serde_json::json!({ "metadata": value });
        let is_canonical = |text: &str| canonicalize(text).is_ok_and(|canonical| canonical == text.as_bytes());
        let mut checker = FastChecker::default();
        let mut is_event = |text: &str| checker.is_canonical_event(text, |_, _| {});
        let pretty = serde_json::to_string_pretty(&object).unwrap();
        let mut texts = vec![object.to_string(), reference_canonical(&object), pretty];
        // One character is replaced, removed, or duplicated, or another one is inserted before it.
        let chars: Vec<char> = reference_canonical(&object).chars().collect();
        let at = cut % chars.len();
        let (before, after) = (&chars[..at], &chars[at + 1..]);
        for middle in [vec![other], vec![], vec![chars[at]; 2], vec!['0', chars[at]], vec!['\\', chars[at]]] {
            texts.push([before, &middle, after].concat().iter().collect());
        }
        for text in texts {
            prop_assert!(!is_event(&text) || is_canonical(&text), "{}", text);
        }
        // The fast path may reject rare canonical texts, but not plain ones.
        let plain = object.to_string();
        let is_plain = |c: char| c.is_ascii() && c != '\\';
        let has_digit = plain.contains(|c: char| c.is_ascii_digit());
        if plain == reference_canonical(&object) && plain.chars().all(is_plain) && !has_digit {
            prop_assert!(is_event(&plain), "{}", plain);
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,64}", json in json(), cut in 0usize..200, other in any::<char>()) {
        let _ = canonicalize(&text);
        let mut json: Vec<char> = json.to_string().chars().collect();
        if let Some(c) = json.get_mut(cut) {
            *c = other;
        }
        let damaged: String = json.iter().collect();
        let truncated: String = json.iter().take(cut).collect();
        for text in [damaged, truncated] {
            let _ = canonicalize(&text);
            let _ = super::event::skip(&text, 0);
            let _ = EventReader::default().read(&text, 0, EventSource::HTTP_API, 1 << 20).map(|_| ());
        }
    }

    #[test]
    fn members_of_canonical_bytes_are_those_sent(members in prop::collection::btree_map(text(), json(), 0..8)) {
        let sent = Value::Object(members.clone().into_iter().collect()).to_string();
        let canonical = canonicalize(&sent).unwrap();
        let mut found = std::collections::BTreeMap::new();
        for (key, value) in scan::members(&canonical) {
            let key = scan::unescape(std::str::from_utf8(key).unwrap()).unwrap().into_owned();
            found.insert(key, value.to_vec());
        }
        prop_assert_eq!(found.len(), members.len());
        for (key, value) in members {
            prop_assert_eq!(&found[&key], &canonicalize(&value.to_string()).unwrap());
        }
    }
}

/// Returns the canonical bytes of an event and its warnings, or why it is refused.
fn read(text: &str) -> Result<(String, Vec<String>), String> {
    let mut reader = EventReader::default();
    let (content, end) = reader.read(text, 0, EventSource::HTTP_API, 2000).map_err(|error| error.message)?;
    assert_eq!(end, text.trim_end().len());
    let mut bytes = Vec::new();
    content.write(&mut bytes);
    assert_eq!(bytes.len(), content.canonical_len());
    assert_eq!(bytes, canonicalize(std::str::from_utf8(&bytes).unwrap()).unwrap(), "canonical");
    Ok((String::from_utf8(bytes).unwrap(), content.warnings.to_vec()))
}

#[test]
fn an_event_becomes_canonical_bytes_with_placeholders() {
    let sent = r#" {"agent_id": "a", "duration_ms": 12.0, "labels": {"z":1,"b":true}, "session_id": null} "#;
    let (canonical, warnings) = read(sent).unwrap();
    let expected = concat!(
        r#"{"action_type":"CUSTOM","agent_id":"a","capture_method":"http-api","duration_ms":12,"#,
        r#""id":"000000000000000000000000000000000000","labels":{"b":true,"z":1},"#,
        r#""received_at":"000000000000000000000000","schema_version":"1.0","source":"sdk","#,
        r#""timestamp":"000000000000000000000000"}"#
    );
    assert_eq!(canonical, expected);
    assert!(warnings.is_empty());
}

#[test]
fn the_placeholders_are_at_the_reported_offsets() {
    let mut reader = EventReader::default();
    let (content, _) = reader.read(r#"{"agent_id":"a"}"#, 0, EventSource::HTTP_API, 2000).unwrap();
    let mut bytes = b"before".to_vec();
    let placeholders = content.write(&mut bytes);
    for (at, len) in
        [(placeholders.id.unwrap(), 36), (placeholders.received_at, 24), (placeholders.timestamp.unwrap(), 24)]
    {
        let around = &bytes[6 + at - 1..6 + at + len + 1];
        assert!(around[0] == b'"' && around[len + 1] == b'"' && around[1..=len].iter().all(|&b| b == b'0'));
    }
    let sent = r#"{"agent_id":"a","id":"018f0000-0000-7000-8000-000000000000","timestamp":"2026-02-17T10:30:00Z"}"#;
    let (content, _) = reader.read(sent, 0, EventSource::HTTP_API, 2000).unwrap();
    let placeholders = content.write(&mut Vec::new());
    assert_eq!((placeholders.id, placeholders.timestamp), (None, None));
    assert!(content.client_id.is_some());
}

#[test]
fn unknown_fields_are_stored_and_server_set_fields_ignored_with_a_warning() {
    let sent = r#"{"zeta":1,"agent_id":"a","metadata":{"a":1,"Z":2},"Alpha":{"y":1,"x":2},"hash":"h","received_at":"r",
        "sequence":null,"action_type":"DANCE","action_status":"meh"}"#;
    let (canonical, warnings) = read(sent).unwrap();
    assert!(
        canonical.contains(r#""metadata":{"Z":2,"_unknown":{"Alpha":{"x":2,"y":1},"zeta":1},"a":1}"#),
        "{canonical}"
    );
    assert!(!canonical.contains(r#""h""#) && !canonical.contains("sequence"));
    assert!(canonical.contains(r#""action_type":"DANCE""#));
    let expected = [
        "hash is set by the server: the value sent is ignored",
        "received_at is set by the server: the value sent is ignored",
        r#"unknown fields are stored in metadata._unknown: "Alpha", "zeta""#,
        r#"action_type: "DANCE" is not one of TOOL_CALL, TOOL_RESULT, LLM_CALL, LLM_RESPONSE, AGENT_TURN, CUSTOM"#,
        r#"action_status: "meh" is not one of success, error, timeout"#,
    ];
    assert_eq!(warnings, expected);
    let (canonical, _) = read(r#"{"agent_id":"a","x":null}"#).unwrap();
    assert!(canonical.contains(r#""metadata":{"_unknown":{"x":null}}"#));
}

#[test]
fn the_error_of_a_refused_event_names_the_field_and_what_was_expected() {
    let deep = format!(r#"{{"agent_id":"a","x":{}1{}}}"#, "[".repeat(126), "]".repeat(126));
    let long = format!(r#"{{"agent_id":"a","action_input":"{}"}}"#, "x".repeat(3000));
    let cases = [
        (r#"{}"#, "agent_id is required"),
        (r#"{"agent_id":null}"#, "agent_id is required"),
        (r#"{"agent_id":""}"#, "agent_id is required"),
        (r#"{"agent_id":7}"#, "agent_id: expected a string, found 7"),
        (r#"{"agent_id":"a\u0007"}"#, "agent_id: expected no control characters"),
        (r#"{"agent_id":"a","agent_id":"a"}"#, r#"duplicate key "agent_id""#),
        (r#"{"agent_id":"a","x":1,"x":1}"#, r#"duplicate key "x""#),
        (r#"{"agent_id":"a","metadata":{"m":[{"b":1,"b":2}]}}"#, r#"metadata.m[0]: duplicate key "b""#),
        (r#"{"agent_id":"a","metadata":{"_unknown":1}}"#, "metadata._unknown: this name is reserved"),
        (r#"{"agent_id":"a","metadata":{"_unknown":1},"x":1}"#, "metadata._unknown: this name is reserved"),
        (r#"{"agent_id":"a","metadata":[]}"#, "metadata: expected an object, found []"),
        (r#"{"agent_id":"a","metadata":[],"x":1}"#, "metadata: expected an object, found []"),
        (r#"{"agent_id":"a","labels":{"env":{}}}"#, "labels.env: expected a string, number or boolean, found {}"),
        (r#"{"agent_id":"a","labels":{"env":null}}"#, "labels.env: expected a string, number or boolean"),
        (r#"{"agent_id":"a","id":"018f00000000700080000000000000001"}"#, "id: expected a UUID such as"),
        (r#"{"agent_id":"a","timestamp":"yesterday"}"#, "timestamp: expected an RFC 3339 time such as"),
        (r#"{"agent_id":"a","duration_ms":-1}"#, "duration_ms: expected an integer from 0"),
        (r#"{"agent_id":"a","duration_ms":1.5}"#, "duration_ms: expected an integer from 0"),
        (r#"{"agent_id":"a","session_id":1}"#, "session_id: expected a string, found 1"),
        (r#"{"agent_id":"a","action_input":{"n":[0,18446744073709551616]}}"#, "action_input.n[1]: the integer"),
        (r#"{"agent_id":"a","action_input":"\ud83d"}"#, "action_input: a lone surrogate"),
        (r#"{"agent_id":"a","action_input":1e999}"#, "action_input: the number 1e999 is out of range"),
        (&deep, "nested deeper than 128"),
        (&long, "longer than 2000 bytes"),
        ("[]", "expected an object"),
    ];
    for (sent, expected) in cases {
        let error = read(sent).expect_err(sent);
        assert!(error.contains(expected), "{sent}\n failed with {error}\n not {expected}");
    }
}

#[test]
fn the_nesting_of_an_unknown_field_is_limited_where_it_is_stored() {
    let sent = format!(r#"{{"agent_id":"a","x":{}1{}}}"#, "[".repeat(125), "]".repeat(125));
    read(&sent).unwrap();
}

#[test]
fn syntax_errors_are_distinguished_from_errors_of_content() {
    let mut reader = EventReader::default();
    let mut fault = |text: &str| reader.read(text, 0, EventSource::HTTP_API, 2000).map(|_| ()).unwrap_err().fault;
    for text in ["", "{", r#"{"agent_id":"a",}"#, r#"{"a" 1}"#, r#"{'a':1}"#, "nul", r#"{"a":01}"#, "{\"a\":\"\t\"}"] {
        assert_eq!(fault(text), Fault::Syntax, "{text}");
    }
    for text in [r#"{"a":1e999}"#, r#"{"agent_id":1}"#, "[1]", "null"] {
        assert_eq!(fault(text), Fault::Content, "{text}");
    }
}

#[test]
fn the_end_of_a_refused_event_is_found() {
    let text = r#" {"a":"}\"]","b":[1e999,{}]} , 1"#;
    assert_eq!(&text[super::event::skip(text, 0)..], " , 1");
    assert_eq!(super::event::skip("{", 0), 1);
    assert_eq!(Field::ALL.len(), 19);
}
