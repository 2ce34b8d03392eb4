//! Every built-in pattern finds its examples and nothing else, rules do what they say, and properties of all of them.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use cairn_proof::chain::{EventReader, EventSource, Field, canonicalize, scan};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::config::{Action, RuleConfig};
use super::examples::{EXAMPLES, text};
use super::patterns::PATTERNS;
use super::{RedactionConfig, Redactor};

fn only(names: &[&str]) -> Redactor {
    let presets = names.iter().map(|name| (*name).to_owned()).collect();
    Redactor::new(&RedactionConfig { presets, ..RedactionConfig::default() }).unwrap()
}

#[test]
fn every_pattern_finds_its_examples_and_nothing_else() {
    let named: Vec<&str> = EXAMPLES.iter().map(|(name, ..)| *name).collect();
    assert_eq!(named, PATTERNS.iter().map(|pattern| pattern.name).collect::<Vec<_>>(), "each pattern has examples");
    for (name, positive, negative) in EXAMPLES {
        let redactor = only(&[name]);
        for marked in positive.iter().map(|marked| text(marked)) {
            let (before, rest) = marked.split_once('«').unwrap();
            let (_, after) = rest.split_once('»').unwrap();
            let text = marked.replace(['«', '»'], "");
            let (found, counts) = redactor.text(&text);
            assert_eq!(found, format!("{before}[REDACTED:{name}]{after}"), "{name}: {text}");
            assert_eq!(counts.into_iter().collect::<Vec<_>>(), [(name, 1)]);
            // In any place, and in JSON in a string, with every character escaped.
            let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
            for inside in [format!("[{{\"deep\": [1, \"{escaped}\"]}}]"), json!({"x": [text]}).to_string()] {
                let (found, _) = redactor.text(&inside);
                assert!(
                    found.contains(&format!("[REDACTED:{name}]")) && !found.contains("\\u004"),
                    "{name}: {inside} {found}"
                );
            }
        }
        for text in negative.iter().map(|negative| text(negative)) {
            assert_eq!(redactor.text(&text).0, text, "{name}");
        }
    }
}

