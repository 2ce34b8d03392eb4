//! What real clients send, and the smallest bodies of records that were mapped wrongly once, against the events that a
//! person expects of them: `tests/vectors/otlp`, with the expected events in `expected.json`.

use std::collections::{BTreeMap, BTreeSet};

use cairn::ingest::Select;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::ingest::otlp::{LOGS, TRACES};
use crate::support::harness::{Answer, TestServer, config, repository};

/// The fields of an event that the expectations state. An absent field is absent in the event.
const FIELDS: [&str; 9] = [
    "agent_id",
    "session_id",
    "action_type",
    "action_name",
    "action_status",
    "error_message",
    "action_input",
    "action_output",
    "validation_warnings",
];

/// The spans of a capture that no framework of agents made: the program of the test.
const OWN_SPANS: [&str; 1] = ["my request"];

/// The files of a folder by client. The traces of a client come before its logs, as they are sent.
fn captures(folder: &str) -> BTreeMap<String, Vec<String>> {
    let mut clients: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(repository("tests/vectors/otlp").join(folder)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let client = name.trim_end_matches(".json").trim_end_matches(".traces").trim_end_matches(".logs");
        clients.entry(client.to_owned()).or_default().push(format!("{folder}/{name}"));
    }
    for files in clients.values_mut() {
        files.sort_by_key(|name| name.contains(".logs."));
    }
    clients
}

/// Sends files to a new server, and returns the events of each.
async fn events_of(files: &[String], select: Select) -> Vec<(String, Vec<Value>)> {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.ingest.otlp.select = select;
    let server = TestServer::start(&config).await;
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    for file in files {
        let body = std::fs::read_to_string(repository("tests/vectors/otlp").join(file)).unwrap();
        let path = if body.contains("\"resourceLogs\"") { LOGS } else { TRACES };
        let answer = Answer::of(server.post(path, body).send().await.unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})), "{file}");
        let events = server.list("limit=1000&order=asc").await;
        let new = events.into_iter().filter(|event| seen.insert(event["id"].to_string())).collect();
        found.push((file.clone(), new));
    }
    server.stop().await.unwrap();
    found
}

/// What the expectations state of an event.
fn stated(event: &Value) -> Value {
    let fields = FIELDS.iter().filter_map(|name| Some(((*name).to_owned(), event.get(name)?.clone())));
    let span = event["metadata"].get("span_id").map(|id| ("span".to_owned(), id.clone()));
    let user = event["metadata"].get("user_id").map(|id| ("user_id".to_owned(), id.clone()));
    Value::Object(fields.chain(span).chain(user).collect::<Map<_, _>>())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_real_clients_become_the_events_that_a_person_expects() {
    let expected = std::fs::read_to_string(repository("tests/vectors/otlp/expected.json")).unwrap();
    let mut expected: BTreeMap<String, Vec<Value>> = serde_json::from_str(&expected).unwrap();
    for files in ["repro", "clients"].into_iter().flat_map(captures).map(|(_, files)| files) {
        for (file, events) in events_of(&files, Select::All).await {
            let expected = expected.remove(&file).unwrap_or_else(|| panic!("{file} has no expectations"));
            assert_eq!(events.len(), expected.len(), "{file}");
            for (event, expected) in events.iter().zip(&expected) {
                assert_eq!(stated(event), *expected, "{file}: {event}");
            }
        }
    }
    assert!(expected.is_empty(), "expectations without a file: {:?}", expected.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn with_select_agent_every_record_of_a_framework_is_stored() {
    for files in ["repro", "clients"].into_iter().flat_map(captures).map(|(_, files)| files) {
        let all = events_of(&files, Select::All).await;
        let selected = events_of(&files, Select::Agent).await;
        for ((file, mut all), (_, selected)) in all.into_iter().zip(selected) {
            all.retain(|event| !OWN_SPANS.contains(&event["metadata"]["name"].as_str().unwrap_or_default()));
            assert_eq!(all.len(), selected.len(), "{file}");
        }
    }
}
