//! The mapping of spans to events by `docs/otlp.md`, in both encodings.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ingest::otlp::{TRACES, protobuf};
use crate::support::harness::{TestServer, config, read_chain, reference_chain};
use crate::support::protobuf::{Message, export};

/// A value in the JSON encoding of OTLP.
pub fn any_json(value: &Value) -> Value {
    match value {
        Value::Null => json!({}),
        Value::String(text) => json!({ "stringValue": text }),
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::Number(number) if number.is_i64() => json!({ "intValue": number.to_string() }),
        Value::Number(number) => json!({ "doubleValue": number }),
        Value::Array(values) => {
            json!({ "arrayValue": { "values": values.iter().map(any_json).collect::<Vec<_>>() } })
        }
        Value::Object(members) => {
            let members: Vec<_> = members.iter().map(|(key, value)| key_value(key, value)).collect();
            json!({ "kvlistValue": { "values": members } })
        }
    }
}

fn key_value(key: &str, value: &Value) -> Value {
    json!({ "key": key, "value": any_json(value) })
}

/// The attributes of an object in the JSON encoding of OTLP.
pub fn attributes(of: &Value) -> Value {
    of.as_object().unwrap().iter().map(|(key, value)| key_value(key, value)).collect()
}

/// An export of spans of one resource.
pub fn request(resource: &Value, spans: &[Value]) -> Value {
    json!({ "resourceSpans": [{ "resource": { "attributes": attributes(resource) }, "scopeSpans": [{ "spans": spans }] }] })
}

/// The trace id of all spans.
pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A span with attributes; `fields` replace or extend its default fields.
fn span_json(number: u64, of: &Value, fields: &Value) -> Value {
    let mut span = json!({ "traceId": TRACE, "spanId": format!("{number:016x}"), "name": "work",
                           "startTimeUnixNano": "1771324200250000001", "endTimeUnixNano": "1771324201749999999",
                           "attributes": attributes(of) });
    span.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    span
}