/// Stores an event and returns its content.
fn stored(redactor: &Redactor, event: &Value) -> Value {
    let mut reader = EventReader::default();
    let text = event.to_string();
    let source = EventSource::HTTP_API.with_redactor(redactor);
    let (content, _) = reader.read(&text, 0, source, usize::MAX).unwrap();
    let mut canonical = Vec::new();
    content.write(&mut canonical);
    let text = String::from_utf8(canonical).unwrap();
    assert_eq!(canonicalize(&text).unwrap(), text.as_bytes(), "what is stored is canonical");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn every_string_of_the_examined_fields_is_redacted_and_no_identifier() {
    let email = "jane@example.com";
    let event = json!({
        "agent_id": email, "session_id": email, "source": email, "action_type": email, "action_status": email,
        "action_name": format!("mail {email}"), "error_message": email, "labels": {"to": email, "n": 5},
        "action_input": {"a": [email, {email: 1, "b": {"c": format!("{{\"to\": \"{email}\", \"n\": 1.50}}")}}]},
        "action_output": format!("{email} and x@y.org"), "metadata": {"z": format!("{{\"k\":1}}\n{{\"k\":\"{email}\"}}\n")},
        "unknown_field": email,
    });
    let content = stored(&only(&["pii"]), &event);
    for field in ["agent_id", "session_id", "source", "action_type", "action_status"] {
        assert_eq!(content[field], json!(email), "{field}");
    }
    let mark = "[REDACTED:email]";
    assert_eq!(content["action_name"], json!(format!("mail {mark}")));
    assert_eq!(content["error_message"], json!(mark));
    assert_eq!(content["labels"], json!({"to": mark, "n": 5}));
    let nested = format!("{{\"n\":1.5,\"to\":\"{mark}\"}}");
    assert_eq!(content["action_input"], json!({"a": [mark, {mark: 1, "b": {"c": nested}}]}));
    assert_eq!(content["action_output"], json!(format!("{mark} and {mark}")));
    let metadata = json!({"z": format!("{{\"k\":1}}\n{{\"k\":\"{mark}\"}}\n"), "_unknown": {"unknown_field": mark}});
    assert_eq!(content["metadata"], metadata);
    assert_eq!(content["redactions"], json!({"email": 10}));
    let untouched = json!({"agent_id": "a", "action_output": "nothing to find"});
    assert_eq!(stored(&only(&["pii"]), &untouched).get("redactions"), None);
}

#[test]
fn names_that_become_equal_are_numbered() {
    let event = json!({"agent_id": "a", "metadata": {"a@x.org": 1, "b@x.org": 2, "[REDACTED:email] 2": 3}});
    let metadata = &stored(&only(&["email"]), &event)["metadata"];
    assert_eq!(metadata, &json!({"[REDACTED:email]": 1, "[REDACTED:email] 2'": 2, "[REDACTED:email] 2": 3}));
}

fn rule(name: &str, pattern: Option<&str>, action: Action) -> RuleConfig {
    RuleConfig { name: name.to_owned(), pattern: pattern.map(str::to_owned), replace: None, action, fields: None }
}

#[test]
fn rules_of_the_user_drop_hash_and_replace_in_the_fields_they_name() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "0123456789abcdef\n").unwrap();
    let mut config = RedactionConfig { presets: Vec::new(), ..RedactionConfig::default() };
    config.rules = vec![
        rule("customer", Some(r"CUST-\d{4}"), Action::Hash),
        rule("internal", Some("TOP SECRET"), Action::Drop),
        rule("email", None, Action::Replace),
    ];
    config.rules[2].replace = Some("<mail>".to_owned());
    config.rules[2].fields = Some(vec![super::RedactedField::Metadata]);
    config.hash_key_file = Some(key.path().to_owned());
    config.allow = vec![r"[a-z]+@example\.com".to_owned()];
    config.keys = vec!["*PASS*".to_owned(), "pin".to_owned()];
    assert_eq!(config.check(), []);
    let redactor = Redactor::new(&config).unwrap();
    let event = json!({
        "agent_id": "a", "action_name": "TOP SECRET", "action_input": ["CUST-1234", "TOP SECRET", "CUST-1234 CUST-9999"],
        "action_output": "x@y.org",
        "metadata": {"gone": "is TOP SECRET", "mails": "x@y.org, me@example.com", "db_password": {"a": 1}, "PIN": 7, "pins": 1,
                     "json": "{\"pass\": \"x\"}", "empty": {"pass": null}},
    });
    let content = stored(&redactor, &event);
    let hash = |at: usize| content["action_input"][at].as_str().unwrap().to_owned();
    assert!(hash(0).starts_with("[HASH:customer:") && hash(0).len() == "[HASH:customer:]".len() + 22, "{}", hash(0));
    assert!(
        hash(2).starts_with(&format!("{} [HASH:customer:", hash(0))) && !hash(2).ends_with(&hash(0)),
        "{}",
        hash(2)
    );
    assert_eq!((&content["action_input"][1], content.get("action_name")), (&Value::Null, None));
    assert_eq!(content["action_output"], json!("x@y.org"));
    let metadata = json!({"mails": "<mail>, me@example.com", "db_password": "[REDACTED:db_password]", "PIN": "[REDACTED:PIN]",
                          "pins": 1, "json": "{\"pass\":\"[REDACTED:pass]\"}", "empty": {"pass": null}});
    assert_eq!(content["metadata"], metadata);
    assert_eq!(content["redactions"], json!({"customer": 3, "email": 1, "internal": 3, "key": 3}));
}

