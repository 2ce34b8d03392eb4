//! Labels that the server puts on every event: whichever way it came in, never over a client's own, and without making another
//! event of one that comes again elsewhere.

use cairn::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, Running, cairn, config, run_text};

fn resource() -> Value {
    json!({"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]})
}

fn export_of_spans(name: &str) -> Value {
    let span = json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": name,
                      "startTimeUnixNano": "1760000000000000000", "endTimeUnixNano": "1760000000001000000"});
    json!({"resourceSpans": [{"resource": resource(), "scopeSpans": [{"spans": [span]}]}]})
}

fn export_of_logs() -> Value {
    let record = json!({"timeUnixNano": "1760000000000000000", "body": {"stringValue": "it works"}});
    json!({"resourceLogs": [{"resource": resource(), "scopeLogs": [{"logRecords": [record]}]}]})
}

/// A server with these labels.
fn with_labels(data: &TempDir, labels: &[(&str, &str)]) -> Config {
    let mut config = config(data.path());
    let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    config.ingest.default_labels = labels.collect();
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
    let labels = [("pod", "shop-0"), ("namespace", "agents"), ("env", "prod")];
    let server = Running::start(&with_labels(&data, &labels)).await;
    let own = json!({"agent_id": "a", "labels": {"env": "test", "team": 7}});
    send(&server, "/v1/events", &own).await;
    send(&server, "/v1/batch", &json!([{"agent_id": "b"}, own])).await;
    send(&server, "/v1/traces", &export_of_spans("work")).await;
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
    let pods: [&[(&str, &str)]; 5] = [
        &[("pod", "shop-0"), ("env", "prod")],
        &[("pod", "shop-1"), ("env", "prod")],
        &[("pod_name", "shop-2"), ("zone", "z")],
        &[],
        &[("env", "x")],
    ];
    for labels in pods {
        let server = Running::start(&with_labels(&data, labels)).await;
        let stored = send(&server, "/v1/events", &event("x")).await;
        assert_eq!(stored.status, if first.is_none() { 201 } else { 200 });
        assert_eq!(stored.json()["labels"]["pod"], "shop-0");
        assert_eq!(server.send("/v1/events", &event("y")).await.status, 409, "another label of the client's");
        let twice = send(&server, "/v1/batch", &json!([event("x"), event("x")])).await;
        assert_eq!(twice.status, 201, "{}", twice.text);
        send(&server, "/v1/traces", &export_of_spans("work")).await;
        send(&server, "/v1/traces", &export_of_spans("work, stored beside it")).await;
        send(&server, "/v1/logs", &export_of_logs()).await;
        if first.is_none() {
            send(&server, "/api/v1/capture-session", &session).await;
        }
        send(&server, "/api/v1/capture-event", &capture("one")).await;
        send(&server, "/api/v1/capture-event", &capture("another, stored beside it")).await;
        let all = server.list("limit=1000").await;
        assert_eq!(all.len(), 7, "{all:?}");
        assert_eq!(*first.get_or_insert_with(|| all.clone()), all);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_the_clients_own_makes_another_event_also_where_it_says_what_we_would() {
    let data = TempDir::new().unwrap();
    let server = Running::start(&with_labels(&data, &[("env", "prod")])).await;
    let event =
        |env: &str| json!({"agent_id": "a", "id": "11111111-2222-4333-8444-555555555555", "labels": {"env": env}});
    assert_eq!(server.send("/v1/events", &event("test")).await.status, 201);
    assert_eq!(server.send("/v1/events", &event("prod")).await.status, 409);
    assert_eq!(server.send("/v1/events", &event("test")).await.status, 200);
    server.stop().await.unwrap();
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
    let said = refused("{app.kubernetes.io/version: 7}");
    assert!(said.contains("found 7 (in "), "{said}");
    let said = refused("[pod]");
    assert!(said.contains("ingest.default_labels: expected names with texts"), "{said}");
    let many: Vec<_> = (0..17).map(|number| format!("l{number}: x")).collect();
    let said = refused(&format!("{{{}}}", many.join(", ")));
    assert!(said.contains("ingest.default_labels: expected at most 16 labels, found 17"), "{said}");
    let said = refused(&format!("{{pod: {}}}", "x".repeat(2000)));
    assert!(said.contains("ingest.default_labels: expected at most 1024 bytes"), "{said}");
}
