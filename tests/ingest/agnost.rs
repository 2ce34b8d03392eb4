//! The Agnost API: requests as the Agnost SDKs send them, by `docs/agnost.md`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, TestServer, config, eventually, read_chain, reference_chain};
use crate::support::upstream::{ORG, Reply, Upstream};

const SESSION: &str = "/api/v1/capture-session";
const EVENT: &str = "/api/v1/capture-event";

/// Posts to the Agnost API, optionally for an agent.
async fn post(server: &TestServer, path: &str, body: &Value, agent: Option<&str>) -> Answer {
    let mut request = server.post(path, body.to_string()).header("x-org-id", ORG);
    if let Some(agent) = agent {
        request = request.header("x-cairn-agent-id", agent);
    }
    Answer::of(request.send().await.unwrap()).await
}

/// A stored event without the fields that differ between runs.
fn content(event: &Value) -> Value {
    let mut event = event.clone();
    for name in ["id", "received_at", "salt", "hash", "prev_hash", "sequence"] {
        event.as_object_mut().unwrap().remove(name);
    }
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_stored_as_the_mapping_describes() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let session = json!({"session_id": "conv_abc", "client_config": "conversation_sdk", "ip": "",
                         "user_data": {"user_id": "user_1", "age": 30}});
    let answer = post(&server, SESSION, &session, None).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"session_id": "conv_abc"})));
    // An invalid agent id is refused; the event must not be stored under another agent.
    let odd = server.post(EVENT, "{}").header("x-cairn-agent-id", &b"caf\xe9"[..]).send().await.unwrap();
    assert_eq!(odd.status(), 400);
    let id = "c6aae2e9-6ca5-4a64-9a02-de83d7bf0154";
    let event = json!({"event_id": id, "session_id": "conv_abc", "primitive_type": "tool", "primitive_name": "weather",
                       "latency": 1500, "success": false, "args": "{\"city\": \"Rome\"}", "result": "no",
                       "timestamp": 1_771_324_200_250_u64, "checkpoints": [{"a": [1.5, null]}],
                       "metadata": {"temperature": "0.7", "x-api-key": "k", "nested": {"Access_Token": "t"}}});
    let answer = post(&server, EVENT, &event, None).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"event_id": id})));
    let stored = read_chain(&server.client, &server.url, "agnost").await;
    reference_chain(&stored).unwrap();
    assert_eq!(
        content(&stored[0]),
        json!({"agent_id": "agnost", "session_id": "conv_abc", "source": "agnost", "capture_method": "agnost-api",
               "schema_version": "1.0", "action_type": "CUSTOM", "action_name": "capture-session",
               "timestamp": stored[0]["received_at"],
               "metadata": {"org_id": ORG, "agnost": {"client_config": "conversation_sdk", "ip": "",
                                                      "user_data": {"user_id": "user_1", "age": 30}}}})
    );
    assert_eq!(stored[1]["id"], id);
    assert_eq!(
        content(&stored[1]),
        json!({"agent_id": "agnost", "session_id": "conv_abc", "source": "agnost", "capture_method": "agnost-api",
               "schema_version": "1.0", "action_type": "TOOL_CALL", "action_name": "weather",
               "action_input": "{\"city\": \"Rome\"}", "action_output": "no", "action_status": "error",
               "duration_ms": 1500, "timestamp": "2026-02-17T10:30:00.250Z", "redactions": {"key": 2},
               "metadata": {"org_id": ORG, "agnost": {
                   "primitive_type": "tool", "checkpoints": [{"a": [1.5, null]}],
                   "metadata": {"temperature": "0.7", "x-api-key": "[REDACTED:x-api-key]",
                                "nested": {"Access_Token": "[REDACTED:Access_Token]"}}}}})
    );
    // A repeated event is stored once. A different event with the same id is stored under another id, also once.
    for round in 0..2 {
        assert_eq!(post(&server, EVENT, &event, None).await.json(), json!({"event_id": id}));
        let mut other = event.clone();
        other["result"] = json!("yes");
        let answer = post(&server, EVENT, &other, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_ne!(answer.json()["event_id"], id);
        let stored = read_chain(&server.client, &server.url, "agnost").await;
        assert_eq!(stored.len(), 3, "round {round}");
        assert!(stored[2]["validation_warnings"][0].as_str().unwrap().contains(id), "{}", stored[2]);
        reference_chain(&stored).unwrap();
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_object_that_an_sdk_sends_is_accepted_and_other_bodies_are_refused() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let bodies = [
        (SESSION, json!({"session_id": "s", "user_data": null, "tools": ["add"], "connection_type": ""}), "CUSTOM"),
        (SESSION, json!({}), "CUSTOM"),
        (EVENT, json!({}), "AGENT_TURN"),
        (EVENT, json!({"event_id": "not-a-uuid", "primitive_type": "", "args": null, "session_id": 7}), "AGENT_TURN"),
        (EVENT, json!({"primitive_type": "prompt", "latency": 1.5, "success": "yes", "timestamp": "now"}), "CUSTOM"),
        (
            EVENT,
            json!({"parent_id": "c6aae2e9-6ca5-4a64-9a02-de83d7bf0154", "args": {"a": 1}, "org_id": ORG}),
            "TOOL_CALL",
        ),
        (EVENT, json!({"latency": -1, "timestamp": u64::MAX, "primitive_name": ["x"], "result": [1]}), "AGENT_TURN"),
    ];
    for (path, body, action_type) in &bodies {
        let answer = post(&server, path, body, Some("an agent")).await;
        assert_eq!(answer.status, 200, "{body}: {}", answer.text);
        let name = if *path == SESSION { "session_id" } else { "event_id" };
        assert!(answer.json()[name].as_str().is_some_and(|id| !id.is_empty()), "{}", answer.text);
        let newest = server.list("limit=1").await.remove(0);
        assert_eq!(
            (&newest["agent_id"], &newest["action_type"]),
            (&json!("an agent"), &json!(action_type)),
            "{newest}"
        );
        // A member without a field of its own is stored as it was sent.
        for (key, value) in body.as_object().unwrap() {
            let kept = &newest["metadata"]["agnost"][key];
            let is_mapped =
                newest["session_id"] == *value || newest["action_input"] == *value || newest["action_output"] == *value;
            assert!(kept == value || is_mapped, "{key}: {newest}");
        }
    }
    for (body, status) in [("", 400), ("[]", 400), ("{\"a\":1,\"a\":2}", 400), ("{", 400)] {
        let answer = Answer::of(server.post(EVENT, body).send().await.unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
    }
    let long = json!({"result": "x".repeat(2 << 20)});
    assert_eq!(post(&server, EVENT, &long, None).await.status, 413);
    assert_eq!(server.list("limit=1000").await.len(), bodies.len());
    server.stop().await.unwrap();
    let mut off = config(data.path());
    off.ingest.agnost.enabled = false;
    let server = TestServer::start(&off).await;
    assert_eq!(post(&server, EVENT, &json!({}), None).await.status, 404);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_requests_of_the_sdks_are_accepted() {
    // Captured from the SDKs.
    let path = crate::support::harness::repository("tests/vectors/agnost.jsonl");
    let captures = std::fs::read_to_string(path).unwrap();
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let mut events = 0;
    for capture in captures.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let answer = post(&server, capture["path"].as_str().unwrap(), &capture["body"], None).await;
        assert_eq!(answer.status, 200, "{capture}: {}", answer.text);
        events += 1;
    }
    let stored = read_chain(&server.client, &server.url, "agnost").await;
    assert!(events > 10 && stored.len() <= events);
    reference_chain(&stored).unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_hangs_does_not_delay_answers() {
    let data = TempDir::new().unwrap();
    let upstream = Upstream::start_with(|_, _| Reply::Hang).await;
    let mut config = config(data.path());
    config.relay.agnost = Some(cairn::relay::DestinationConfig {
        endpoint: Some(upstream.url()),
        org_id: Some(ORG.to_owned()),
        ..cairn::relay::DestinationConfig::default()
    });
    config.shutdown.grace = Duration::from_millis(100);
    let server = TestServer::start(&config).await;
    for n in 0..50 {
        let started = Instant::now();
        let path = if n == 0 { SESSION } else { EVENT };
        assert_eq!(post(&server, path, &json!({"session_id": "s", "args": n.to_string()}), None).await.status, 200);
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_the_agnost_api_are_relayed_as_they_were_sent() {
    const OTHER: &str = "11111111-2222-4333-8444-555555555555";
    let data = TempDir::new().unwrap();
    let upstream = Upstream::start().await;
    upstream.state.accepts_anything.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut config = config(data.path());
    config.relay.agnost = Some(cairn::relay::DestinationConfig {
        endpoint: Some(upstream.url()),
        org_id: Some(ORG.to_owned()),
        ..cairn::relay::DestinationConfig::default()
    });
    let server = TestServer::start(&config).await;
    let send = async |path: &str, body: &Value| {
        let request = server.post(path, body.to_string()).header("x-org-id", OTHER);
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    let session =
        json!({"session_id": "conv_abc", "client_config": "sdk", "user_data": {"user_id": "u"}, "tools": ["t"]});
    let whole = json!({"event_id": "c6aae2e9-6ca5-4a64-9a02-de83d7bf0154", "session_id": "conv_abc", "success": false,
                       "primitive_type": "tool", "primitive_name": "weather", "latency": 3, "args": "a", "result": "r",
                       "timestamp": 1_771_324_200_250_u64, "metadata": {"k": "v", "n": {"a": [1]}, "x-token": "s"}});
    let bare = json!({"session_id": "not announced", "event_id": "none", "args": {"a": 1}, "timestamp": "soon"});
    let named = json!({"session_id": "conv_abc", "primitive_name": "capture-session", "primitive_type": "x"});
    send(SESSION, &session).await;
    send(EVENT, &whole).await;
    send(EVENT, &bare).await;
    send(EVENT, &named).await;
    send(EVENT, &json!({"primitive_name": "no session"})).await;
    assert_eq!(server.send("/v1/events", &json!({"agent_id": "native", "session_id": "conv_abc"})).await.status, 201);
    eventually("all events", async || upstream.event_count() == 5).await;
    let accepted = upstream.accepted();
    let stored = read_chain(&server.client, &server.url, "agnost").await;
    let ms = |event: &Value| cairn_proof::chain::time::parse_ms(event["timestamp"].as_str().unwrap()).unwrap();
    let bodies_of = |path: &str, session: &str| -> Vec<Value> {
        let is_match = |request: &&crate::support::upstream::AcceptedRequest| {
            request.path == path && request.body["session_id"] == session
        };
        let found: Vec<_> = accepted.iter().filter(is_match).collect();
        assert!(found.iter().all(|request| request.org == OTHER), "relayed under the organization of the request");
        found.into_iter().map(|request| request.body.clone()).collect()
    };
    let with = |body: &Value, more: Value| {
        let mut body = body.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    // The session was announced once, by the request of the SDK.
    assert_eq!(bodies_of(SESSION, "conv_abc"), [with(&session, json!({"timestamp": ms(&stored[0])}))]);
    let redacted = json!({"metadata": {"k": "v", "n": {"a": [1]}, "x-token": "[REDACTED:x-token]"}});
    let named = with(&named, json!({"event_id": stored[3]["id"], "timestamp": ms(&stored[3])}));
    assert_eq!(bodies_of(EVENT, "conv_abc"), [with(&whole, redacted), named]);
    // Missing and invalid members are filled in. No SDK announced the session, so the relay does.
    let bare = with(&bare, json!({"event_id": stored[2]["id"], "timestamp": ms(&stored[2])}));
    assert_eq!(bodies_of(EVENT, "not announced"), [bare]);
    assert_eq!(bodies_of(SESSION, "not announced").len(), 1);
    let unnamed = accepted.iter().find(|request| request.body["primitive_name"] == "no session").unwrap();
    let session_id = unnamed.body["session_id"].as_str().unwrap();
    assert!(uuid::Uuid::try_parse(session_id).is_ok() && bodies_of(SESSION, session_id).len() == 1);
    // Other events are relayed under the organization of the configuration.
    let native = accepted.iter().filter(|request| request.org == ORG).count();
    assert_eq!(native, 2, "a session and an event");
    server.stop().await.unwrap();
}