#[test]
fn invalid_rules_are_refused_with_the_reason() {
    let refused = |change: &dyn Fn(&mut RedactionConfig)| {
        let mut config = RedactionConfig::default();
        change(&mut config);
        let invalid = config.check();
        assert_eq!(invalid.len(), 1, "{invalid:?}");
        invalid[0].message.clone()
    };
    let with = |rule: RuleConfig| refused(&move |config| config.rules = vec![rule.clone()]);
    assert!(
        refused(&|config| config.presets = vec!["pi".to_owned()])
            .starts_with("redaction.presets: expected secrets, pii")
    );
    assert!(with(rule("a", Some("(x"), Action::Replace)).contains("unclosed group"));
    assert!(with(rule("a", Some("x*"), Action::Replace)).contains("a pattern that does not match nothing"));
    assert!(
        with(rule("a", None, Action::Replace)).contains("redaction.rules[0].pattern: expected a regular expression")
    );
    assert!(with(rule("A b", Some("x"), Action::Replace)).contains("lower-case letters"));
    assert!(with(rule("key", Some("x"), Action::Replace)).contains("a name of its own"));
    assert!(with(rule("a", Some("x"), Action::Hash)).contains("redaction.hash_key_file: expected a file"));
    assert!(
        with(rule("a", Some(&format!("(?:{}){{1000}}", "\\p{L}{100}")), Action::Replace))
            .contains("regular expression")
    );
    let twice = vec![rule("a", Some("x"), Action::Replace), rule("a", Some("y"), Action::Replace)];
    assert!(refused(&|config| config.rules = twice.clone()).contains("redaction.rules[1].name"));
    assert!(refused(&|config| config.allow = vec!["[".to_owned()]).starts_with("redaction.allow: "));
}

#[test]
fn members_of_agnost_requests_are_redacted_by_name_whatever_is_configured() {
    let redactor =
        Redactor::new(&RedactionConfig { presets: Vec::new(), ..RedactionConfig::default() }).unwrap().for_agnost();
    let metadata = json!({
        "X-Api-Key": "k", "a": [{"access_token": {"b": 1}}, [], "token", 1.5, [[]]], "client_secret": 3, "max_tokens": 5,
        "Authorization": "Bearer x", "cookie": "c", "db_password_hash": "p", "nothing_token": null,
    });
    let expected = json!({
        "X-Api-Key": "[REDACTED:X-Api-Key]", "a": [{"access_token": "[REDACTED:access_token]"}, [], "token", 1.5, [[]]],
        "client_secret": "[REDACTED:client_secret]", "max_tokens": 5, "Authorization": "[REDACTED:Authorization]",
        "cookie": "[REDACTED:cookie]", "db_password_hash": "[REDACTED:db_password_hash]", "nothing_token": null,
    });
    let content = stored(&redactor, &json!({"agent_id": "a", "metadata": metadata}));
    assert_eq!((&content["metadata"], &content["redactions"]), (&expected, &json!({"key": 6})));
}

#[test]
fn ordinary_traffic_has_no_secrets() {
    let redactor = only(&["secrets"]);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts: Vec<String> = Vec::new();
    let mut folders =
        vec![folder.join("docs"), folder.join("tests/vectors/otlp"), folder.join("src/relay"), folder.join("src/tlog")];
    while let Some(path) = folders.pop() {
        for entry in std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if let Ok(text) = std::fs::read_to_string(&entry).map(|text| (entry, text)) {
                // Its examples are secrets on purpose.
                texts.extend((text.0.file_stem().unwrap() != "redaction").then_some(text.1));
            }
        }
    }
    assert!(texts.len() > 50, "{} files", texts.len());
    for model in [
        "gpt-5-mini-2026-01-01",
        "claude-sonnet-4-5-20250929",
        "mistral/ministral-8b-2410",
        "us.anthropic.claude-3-5-v2:0",
    ] {
        texts.push(model.to_owned());
    }
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..2000 {
        let (a, b) = (random.u128(..), random.u128(..));
        let id = uuid::Uuid::from_u128(a);
        texts.push(format!(
            "trace {a:032x} span {:016x} id {id} commit {a:032x}{:08x} digest sha256:{a:032x}{b:032x}",
            a as u64, b as u32
        ));
        texts.push(format!("2026-02-17T10:30:00.{:03}Z task-{id} disk-{b:x} {}", a % 1000, b as u64));
    }
    for text in texts {
        let (found, counts) = redactor.text(&text);
        let first = text.lines().zip(found.lines()).find(|(before, after)| before != after);
        assert!(counts.is_empty(), "{counts:?}: {first:?}");
    }
}

