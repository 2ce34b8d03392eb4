//! Default labels: the server adds them to every event in every wire format. They never replace a label of the client,
//! and do not turn a repeated event into a new one.

use cairn::config::Config;
use figment::Figment;
use figment::providers::{Format, Yaml};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, TestServer, cairn, config, run_text};

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

/// A configuration with these default labels.
fn with_labels(data: &TempDir, labels: &[(&str, &str)]) -> Config {
    let mut config = config(data.path());
    let labels = labels.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    config.ingest.default_labels = labels.collect();
    config
}

async fn send(server: &TestServer, path: &str, body: &Value) -> Answer {
    let answer = server.send(path, body).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.text);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn default_labels_are_added_in_every_wire_format_and_replace_no_label_of_the_client() {
    let data = TempDir::new().unwrap();
    let labels = [("pod", "shop-0"), ("namespace", "agents"), ("env", "prod")];
    let server = TestServer::start(&with_labels(&data, &labels)).await;
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
    assert_eq!(of_shop.len(), 2, "labels of the span or log record are preserved: {of_shop:?}");
    for agent in ["a", "b", "shop", "agnost"] {
        assert_eq!(server.get(&format!("/v1/verify?agent_id={agent}")).await.json()["valid"], true, "{agent}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_event_is_stored_once_although_the_default_labels_have_changed() {
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
        let server = TestServer::start(&with_labels(&data, labels)).await;
        let stored = send(&server, "/v1/events", &event("x")).await;
        assert_eq!(stored.status, if first.is_none() { 201 } else { 200 });
        assert_eq!(stored.json()["labels"]["pod"], "shop-0");
        assert_eq!(server.send("/v1/events", &event("y")).await.status, 409, "the client sent another label");
        let twice = send(&server, "/v1/batch", &json!([event("x"), event("x")])).await;
        assert_eq!(twice.status, 201, "{}", twice.text);
        send(&server, "/v1/traces", &export_of_spans("work")).await;
        send(&server, "/v1/traces", &export_of_spans("different work")).await;
        send(&server, "/v1/logs", &export_of_logs()).await;
        if first.is_none() {
            send(&server, "/api/v1/capture-session", &session).await;
        }
        send(&server, "/api/v1/capture-event", &capture("one")).await;
        send(&server, "/api/v1/capture-event", &capture("two")).await;
        let all = server.list("limit=1000").await;
        assert_eq!(all.len(), 7, "{all:?}");
        assert_eq!(*first.get_or_insert_with(|| all.clone()), all);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_label_of_the_client_is_part_of_the_event_also_if_it_equals_a_default_label() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&with_labels(&data, &[("env", "prod")])).await;
    let event =
        |env: &str| json!({"agent_id": "a", "id": "11111111-2222-4333-8444-555555555555", "labels": {"env": env}});
    assert_eq!(server.send("/v1/events", &event("test")).await.status, 201);
    assert_eq!(server.send("/v1/events", &event("prod")).await.status, 409);
    assert_eq!(server.send("/v1/events", &event("test")).await.status, 200);
    server.stop().await.unwrap();
}

#[test]
fn default_labels_from_the_environment_are_strings_as_written() {
    let mut command = cairn();
    command.args(["config", "print"]);
    command.env("CAIRN_INGEST__DEFAULT_LABELS__POD", "007").env("CAIRN_INGEST__DEFAULT_LABELS__NODE", "[1, true]");
    let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let printed: Value = Figment::from(Yaml::string(&output)).extract().unwrap();
    for (label, text) in [("pod", "007"), ("node", "[1, true]")] {
        assert_eq!(printed["ingest"]["default_labels"][label], text, "{output}");
        let line = output.lines().find(|line| line.trim_start().starts_with(&format!("{label}:"))).unwrap();
        assert!(line.contains("# CAIRN_INGEST__DEFAULT_LABELS__"), "{line}");
    }
}

#[test]
fn an_invalid_default_label_is_refused_and_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("cairn.yaml");
    let refused = |labels: &str| {
        std::fs::write(&file, format!("ingest:\n  default_labels: {labels}\n")).unwrap();
        let (status, _, output) = run_text(&["config", "validate", "--config", file.to_str().unwrap()]);
        assert_eq!(status, 2, "{labels}: {output}");
        output
    };
    let output = refused("{version: 1.10}");
    assert!(output.contains("ingest.default_labels.version: expected a string, in quotes"), "{output}");
    let output = refused("{app.kubernetes.io/version: 7}");
    assert!(output.contains("found 7 (in "), "{output}");
    let output = refused("[pod]");
    assert!(output.contains("ingest.default_labels: expected a mapping of names to strings"), "{output}");
    let many: Vec<_> = (0..17).map(|number| format!("l{number}: x")).collect();
    let output = refused(&format!("{{{}}}", many.join(", ")));
    assert!(output.contains("ingest.default_labels: expected at most 16 labels, found 17"), "{output}");
    let output = refused(&format!("{{pod: {}}}", "x".repeat(2000)));
    assert!(output.contains("ingest.default_labels: expected at most 1024 bytes"), "{output}");
}
