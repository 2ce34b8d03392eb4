//! What Agnost AI receives for an event, compared with a second implementation of the mapping in `docs/agnost.md` that
//! shares no code with the product.

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::harness::{TestServer, config, eventually};
use crate::support::upstream::{EVENT, ORG, SESSION, Upstream};

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn as_uuid(value: &Value) -> Option<String> {
    let text = value.as_str().filter(|text| text.len() == 36)?;
    Uuid::try_parse(text).ok().map(|id| id.to_string())
}

/// The session id that Agnost AI receives for an event.
pub fn session_id(event: &Value) -> String {
    if let Some(id) = as_uuid(&event["session_id"]) {
        return id;
    }
    let mut parts = vec![event["agent_id"].clone()];
    parts.extend(event.get("session_id").cloned());
    Uuid::new_v5(&ORG.parse().unwrap(), Value::from(parts).to_string().as_bytes()).to_string()
}

fn timestamp(event: &Value) -> i64 {
    let text = event["timestamp"].as_str().unwrap();
    let output = time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap();
    output.unix_timestamp_nanos().div_euclid(1_000_000) as i64
}

/// The body of `capture-event` for a stored event.
pub fn event_body(event: &Value) -> Value {
    let mut metadata = Map::new();
    let mut add = |kind: &str, name: &str, value: &Value| {
        let mut name = name.to_owned();
        while metadata.contains_key(&name) {
            name = format!("{kind}.{name}");
        }
        metadata.insert(name, as_text(value).into());
    };
    add("", "agent_id", &event["agent_id"]);
    add("", "action_type", &event["action_type"]);
    if event.get("action_status").is_none() {
        add("", "action_status", &json!("not stated"));
    }
    add("", "sequence", &event["sequence"]);
    add("", "hash", &event["hash"]);
    if event.get("session_id").is_some() && as_uuid(&event["session_id"]).is_none() {
        add("", "session_id", &event["session_id"]);
    }
    let none = Map::new();
    for (name, value) in event["labels"].as_object().unwrap_or(&none) {
        add("label", name, value);
    }
    let parent = as_uuid(&event["metadata"]["parent_id"]);
    for (name, value) in event["metadata"].as_object().unwrap_or(&none) {
        if !(name == "parent_id" && parent.is_some()) {
            add("metadata", name, value);
        }
    }
    let is_success = event.get("action_status").is_none_or(|status| status == "success");
    let is_tool = ["TOOL_CALL", "TOOL_RESULT"].contains(&event["action_type"].as_str().unwrap());
    let name = event.get("action_name").filter(|name| is_tool && *name != "");
    let error = event.get("error_message").filter(|_| !is_success);
    let text = |value: Option<&Value>| value.map(as_text).unwrap_or_default();
    let mut body = json!({
        "event_id": event["id"],
        "session_id": session_id(event),
        "primitive_name": name.unwrap_or(&event["agent_id"]),
        "args": text(event.get("action_input")),
        "result": text(event.get("action_output").or(error)),
        "success": is_success,
        "timestamp": timestamp(event),
        "metadata": metadata,
    });
    if let Some(duration) = event.get("duration_ms") {
        body["latency"] = duration.clone();
    }
    if let Some(parent) = parent {
        body["parent_id"] = parent.into();
    }
    body
}

/// The body of `capture-session`, from the first event of a session.
pub fn session_body(event: &Value) -> Value {
    let names = |value: &&Value| !value.is_null() && *value != "";
    let label = |name: &str| event["labels"].get(name).filter(names).or(event["metadata"].get(name).filter(names));
    let user = label("user_id").or(label("enduser.id")).unwrap_or(&event["agent_id"]);
    json!({
        "session_id": session_id(event),
        "client_config": "cairn",
        "user_data": {"user_id": as_text(user)},
        "timestamp": timestamp(event),
        "metadata": {"agent_id": event["agent_id"]},
    })
}