/// The fields of an event that `of` names.
pub fn subset(event: &Value, of: &Value) -> Value {
    of.as_object().unwrap().keys().map(|key| (key.clone(), event[key].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_mapped_to_events_as_documented() {
    let exception = |message: &str| json!({ "name": "exception", "attributes": attributes(&json!({ "exception.message": message })) });
    let cases = [
        // The agent: the first known name; an id that differs per run does not count.
        (
            json!({"agent.name": "b", "gen_ai.agent.name": "a", "gen_ai.agent.id": "run-7"}),
            json!({}),
            json!({"agent_id": "a"}),
        ),
        (json!({"traceloop.workflow.name": "c", "metadata.lc_agent_name": "d"}), json!({}), json!({"agent_id": "c"})),
        (json!({"ai.telemetry.functionId": "f"}), json!({}), json!({"agent_id": "f"})),
        (json!({"metadata": "{\"lc_agent_name\": \"l\", \"x\": 1}"}), json!({}), json!({"agent_id": "l"})),
        (json!({"metadata": "{not json", "graph.node.id": "g"}), json!({}), json!({"agent_id": "svc"})),
        (json!({"graph.node.id": "g", "openinference.span.kind": "AGENT"}), json!({}), json!({"agent_id": "g"})),
        (json!({"gen_ai.agent.name": "", "agent.name": " "}), json!({}), json!({"agent_id": "svc"})),
        // The session.
        (json!({"session.id": "s", "gen_ai.conversation.id": "g"}), json!({}), json!({"session_id": "g"})),
        (json!({"agnost.session_id": "a", "mcp.session.id": "m"}), json!({}), json!({"session_id": "a"})),
        (json!({"ai.telemetry.metadata.conversationId": "v"}), json!({}), json!({"session_id": "v"})),
        (json!({"traceloop.association.properties.thread_id": "t"}), json!({}), json!({"session_id": "t"})),
        (json!({}), json!({}), json!({"session_id": TRACE})),
        // Type and name of the action.
        (
            json!({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}),
            json!({}),
            json!({"action_type": "TOOL_CALL", "action_name": "search"}),
        ),
        (
            json!({"openinference.span.kind": "RETRIEVER", "tool.name": "docs"}),
            json!({}),
            json!({"action_type": "TOOL_CALL", "action_name": "docs"}),
        ),
        (
            json!({"ai.toolCall.name": "book"}),
            json!({"name": "ai.toolCall"}),
            json!({"action_type": "TOOL_CALL", "action_name": "book"}),
        ),
        (
            json!({"mcp.method.name": "tools/call"}),
            json!({}),
            json!({"action_type": "TOOL_CALL", "action_name": "work"}),
        ),
        (json!({}), json!({"name": "tool.grep"}), json!({"action_type": "TOOL_CALL", "action_name": "tool.grep"})),
        (
            json!({"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "m"}),
            json!({}),
            json!({"action_type": "LLM_CALL", "action_name": "m"}),
        ),
        (
            json!({"openinference.span.kind": "LLM", "llm.model_name": "n"}),
            json!({}),
            json!({"action_type": "LLM_CALL", "action_name": "n"}),
        ),
        (json!({}), json!({"name": "ai.streamText.doStream"}), json!({"action_type": "LLM_CALL"})),
        (
            json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m"}),
            json!({}),
            json!({"action_type": "AGENT_TURN", "action_name": "work"}),
        ),
        (json!({"openinference.span.kind": "AGENT"}), json!({}), json!({"action_type": "AGENT_TURN"})),
        (json!({"traceloop.span.kind": "tool"}), json!({}), json!({"action_type": "TOOL_CALL"})),
        (json!({"openinference.span.kind": "CHAIN"}), json!({}), json!({"action_type": "CUSTOM"})),
        (
            json!({"traceloop.span.kind": "tool", "traceloop.entity.name": "add"}),
            json!({}),
            json!({"action_type": "TOOL_CALL", "action_name": "add"}),
        ),
        (json!({"gen_ai.operation.name": "vector_db_retrieve"}), json!({}), json!({"action_type": "TOOL_CALL"})),
        (
            json!({"ai.model.id": "m"}),
            json!({"name": "ai.generateText.doGenerate"}),
            json!({"action_type": "LLM_CALL", "action_name": "m"}),
        ),
        (
            json!({}),
            json!({"name": "ai.streamText"}),
            json!({"action_type": "AGENT_TURN", "action_name": "ai.streamText"}),
        ),
        (
            json!({"span.type": "llm_request", "model": "m"}),
            json!({}),
            json!({"action_type": "LLM_CALL", "action_name": "m"}),
        ),
        (
            json!({"span.type": "tool", "tool_name": "Bash", "full_command": "ls"}),
            json!({}),
            json!({"action_type": "TOOL_CALL", "action_name": "Bash", "action_input": "ls"}),
        ),
        (
            json!({"span.type": "interaction", "user_prompt": "hi"}),
            json!({}),
            json!({"action_type": "AGENT_TURN", "action_input": "hi"}),
        ),
        // Input and output: parsed where the text is JSON, otherwise the text.
        (
            json!({"gen_ai.tool.call.arguments": "{\"q\": [1.0, 9007199254740993]}", "gen_ai.tool.call.result": "{not json"}),
            json!({}),
            json!({"action_input": {"q": [1, 9_007_199_254_740_993_u64]}, "action_output": "{not json"}),
        ),
        (
            json!({"input.value": "[1, 1e999]", "output.value": "{\"a\": 1, \"a\": 2}"}),
            json!({}),
            json!({"action_input": "[1, 1e999]", "action_output": "{\"a\": 1, \"a\": 2}"}),
        ),
        (
            json!({"ai.prompt": "7", "ai.response.text": " [] "}),
            json!({}),
            json!({"action_input": "7", "action_output": []}),
        ),
        (
            json!({"traceloop.entity.input": {"x": [null, true]}, "gen_ai.output.messages": [1.5]}),
            json!({}),
            json!({"action_input": {"x": [null, true]}, "action_output": [1.5]}),
        ),
        (
            json!({"ai.prompt.messages": "[1]", "ai.response.text": "", "ai.response.toolCalls": "[2]"}),
            json!({}),
            json!({"action_input": [1], "action_output": [2]}),
        ),
        // Status, error message and duration.
        (
            json!({}),
            json!({"status": {"code": 1}}),
            json!({"action_status": "success", "error_message": null, "duration_ms": 1499}),
        ),
        (
            json!({}),
            json!({"status": {"code": 2, "message": "no"}, "events": [exception("boom")]}),
            json!({"action_status": "error", "error_message": "no"}),
        ),
        (
            json!({"error.type": "E"}),
            json!({"status": {"code": 2}, "events": [exception("first"), exception("last")]}),
            json!({"action_status": "error", "error_message": "last"}),
        ),
        (json!({}), json!({"status": {"code": 0}}), json!({"action_status": null})),
        (json!({}), json!({"events": [exception("boom")]}), json!({"action_status": "error", "error_message": "boom"})),
        (
            json!({}),
            json!({"status": {"code": 1}, "events": [exception("handled")]}),
            json!({"action_status": "success", "error_message": null}),
        ),
        (json!({"error.type": "timeout"}), json!({}), json!({"action_status": "timeout", "error_message": "timeout"})),
        // Time stamp and duration.
        (
            json!({}),
            json!({"endTimeUnixNano": "1"}),
            json!({"timestamp": "2026-02-17T10:30:00.250000001Z", "duration_ms": null}),
        ),
        (json!({}), json!({"startTimeUnixNano": "0"}), json!({"duration_ms": null})),
        // Labels.
        (
            json!({"gen_ai.operation.name": "chat", "gen_ai.provider.name": "p", "gen_ai.request.model": ["m"]}),
            json!({}),
            json!({"labels": {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "p", "service.name": "svc",
                           "deployment.environment.name": "prod"}}),
        ),
    ];
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let spans: Vec<_> = cases.iter().zip(1..).map(|((of, fields, _), number)| span_json(number, of, fields)).collect();
    let resource = json!({"service.name": "svc", "deployment.environment.name": "prod"});
    let answer = server.send(TRACES, &request(&resource, &spans)).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})));
    let stored = server.list("limit=1000&order=asc").await;
    assert_eq!(stored.len(), cases.len());
    for (of, fields, expected) in &cases {
        let number = spans.iter().position(|span| *span == span_json(id_of(span), of, fields)).unwrap();
        let event = stored.iter().find(|event| event["metadata"]["span_id"] == spans[number]["spanId"]).unwrap();
        assert_eq!(subset(event, expected), *expected, "{of} {fields}");
        assert_eq!((&event["source"], &event["capture_method"]), (&json!("otlp"), &json!("otlp")));
        assert_eq!(event["validation_warnings"], Value::Null, "{of} {fields}");
    }
    let untimed = stored.iter().find(|event| event["timestamp"] == event["received_at"]);
    assert_eq!(untimed.unwrap()["duration_ms"], Value::Null);
    server.stop().await.unwrap();
}

fn id_of(span: &Value) -> u64 {
    u64::from_str_radix(span["spanId"].as_str().unwrap(), 16).unwrap()
}

/// A span with every field, in both encodings.
fn full_span() -> (Value, Message) {
    let of = json!({"gen_ai.tool.name": "t", "int": -7, "big": i64::MAX, "double": 31.245270191439438, "yes": true, "none": null,
                    "list": ["a", [1, {"b": null}]], "map": {"z": 1, "a": {"x": "y"}}, "text": "ä\n\"\u{1F680}"});
    let event = json!({"name": "exception", "timeUnixNano": "1771324200250000002", "droppedAttributesCount": 3,
                       "attributes": attributes(&json!({"exception.message": "m"}))});
    let link = json!({"traceId": "11".repeat(16), "spanId": "22".repeat(8), "traceState": "l=1", "flags": 1,
                      "droppedAttributesCount": 4, "attributes": attributes(&json!({"why": "because"}))});
    let fields = json!({"parentSpanId": "00000000000000ff", "traceState": "a=b", "kind": 5, "flags": 257,
                        "droppedAttributesCount": 5, "droppedEventsCount": 6, "droppedLinksCount": 7,
                        "events": [event], "links": [link], "status": {"code": 2, "message": "s"}});
    let json = span_json(254, &of, &fields);
    let hex = |text: &str| {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect::<Vec<_>>()
    };
    let event = Message::default()
        .fixed64(1, 1_771_324_200_250_000_002)
        .bytes(2, "exception")
        .attribute(3, "exception.message", &json!("m"))
        .integer(4, 3);
    let link = Message::default()
        .bytes(1, [0x11; 16])
        .bytes(2, [0x22; 8])
        .bytes(3, "l=1")
        .attribute(4, "why", &json!("because"))
        .integer(5, 4)
        .fixed32(6, 1);
    let mut message = Message::default()
        .bytes(1, hex(TRACE))
        .bytes(2, 254_u64.to_be_bytes())
        .bytes(3, "a=b")
        .bytes(4, 255_u64.to_be_bytes())
        .bytes(5, "work")
        .integer(6, 5)
        .fixed64(7, 1_771_324_200_250_000_001)
        .fixed64(8, 1_771_324_201_749_999_999);
    for (key, value) in of.as_object().unwrap() {
        message = message.attribute(9, key, value);
    }
    let message = message
        .integer(10, 5)
        .message(11, event)
        .integer(12, 6)
        .message(13, link)
        .integer(14, 7)
        .message(15, Message::default().bytes(2, "s").integer(3, 2))
        .fixed32(16, 257);
    (json, message)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_of_a_span_is_stored_and_both_encodings_give_the_same_event() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let (json, message) = full_span();
    let answer = server.send(TRACES, &request(&json!({"service.name": "svc"}), &[json])).await;
    assert_eq!(answer.json(), json!({}));
    // A different event would be stored under another id.
    let answer = protobuf(&server, "/v1/traces/v1/traces", export("svc", [message])).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    assert_eq!(answer.headers["content-type"], "application/x-protobuf");
    let stored = read_chain(&server.client, &server.url, "svc").await;
    assert_eq!(stored.len(), 1, "{stored:?}");
    reference_chain(&stored).unwrap();
    // UUIDv5 in the namespace of `docs/otlp.md`, computed by another implementation.
    assert_eq!(stored[0]["id"], "05937740-9a0c-5129-b078-7e0607df4fc4");
    assert_eq!(
        stored[0]["metadata"],
        json!({"attributes": {"int": -7, "big": i64::MAX, "double": 31.245270191439438, "yes": true, "none": null,
                              "list": ["a", [1, {"b": null}]], "map": {"z": 1, "a": {"x": "y"}}, "text": "ä\n\"\u{1F680}"},
               "dropped_attributes_count": 5, "dropped_events_count": 6, "dropped_links_count": 7,
               "events": [{"attributes": {"exception.message": "m"}, "dropped_attributes_count": 3, "name": "exception",
                           "timestamp": "2026-02-17T10:30:00.250000002Z"}],
               "flags": 257, "kind": "consumer",
               "links": [{"attributes": {"why": "because"}, "dropped_attributes_count": 4, "flags": 1,
                          "span_id": "22".repeat(8), "trace_id": "11".repeat(16), "trace_state": "l=1"}],
               "name": "work", "parent_id": "b5723239-0adb-5801-b4bd-fdb9f359480b", "parent_span_id": "00000000000000ff",
               "resource": {"service.name": "svc"}, "span_id": "00000000000000fe", "trace_id": TRACE,
               "trace_state": "a=b"})
    );
    server.stop().await.unwrap();
}