/// A text of pieces that patterns begin with, or that make them look further.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "a@",
        "a@b.",
        "4111 ",
        "1111",
        "-----BEGIN PRIVATE KEY-----",
        "eyJabcdefgh.",
        ".",
        "Bearer ",
        "sk-",
        "A1",
        "::",
        "1:",
        "+1 ",
        "DE89",
        " ",
        "\n",
        "\"",
        "\\u0040",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\\",
        "é",
        "\u{10ffff}",
        "\u{e000}",
        "secret_key=",
        "AKIA",
    ]);
    prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat())
}

/// All patterns; compiled once, which takes longer than a test case.
static ALL: LazyLock<Redactor> = LazyLock::new(|| only(&["secrets", "pii"]));

proptest! {
    #[test]
    fn what_is_redacted_is_canonical_and_what_is_not_counted_is_as_it_was(texts in prop::collection::vec(hostile(), 1..5)) {
        let metadata: serde_json::Map<String, Value> =
            texts.iter().enumerate().map(|(n, text)| (format!("{text}{n}"), json!([text, {text: text}]))).collect();
        let event = json!({"agent_id": "a", "action_output": texts, "metadata": metadata});
        let content = stored(&ALL, &event);
        let is_same = content["action_output"] == event["action_output"] && content["metadata"] == event["metadata"];
        prop_assert_eq!(is_same, content.get("redactions").is_none());
    }
}

#[test]
fn the_time_grows_with_the_length_alone() {
    let redactor = &ALL;
    let pieces = [
        "a@",
        "a@b.c",
        "a@bb.c1.",
        "4111 1111 ",
        "1",
        "-----BEGIN PRIVATE KEY----- ",
        "eyJabcdefgh.",
        "Bearer ",
        "sk-a1",
        "1:",
        "::1",
        "+1 ",
        "DE89 ",
        "{",
        "[",
        "{\"a\":[",
        "\"",
        "\\",
        "[\n",
        "secret_key=",
        "a.",
        "(415) ",
        "1.1.",
        "\u{e9} sk-a1",
        "\u{e9}Bearer ",
        "\u{1f600} eyJabcdefgh.",
        "\u{e9} 4111 1111",
        "\u{e9}@",
    ];
    for piece in pieces {
        let time = |length: usize| {
            let text = piece.repeat(length / piece.len());
            let best = (0..3).map(|_| {
                let started = Instant::now();
                std::hint::black_box(redactor.text(&text));
                started.elapsed()
            });
            best.min().unwrap_or_default().max(Duration::from_micros(200))
        };
        let (short, long) = (time(1 << 14), time(1 << 18));
        println!("{piece:?}: {long:?} for 256 KiB");
        let ratio = long.as_secs_f64() / short.as_secs_f64();
        // 16 times as long. Quadratic time would be 256 times.
        assert!(ratio < 64.0, "{piece:?}: {short:?} for 16 KiB, {long:?} for 256 KiB");
    }
}

#[test]
fn identifiers_among_the_values_are_found_by_field() {
    let event = stored(
        &only(&["email"]),
        &json!({"agent_id": "a", "id": "0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e6f", "error_message": "x@y.org"}),
    );
    assert_eq!(event["error_message"], json!("[REDACTED:email]"));
    let canonical = canonicalize(&event.to_string()).unwrap();
    assert_eq!(scan::member(&canonical, Field::Redactions.name()), Some(&br#"{"email":1}"#[..]));
}
