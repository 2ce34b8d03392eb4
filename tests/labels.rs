//! Labels that the server puts on every event: whichever way it came in, never over a client's own, and without making another
//! event of one that comes again elsewhere.

use cairn::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Answer, Running, cairn, config, run_text};

fn resource() -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]})
}

fn export_of_spans() -> Value {
    let span = json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": "work",
                      "startTimeUnixNano": "1760000000000000000", "endTimeUnixNano": "1760000000001000000"});
    json!({"resourceSpans": [{"resource": resource(), "scopeSpans": [{"spans": [span]}]}]})
}

fn export_of_logs() -> Value {
    let record = json!({"timeUnixNano": "1760000000000000000", "body": {"stringValue": "it works"}});
    json!({"resourceLogs": [{"resource": resource(), "scopeLogs": [{"logRecords": [record]}]}]})
}

/// A server in a pod of that name.
fn in_pod(data: &TempDir, pod: &str) -> Config {
    let mut config = config(data.path());
    let labels = [("pod", pod), ("namespace", "agents"), ("env", "prod")];
    config.ingest.default_labels = labels.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
    config
}

async fn send(server: &Running, path: &str, body: &Value) -> Answer {
    let answer = server.send(path, body).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_gives_them_and_none_overrides_a_clients_own() {
    let data = TempDir::new().unwrap();
    let server = Running::start(&in_pod(&data, "shop-0")).await;
    let own = json!({"agent_id": "a", "labels": {"env": "test", "team": 7}});
    send(&server, "/v1/events", &own).await;
    send(&server, "/v1/batch", &json!([{"agent_id": "b"}, own])).await;
    send(&server, "/v1/traces", &export_of_spans()).await;
    send(&server, "/v1/logs", &export_of_logs()).await;
    send(&server, "/api/v1/capture-session", &json!({"client_config": "x", "connection_type": "y"})).await;
    let all = server.list("label.pod=shop-0&label.namespace=agents").await;
    assert_eq!(all.len(), 6, "{all:?}");
    assert_eq!(server.list("label.env=prod").await.len(), 4);
    let merged = json!({"env": "test", "namespace": "agents", "pod": "shop-0", "team": 7});
    let of_a = server.list("agent_id=a").await;
    assert!(of_a.len() == 2 && of_a.iter().all(|event| event["labels"] == merged), "{of_a:?}");
    let of_shop = server.list("agent_id=shop&label.service.name=shop").await;
    assert_eq!(of_shop.len(), 2, "their own labels stay: {of_shop:?}");
    for agent in ["a", "b", "shop", "agnost"] {
        assert_eq!(server.get(&format!("/v1/verify?agent_id={agent}")).await.json()["valid"], true, "{agent}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_in_another_pod_is_the_same_event() {
    let data = TempDir::new().unwrap();
    let event =
        |label: &str| json!({"agent_id": "a", "id": "11111111-2222-4333-8444-555555555555", "labels": {"team": label}});
    let session = json!({"session_id": "s", "client_config": "x", "connection_type": "y"});
    let capture = |args: &str| {
        json!({"org_id": "o", "session_id": "s", "event_id": "21111111-2222-4333-8444-555555555555",
                                      "primitive_type": "tool", "primitive_name": "t", "args": args, "result": "", "latency": 1, "success": true})
    };
    let mut first: Option<Vec<Value>> = None;
    for pod in ["shop-0", "shop-1"] {
        let server = Running::start(&in_pod(&data, pod)).await;
        let stored = send(&server, "/v1/events", &event("x")).await;
        assert_eq!(stored.status, if first.is_none() { 201 } else { 200 });
        assert_eq!(stored.json()["labels"]["pod"], "shop-0");
        assert_eq!(server.send("/v1/events", &event("y")).await.status, 409, "another label of the client's");
        let twice = send(&server, "/v1/batch", &json!([event("x"), event("x")])).await;
        assert_eq!(twice.status, 201, "{}", twice.text);
        send(&server, "/v1/traces", &export_of_spans()).await;
        send(&server, "/v1/logs", &export_of_logs()).await;
        if first.is_none() {
            send(&server, "/api/v1/capture-session", &session).await;
        }
        send(&server, "/api/v1/capture-event", &capture("one")).await;
        send(&server, "/api/v1/capture-event", &capture("another, stored beside it")).await;
        let all = server.list("limit=1000").await;
        assert_eq!(all.len(), 6, "{all:?}");
        assert_eq!(*first.get_or_insert_with(|| all.clone()), all);
        server.stop().await.unwrap();
    }
}

#[test]
fn the_environment_says_them_word_for_word() {
    let mut command = cairn();
    command.args(["config", "print"]);
    command.env("CAIRN_INGEST__DEFAULT_LABELS__POD", "007").env("CAIRN_INGEST__DEFAULT_LABELS__NODE", "[1, true]");
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for line in ["pod: 007 ", "node: [1, true] "] {
        let found = said.lines().find(|said| said.trim_start().starts_with(line)).unwrap_or_else(|| panic!("{said}"));
        assert!(found.contains("# CAIRN_INGEST__DEFAULT_LABELS__"), "{found}");
    }
}

#[test]
fn what_cannot_be_a_label_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("cairn.yaml");
    let refused = |labels: &str| {
        std::fs::write(&file, format!("ingest:\n  default_labels: {labels}\n")).unwrap();
        let (status, _, said) = run_text(&["config", "validate", "--config", file.to_str().unwrap()]);
        assert_eq!(status, 2, "{labels}: {said}");
        said
    };
    let said = refused("{version: 1.10}");
    assert!(said.contains("ingest.default_labels.version: expected a text, in quotes"), "{said}");
    let said = refused("[pod]");
    assert!(said.contains("ingest.default_labels: expected names with texts"), "{said}");
    let said = refused(&format!("{{pod: {}}}", "x".repeat(2000)));
    assert!(said.contains("ingest.default_labels: expected at most 1024 bytes"), "{said}");
}