/// Events with every combination of fields that the mapping distinguishes.
fn events() -> Vec<Value> {
    let session = "0B9F6C0E-6F6E-4C56-8C35-2E5B1F0C9A77";
    let parent = "5e3c1a52-0d6f-4f0c-8a57-1f0c2b116f2f";
    vec![
        json!({"agent_id": "bare"}),
        json!({"agent_id": "ünï \"q\" \\ \u{1f600}", "session_id": "a\n\"b\"", "action_type": "TOOL_CALL",
               "action_name": "näme \"x\"", "action_input": {"b": [1, {"q": "\"\\"}], "a": null}, "action_output": "plain \"text\"\t"}),
        json!({"agent_id": "a", "session_id": session, "action_type": "TOOL_RESULT", "action_name": "n",
               "action_input": "as it is", "action_output": [1.5, true, null, 18446744073709551615u64]}),
        json!({"agent_id": "a", "session_id": session.to_lowercase(), "action_type": "LLM_CALL", "action_name": "model", "action_input": 7, "duration_ms": 0}),
        json!({"agent_id": "a", "action_type": "TOOL_CALL", "action_name": ""}),
        json!({"agent_id": "a", "action_status": "error", "error_message": "it \"broke\"", "duration_ms": 4711}),
        json!({"agent_id": "a", "action_status": "error", "error_message": "broke", "action_output": {"partial": 1}}),
        json!({"agent_id": "a", "action_status": "timeout", "error_message": "slow"}),
        json!({"agent_id": "a", "action_status": "success", "error_message": "not sent"}),
        json!({"agent_id": "a", "action_status": "odd"}),
        json!({"agent_id": "a", "timestamp": "1969-12-31T23:59:59.9995Z"}),
        json!({"agent_id": "a", "timestamp": "2026-02-17T10:30:00.123999999+05:30"}),
        json!({"agent_id": "a", "metadata": {"parent_id": parent, "x": {"y": [null]}, "n": null, "t": "text"}}),
        json!({"agent_id": "a", "metadata": {"parent_id": "no uuid", "user_id": 5}}),
        json!({"agent_id": "b", "labels": {"user_id": "ann", "env": "prod", "n": 1.5, "ok": true}, "metadata": {"user_id": "not she", "env": "dev"}}),
        json!({"agent_id": "c", "labels": {"enduser.id": "eve"}}),
        json!({"agent_id": "d", "metadata": {"enduser.id": "dan"}}),
        json!({"agent_id": "g", "metadata": {"user_id": null, "enduser.id": "gil"}}),
        json!({"agent_id": "h", "labels": {"user_id": ""}, "metadata": {"user_id": null}}),
        json!({"agent_id": "e", "labels": {"hash": "mine", "agent_id": "x", "sequence": 9, "label.hash": "y", "session_id": "z"}, "metadata": {"hash": "m", "label.label.hash": 1}}),
        json!({"agent_id": "e", "session_id": "s", "labels": {"session_id": "z"}}),
        json!({"agent_id": "f", "session_id": "{0b9f6c0e-6f6e-4c56-8c35-2e5b1f0c9a77}"}),
        json!({"agent_id": "f", "session_id": ""}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_relayed_as_the_mapping_describes_after_its_session() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut config = config(data.path());
    config.relay.agnost = Some(crate::relay::delivery::destination(&upstream));
    let server = TestServer::start(&config).await;
    let mut stored = Vec::new();
    for event in events() {
        stored.push(server.store(&event).await);
    }
    eventually("all events", async || upstream.event_count() == stored.len()).await;
    upstream.assert_no_violations();
    let accepted = upstream.accepted();
    for event in &stored {
        let at = accepted.iter().position(|request| request.body["event_id"] == event["id"]).unwrap();
        assert_eq!(accepted[at].body, event_body(event), "{event}");
        assert_eq!(accepted[at].org, ORG);
        let of_session = |request: &&crate::support::upstream::AcceptedRequest| {
            request.body["session_id"] == session_id(event).as_str()
        };
        let sessions: Vec<_> = accepted.iter().filter(of_session).filter(|request| request.path == SESSION).collect();
        assert_eq!(sessions.len(), 1, "announced once");
        let first = stored.iter().find(|other| session_id(other) == session_id(event)).unwrap();
        assert_eq!(sessions[0].body, session_body(first));
        assert_eq!(accepted.iter().find(of_session).unwrap().path, SESSION, "announced before its first event");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_metadata_only_inputs_and_outputs_are_not_relayed() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut config = config(data.path());
    let mut destination = crate::relay::delivery::destination(&upstream);
    destination.content = cairn::relay::config::ContentConfig::MetadataOnly;
    config.relay.agnost = Some(destination);
    let server = TestServer::start(&config).await;
    let event = json!({"agent_id": "a", "action_type": "TOOL_CALL", "action_name": "n", "action_input": {"k": "SECRET-IN"},
                       "action_output": "SECRET-OUT", "action_status": "error", "error_message": "why", "labels": {"l": 1}, "metadata": {"m": 2}});
    let stored = server.store(&event).await;
    eventually("the event", async || upstream.event_count() == 1).await;
    let mut without = stored.clone();
    without.as_object_mut().unwrap().retain(|key, _| key != "action_input" && key != "action_output");
    assert_eq!(upstream.events()[0].body, event_body(&without));
    let seen = upstream.state.bodies.lock().unwrap().join("\n");
    assert!(seen.contains("why") && !seen.contains("SECRET"), "{seen}");
    server.stop().await.unwrap();
    assert!(upstream.accepted().iter().all(|request| request.path == EVENT || request.path == SESSION));
}
