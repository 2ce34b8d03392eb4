//! The chain of the recorder: starts, stops, refusals, changes, and the reports on them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::log::checkpoints::{frequent_checkpoints, verifier_keys};
use crate::support::forger::{serialize, verify};
use crate::support::harness::{Process, TestServer, cairn, eventually, reference_chain, run_text};

/// A configuration with a recorder.
pub fn config(data_dir: &Path) -> Config {
    let mut config = frequent_checkpoints(data_dir);
    config.recorder.enabled = true;
    config
}

/// The events of the recorder, the oldest first.
pub async fn recorded(server: &TestServer) -> Vec<Value> {
    let agents = server.get("/v1/agents").await.json();
    let ids = agents.as_array().unwrap().iter().filter_map(|agent| agent["agent_id"].as_str());
    let Some(id) = ids.into_iter().find(|id| id.starts_with("cairn/")).map(str::to_owned) else { return Vec::new() };
    server.list(&format!("agent_id={id}&order=asc&limit=1000")).await
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["action_name"].as_str().unwrap().trim_start_matches("recorder.")).collect()
}

/// Waits until the recorder has an event with this name.
async fn wait_for(server: &TestServer, name: &str) -> Value {
    let name = format!("recorder.{name}");
    eventually(&name, async || recorded(server).await.iter().any(|event| event["action_name"] == *name)).await;
    recorded(server).await.into_iter().rev().find(|event| event["action_name"] == *name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_begins_with_a_start_and_ends_with_a_stop() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a"})).await;
    let signing = wait_for(&server, "signing").await;
    assert_eq!(signing["action_input"]["signing"], true);
    assert_eq!(signing["action_input"]["keys"], json!(verifier_keys(data.path())));
    let events = recorded(&server).await;
    assert_eq!(names(&events)[0], "start");
    let start = &events[0]["action_input"];
    assert_eq!((&start["version"], &start["clean"]), (&json!(env!("CARGO_PKG_VERSION")), &Value::Null));
    assert_eq!(start["redaction"]["presets"], json!(["secrets"]));
    let first = server.list("order=asc&limit=1").await;
    assert_eq!(first[0]["id"], events[0]["id"], "the start comes before all other events");
    server.stop().await.unwrap();

    let server = TestServer::start(&config(data.path())).await;
    wait_for(&server, "signing").await;
    let events = recorded(&server).await;
    assert_eq!(names(&events), ["start", "signing", "stop", "start", "signing"]);
    assert_eq!(events[3]["action_input"]["clean"], true);
    assert_ne!(events[0]["session_id"], events[3]["session_id"], "each run is a session");
    assert!(events.iter().all(|event| event["capture_method"] == "recorder" && event["source"] == "cairn"));
    reference_chain(&events).unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_was_killed_is_told_from_one_that_ended() {
    let data = TempDir::new().unwrap();
    let on = [("CAIRN_RECORDER__ENABLED", "true")];
    let mut server = Process::start(data.path(), &on);
    // The first answer comes after the start is recorded.
    let stored = reqwest::Client::new().get(format!("{}/v1/stats", server.url)).send().await.unwrap();
    assert_eq!(stored.status(), 200);
    server.kill();
    let server = TestServer::start(&config(data.path())).await;
    let events = recorded(&server).await;
    let starts: Vec<&Value> = events.iter().filter(|event| event["action_name"] == "recorder.start").collect();
    assert_eq!((starts.len(), &starts[1]["action_input"]["clean"]), (2, &json!(false)), "{events:?}");
    server.stop().await.unwrap();
    let (status, out, _) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    assert!(status == 0 && out.contains("in 1 gap (1 after a crash"), "{out}");
    let (_, out, _) = run_text(&["verify", "--all", "--json", "--data-dir", data.path().to_str().unwrap()]);
    let summary: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["recorder"]["starts"], &summary["recorder"]["down"][0]["clean"]), (&json!(2), &json!(false)));
    let later = ["verify", "--all", "--since", "2099-01-01T00:00:00Z", "--data-dir", data.path().to_str().unwrap()];
    assert!(!run_text(&later).1.contains("recorder:"), "the period has no events");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_are_recorded_by_reason() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.auth.api_keys = vec!["all".to_owned(), "reads read".to_owned()];
    config.limits.batch_events = 3;
    let mut server = TestServer::start(&config).await;
    let send = async |path: &str, key: Option<&str>, body: Value| {
        let request = server.post(path, body.to_string());
        let request = match key {
            Some(key) => request.bearer_auth(key),
            None => request,
        };
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send("/v1/events", Some("all"), json!({"agent_id": ""})).await, 400);
    assert_eq!(send("/v1/batch", Some("all"), json!([{"agent_id": "a"}, {}, 7])).await, 207);
    assert_eq!(send("/v1/batch", Some("all"), json!([1, 2, 3, 4])).await, 413);
    assert_eq!(send("/v1/events", None, json!({"agent_id": "a"})).await, 401);
    assert_eq!(send("/v1/events", Some("reads"), json!({"agent_id": "a"})).await, 403);
    assert_eq!(send("/v1/erasures", Some("reads"), json!({})).await, 403, "carries no events");
    server.client = crate::erasure::requests::client_with_key("all");
    server.stop().await.unwrap();
    let server = TestServer::start(&{
        config.auth.api_keys.clear();
        config
    })
    .await;
    let refusals = wait_for(&server, "refusals").await;
    let expected = json!({"invalid": 3, "too_large": 1, "unauthorized": 1, "forbidden": 1});
    assert_eq!(refusals["action_input"]["refused"], expected);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_cannot_write_in_the_chain_of_a_recorder() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let id = recorded(&server).await[0]["agent_id"].as_str().unwrap().to_owned();
    for agent_id in [id.as_str(), "cairn/", "cairn/other"] {
        let answer = server.send("/v1/events", &json!({"agent_id": agent_id})).await;
        assert!(answer.status == 400 && answer.error().contains("cairn/"), "{}", answer.text);
        let answer = server.send("/v1/batch", &json!([{"agent_id": "a"}, {"agent_id": agent_id}])).await;
        assert!(
            answer.status == 207 && answer.json()[1]["error"].as_str().unwrap().contains("cairn/"),
            "{}",
            answer.text
        );
        let span = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "chat"});
        let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": agent_id}}]});
        let export = json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]});
        let answer = server.send("/v1/traces", &export).await;
        let is_refused = answer.status == 400 || answer.json()["partialSuccess"]["rejectedSpans"] != Value::Null;
        assert!(is_refused, "{} {}", answer.status, answer.text);
    }
    for allowed in ["cairn", "Cairn/x", "my/cairn/x"] {
        server.store(&json!({"agent_id": allowed})).await;
    }
    let events = recorded(&server).await;
    assert!(events.iter().all(|event| event["capture_method"] == "recorder"), "{events:?}");
    // What marks the recorder's events is set by the server.
    let stored = server.store(&json!({"agent_id": "a", "capture_method": "recorder"})).await;
    assert_eq!(stored["capture_method"], "http-api");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_and_steps_of_the_clock_are_recorded() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.recorder.heartbeat = Duration::from_millis(50);
    let offset_ms = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&offset_ms);
    let server = TestServer::start_at(
        &config,
        |store| store,
        Arc::new(move || cairn::runtime::now_ms() + clock.load(Ordering::Relaxed)),
    )
    .await
    .unwrap();
    let beat = wait_for(&server, "heartbeat").await;
    assert!(beat["action_input"]["events"].as_u64().unwrap() >= 1);
    offset_ms.store(3_600_000, Ordering::Relaxed);
    let step = wait_for(&server, "clock_step").await;
    let by = step["action_input"]["by_seconds"].as_f64().unwrap();
    assert!((by - 3600.0).abs() < 5.0, "{by}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_settings_and_keys_are_recorded() {
    let data = TempDir::new().unwrap();
    let keys = data.path().join("keys");
    std::fs::write(&keys, "one").unwrap();
    let ledger = data.path().join("ledger");
    let mut config = config(&ledger);
    config.auth.api_keys_file = Some(keys.clone());
    let mut server = TestServer::start(&config).await;
    server.client = crate::erasure::requests::client_with_key("one");
    assert_eq!(recorded(&server).await[0]["action_input"]["api_keys"], json!(["7692c3ad"]));
    std::fs::write(&keys, "one\ntwo read").unwrap();
    server.reload_changed_files();
    let change = wait_for(&server, "configuration").await;
    assert_eq!(change["action_input"]["api_keys"], json!(["7692c3ad", "3fc4ccfe"]), "the first 8 digits of SHA-256");
    assert!(!change.to_string().contains("two"), "{change}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_can_show_when_the_server_was_up() {
    let data = TempDir::new().unwrap();
    for _ in 0..2 {
        let server = TestServer::start(&config(data.path())).await;
        server.store(&json!({"agent_id": "a"})).await;
        assert_eq!(server.send("/v1/events", &json!({})).await.status, 400);
        wait_for(&server, "signing").await;
        server.stop().await.unwrap();
    }
    let package = data.path().join("package.json");
    let arguments = ["export", "--agent-id", "a", "--with-recorder", "--data-dir", data.path().to_str().unwrap(), "-o"];
    let (status, _, errors) = run_text(&[&arguments[..], &[package.to_str().unwrap()]].concat());
    assert_eq!(status, 0, "{errors}");
    let text = std::fs::read_to_string(&package).unwrap();
    let key = verifier_keys(data.path()).remove(0);
    let (is_valid, verdict) = verify(&text, &[&key]);
    assert!(is_valid && verdict["layers"]["recorder"]["holds"] == true, "{verdict}");
    let file = package.to_str().unwrap();
    let (status, out, _) = run_text(&["verify-export", file, "--key", &key, "--recorder", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(status == 0 && report["recorder"]["starts"] == 2 && report["recorder"]["refused"]["invalid"] == 2, "{out}");
    let (_, out, _) = run_text(&["verify-export", file, "--key", &key, "--recorder"]);
    assert!(out.contains("in 1 gap; refused 2 events (invalid 2)"), "{out}");

    // A changed, left out, or moved event of the recorder breaks the layer, or what it shows.
    let mut forged: Value = serde_json::from_str(&text).unwrap();
    forged["recorder"][1]["event"]["action_input"] = json!({"refused": {}});
    let (is_valid, verdict) = verify(&serialize(&forged), &[&key]);
    assert!(!is_valid && verdict["layers"]["recorder"]["holds"] == false, "{verdict}");
    let mut gap: Value = serde_json::from_str(&text).unwrap();
    gap["recorder"].as_array_mut().unwrap().remove(2);
    let (_, verdict) = verify(&serialize(&gap), &[&key]);
    let says = verdict["layers"]["recorder"]["says"].as_str().unwrap();
    assert!(says.contains("from sequence 4 to"), "a gap shortens what is shown: {says}");
    std::fs::write(&package, serialize(&gap)).unwrap();
    let (status, out, _) = run_text(&["verify-export", file, "--key", &key, "--recorder", "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(status == 1 && report["layers"]["recorder"]["holds"].is_null() && report["recorder"].is_null(), "{out}");
    // The greatest number is no reason to panic.
    let mut great: Value = serde_json::from_str(&text).unwrap();
    for item in great["recorder"].as_array_mut().unwrap() {
        item["event"]["action_name"] = json!("recorder.refusals");
        item["event"]["action_input"] = json!({"refused": {"x": u64::MAX}});
    }
    assert_eq!(verify(&serialize(&great), &[&key]).1["verdict"], "broken");
    let without =
        cairn().args(["verify-export", "-", "--key", &key, "--recorder"]).stdin(std::process::Stdio::null()).output();
    assert_ne!(without.unwrap().status.code(), Some(0));
}
