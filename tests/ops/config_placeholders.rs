//! `${env:NAME}` and `${file:PATH}` in configuration files, and the schema of these files.

use std::path::Path;

use figment::Figment;
use figment::providers::{Format, Yaml};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::cairn;

/// The output of a command about this file: its status, and both streams.
fn run(arguments: &[&str], file: &Path, environment: &[(&str, &str)]) -> (i32, String) {
    let output = cairn().args(arguments).arg("--config").arg(file).envs(environment.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(text).unwrap())
}

#[test]
fn placeholders_are_values_of_every_type() {
    let directory = TempDir::new().unwrap();
    let (file, key) = (directory.path().join("cairn.yaml"), directory.path().join("key"));
    std::fs::write(&key, "s3cret ingest\n").unwrap();
    let text = format!(
        r#"
listen: ${{env:PLACE_LISTEN}}
shards: ${{env:PLACE_NUMBER}}
auth: {{api_keys: ["${{file:{}}}"]}}
storage: {{sync: "${{env:PLACE_BOOL}}", max_bytes: "${{env:PLACE_SIZE}}", compression: "${{env:PLACE_CHOICE:-zstd}}"}}
limits: {{events_per_second: "${{env:PLACE_NUMBER}}", idle_timeout: "${{env:PLACE_NUMBER}}s"}}
log: {{origin: "log-${{env:PLACE_NUMBER}}"}}
ingest: {{default_labels: {{number: "${{env:PLACE_NUMBER}}", kept: "$${{env:X}}", raw: "${{env:PLACE_TEXT}}"}}, otlp: {{agent_id: "${{env:PLACE_NUMBER}}"}}}}
redaction: {{rules: [{{name: money, pattern: '\$\d{{2}}$$', replace: x}}]}}
"#,
        key.display()
    );
    std::fs::write(&file, text).unwrap();
    let environment = [
        ("PLACE_LISTEN", "127.0.0.1:7611"),
        ("PLACE_NUMBER", "7"),
        ("PLACE_BOOL", "true"),
        ("PLACE_SIZE", "3GiB"),
        // What is put in is not looked at again.
        ("PLACE_TEXT", "a${B}c"),
    ];
    let (status, printed) = run(&["config", "print"], &file, &environment);
    assert_eq!(status, 0, "{printed}");
    let read: Value = Figment::from(Yaml::string(&printed)).extract().unwrap();
    for (pointer, expected) in [
        ("/shards", json!(7)),
        ("/storage/sync", json!(true)),
        ("/storage/compression", json!("zstd")),
        ("/limits/events_per_second", json!(7)),
        ("/limits/idle_timeout", json!("7s")),
        ("/log/origin", json!("log-7")),
        ("/ingest/default_labels", json!({"kept": "${env:X}", "number": "7", "raw": "a${B}c"})),
        ("/ingest/otlp/agent_id", json!("7")),
    ] {
        assert_eq!(read.pointer(pointer), Some(&expected), "{printed}");
    }
    assert!(
        printed.contains("127.0.0.1:7611") && printed.contains("3GiB") && printed.contains(r"\\$\\d{2}$$"),
        "{printed}"
    );
    assert!(!printed.contains("s3cret"), "a secret from a file is one: {printed}");
}

#[test]
fn what_cannot_be_replaced_is_reported_with_its_key_and_without_values() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("cairn.yaml");
    std::fs::write(
        &file,
        "listen: ${env:PLACE_NOT_SET}\nauth: {api_keys: ['${file:/no/such/file}']}\nshards: ${env:PLACE_TEXT}\n",
    )
    .unwrap();
    let environment = [("PLACE_TEXT", "se7en")];
    let (status, text) = run(&["config", "validate"], &file, &environment);
    assert_eq!(status, 2, "{text}");
    for expected in [
        "listen: the environment variable PLACE_NOT_SET is not set (in ",
        "auth.api_keys[0]: ${file:/no/such/file}: No such file or directory",
        "shards: expected a number",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    // Who reads a ledger needs neither the variables nor the files of its server.
    let (status, text) = run(&["status", "--data-dir", "/no/such/ledger"], &file, &[]);
    assert!(status != 2 && !text.contains("PLACE_NOT_SET"), "{text}");
}

#[test]
fn the_committed_schema_is_that_of_the_program() {
    let output = cairn().args(["config", "schema"]).output().unwrap();
    let schema = String::from_utf8(output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/cairn.schema.json");
    if std::env::var_os("TEST_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap() == schema, "run this test with TEST_WRITE_SCHEMA=1");
}
