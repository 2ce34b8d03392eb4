//! Nothing of a record disappears behind a 200: what has an unusual form is kept with a warning, what is too long is
//! replaced by its hash, and what cannot be read costs only itself and is named in the answer.

use cairn::ingest::otlp::MappingRow;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::ingest::otlp::{LOGS, TRACES, protobuf};
use crate::ingest::otlp_spans::{TRACE, attributes, request};
use crate::support::harness::{TestServer, config, metric, run_text};
use crate::support::protobuf::{Message, export, id, span};

fn span_with(fields: &Value) -> Value {
    let mut span = json!({"traceId": TRACE, "spanId": "00000000000000aa", "name": "n"});
    span.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    span
}

/// Sends spans, and returns the answer's partial success and the newest events.
async fn send(server: &TestServer, spans: &[Value]) -> (Value, Vec<Value>) {
    let answer = server.send(TRACES, &request(&json!({"service.name": "svc"}), spans)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    (answer.json()["partialSuccess"].clone(), server.list("limit=100").await)
}

fn warning(event: &Value) -> &str {
    event["validation_warnings"][0].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_cannot_be_read_costs_its_record_and_one_in_another_form_is_kept() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let with = |number: u64, value: &Value| {
        span_with(&json!({"spanId": format!("{number:016x}"), "attributes": [{"key": "k", "value": value}]}))
    };
    let cases = [
        (json!({"doubleValue": {}}), None),
        (json!({"intValue": "many"}), None),
        (json!({"bytesValue": "%"}), None),
        (json!({"arrayValue": {"values": 5}}), None),
        (json!({"Value": {"StringValue": "go"}}), Some((json!("go"), false))),
        (json!({"string_value": "snake"}), Some((json!("snake"), false))),
        (json!({"stringValue": 5}), Some((json!("{\"stringValue\":5}"), true))),
        (json!({"uuidValue": "x"}), Some((json!("{\"uuidValue\":\"x\"}"), true))),
        (json!({"stringValue": {"a": [1]}}), Some((json!("{\"stringValue\":{\"a\":[1]}}"), true))),
    ];
    let mut number = 1;
    for (value, kept) in &cases {
        let spans =
            [with(number, &json!({"stringValue": "good"})), with(number + 1, value), with(number + 2, &json!({}))];
        let (partial, stored) = send(&server, &spans).await;
        let find = |number: u64| stored.iter().find(|event| event["metadata"]["span_id"] == *format!("{number:016x}"));
        assert!(find(number).is_some() && find(number + 2).is_some(), "{value}: the others are stored");
        match kept {
            None => {
                assert_eq!(partial["rejectedSpans"], "1", "{value}: {partial}");
                assert!(
                    partial["errorMessage"].as_str().unwrap().starts_with("1 span was rejected, index 1: "),
                    "{partial}"
                );
                assert!(find(number + 1).is_none());
            }
            Some((expected, is_warned)) => {
                let event = find(number + 1).unwrap();
                assert_eq!(event["metadata"]["attributes"]["k"], *expected, "{value}");
                assert_eq!(warning(event).contains("a form that OTLP does not have"), *is_warned, "{event}");
                let message = partial["errorMessage"].as_str().unwrap_or_default();
                assert_eq!(message.contains("stored with a warning, index 1"), *is_warned, "{value}: {partial}");
            }
        }
        number += 3;
    }
    // Null elements are skipped, also beside a span that cannot be read.
    let body = json!({"resourceSpans": [null, {"resource": null, "scopeSpans": [null, {"scope": null, "spans": [
        null, with(800, &json!({"stringValue": "good"})), with(801, &json!({"doubleValue": {}})), null]}]}]});
    let answer = server.send(TRACES, &body).await.json();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("index 1"), "{answer}");
    // A resource that cannot be read costs the spans that share it; names of earlier versions are read.
    let bad = json!({"attributes": [{"key": "service.name", "value": {"boolValue": []}}]});
    let groups = |resource: &Value, number: u64| {
        let span = span_with(&json!({"spanId": format!("{number:016x}")}));
        json!({"resource": resource, "instrumentationLibrarySpans": [{"instrumentationLibrary": {"name": "old"}, "spans": [span]}]})
    };
    let body = json!({"resourceSpans": [groups(&json!({}), 900), groups(&bad, 901), groups(&json!({}), 902)]});
    let answer = server.send(TRACES, &body).await.json();
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1", "{answer}");
    let stored = server.list("limit=2").await;
    assert!(stored.iter().all(|event| event["metadata"]["scope"]["name"] == "old"), "{stored:?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_in_other_forms_are_decoded_or_kept_as_text() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let canonical = span_with(&json!({"spanId": "de9e16e2398d7876"}));
    let (_, stored) = send(&server, &[canonical]).await;
    let id_of_canonical = stored[0]["id"].clone();
    // The same span in other forms is the same event.
    for (trace, span_id) in
        [("CvdlGRbNQ92ESOshHIAxnA==", "3p4W4jmNeHY="), ("0x0AF7651916CD43DD8448EB211C80319C", "0xDE9E16E2398D7876")]
    {
        let (partial, stored) = send(&server, &[span_with(&json!({"traceId": trace, "spanId": span_id}))]).await;
        assert!(partial.is_null() && stored.len() == 1 && stored[0]["id"] == id_of_canonical, "{trace}: {stored:?}");
    }
    let text_bytes = Message::default().bytes(1, TRACE).bytes(2, "de9e16e2398d7876").bytes(5, "n");
    assert_eq!(protobuf(&server, TRACES, export("svc", [text_bytes])).await.status, 200);
    assert_eq!(server.list("limit=10").await.len(), 1, "hex digits in protobuf");
    // Texts that are no ids, also of the length of one.
    let odd = span_with(&json!({"traceId": "run-7", "spanId": "span-001", "parentSpanId": "parent",
                                "links": [{"traceId": "other", "spanId": "0000000000000001"}]}));
    let child = span_with(&json!({"traceId": "run-7", "spanId": "span-002", "parentSpanId": "span-001"}));
    let (partial, stored) = send(&server, &[odd, child]).await;
    assert_eq!(partial["rejectedSpans"], "0");
    let find = |span: &str| stored.iter().find(|event| event["metadata"]["span_id"] == span).unwrap();
    let (odd, child) = (find("span-001"), find("span-002"));
    assert_eq!(odd["session_id"], "run-7");
    assert_eq!((&odd["metadata"]["trace_id"], &odd["metadata"]["parent_span_id"]), (&json!("run-7"), &json!("parent")));
    assert_eq!(odd["metadata"]["links"][0]["trace_id"], "other");
    assert_eq!(child["metadata"]["parent_id"], odd["id"]);
    let warnings = odd["validation_warnings"].to_string();
    for place in ["trace_id: run-7", "span_id: span-001", "parent_span_id: parent", "links.trace_id: other"] {
        assert!(warnings.contains(place), "{place}: {warnings}");
    }
    let record = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"timeUnixNano": "1771324200250000001", "traceId": "run-7", "spanId": "span-001", "body": {"stringValue": "b"}}]}]}]});
    assert_eq!(server.send(LOGS, &record).await.json()["partialSuccess"]["rejectedLogRecords"], "0");
    let stored = server.list("limit=1").await.remove(0);
    assert_eq!((&stored["metadata"]["trace_id"], &stored["metadata"]["parent_id"]), (&json!("run-7"), &odd["id"]));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_agents_are_repaired_and_schemas_and_dropped_counts_are_kept() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let long = "é".repeat(200);
    for (number, (name, expected)) in
        [("  boss\n", "boss"), ("a\u{1}b", "a\\u0001b"), (long.as_str(), "~"), ("fine", "fine")].into_iter().enumerate()
    {
        let span = span_with(&json!({"spanId": format!("{:016x}", number + 1),
                                     "attributes": attributes(&json!({"gen_ai.agent.name": name}))}));
        let (_, stored) = send(&server, &[span]).await;
        let agent = stored[0]["agent_id"].as_str().unwrap();
        assert!(agent == expected || expected == "~" && agent.len() <= 256 && agent.contains('~'), "{name:?}: {agent}");
        assert_eq!(warning(&stored[0]).starts_with("agent_id: "), name != "fine", "{}", stored[0]);
    }
    let span = span_with(&json!({"spanId": "00000000000000ff"}));
    let body = json!({"resourceSpans": [{
        "schemaUrl": "https://schema.example/1", "resource": {"droppedAttributesCount": 2},
        "scopeSpans": [{"schemaUrl": "https://schema.example/2", "spans": [span],
                        "scope": {"name": "s", "droppedAttributesCount": 3, "attributes": attributes(&json!({"k": "v"}))}}]}]});
    assert_eq!(server.send(TRACES, &body).await.json(), json!({}));
    let metadata = server.list("limit=1").await[0]["metadata"].clone();
    assert_eq!(metadata["resource_schema_url"], "https://schema.example/1");
    assert_eq!(metadata["resource_dropped_attributes_count"], 2);
    let scope = json!({"name": "s", "schema_url": "https://schema.example/2", "dropped_attributes_count": 3, "attributes": {"k": "v"}});
    assert_eq!(metadata["scope"], scope);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_long_keeps_everything_but_its_largest_values() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let sha256 = |value: &Value| cairn_proof::hex::encode(&Sha256::digest(value.to_string()));
    let big = json!("x".repeat(1_200_000));
    let huge = json!("\u{1}".repeat(2_500_000));
    let medium = json!("m".repeat(500_000));
    let messages = json!([{"role": "user", "content": "short"}, {"role": "user", "content": big}]);
    let cases = [
        (json!({"input.value": big, "k": "kept"}), "action_input", &big),
        (json!({"input.value": messages.to_string(), "k": "kept"}), "content", &big),
        (json!({"image": huge, "k": "kept"}), "image", &huge),
        (json!({"a": medium, "b": medium, "c": medium, "k": "kept"}), "a", &medium),
    ];
    for (number, (of, place, original)) in cases.iter().enumerate() {
        let span = span_with(&json!({"spanId": format!("{:016x}", number + 1), "attributes": attributes(of)}));
        let (partial, stored) = send(&server, &[span]).await;
        assert_eq!(partial["rejectedSpans"], "0", "{place}");
        let event = &stored[0];
        let value = match *place {
            "action_input" => &event["action_input"],
            "content" => &event["action_input"][1]["content"],
            name => &event["metadata"]["attributes"][name],
        };
        let bytes = original.to_string().len();
        assert_eq!(*value, json!({"omitted": {"bytes": bytes, "sha256": sha256(original)}}), "{place}");
        assert_eq!(event["metadata"]["attributes"]["k"], "kept");
        assert!(
            event.to_string().len() < 1_100_000 && warning(event).contains("limits.event_bytes"),
            "{}",
            warning(event)
        );
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_log_records_without_a_time_are_one_event_only_if_the_request_is_repeated() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let record = || Message::default().bytes(12, "tick");
    let count = async || server.list("limit=100").await.len();
    assert_eq!(protobuf(&server, LOGS, export("svc", [record()])).await.status, 200);
    assert_eq!(protobuf(&server, LOGS, export("svc", [record()])).await.status, 200);
    assert_eq!(count().await, 1, "the same bytes are a repetition");
    assert_eq!(protobuf(&server, LOGS, export("svc", [record(), record()])).await.status, 200);
    assert_eq!(count().await, 3, "another request has other events");
    // A record with a time is the same event in any request.
    let timed = || record().fixed64(1, 1_771_324_200_250_000_001);
    assert_eq!(protobuf(&server, LOGS, export("svc", [timed()])).await.status, 200);
    assert_eq!(protobuf(&server, LOGS, export("svc", [timed(), record()])).await.status, 200);
    assert_eq!(count().await, 5);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_belong_to_the_agent_of_their_span_and_a_repeated_one_is_stored_once() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let log = || {
        let record = Message::default().fixed64(1, 1_771_324_200_250_000_001).bytes(12, "gen_ai.user.message");
        export("svc", [record.bytes(9, id(7, 16)).bytes(10, id(8, 8))])
    };
    // Before its span the record belongs to the service.
    assert_eq!(protobuf(&server, LOGS, log()).await.status, 200);
    let named = [("gen_ai.agent.name", json!("boss")), ("session.id", json!("s"))];
    let span = span(8, "n", &named).bytes(1, id(7, 16));
    assert_eq!(protobuf(&server, TRACES, export("svc", [span])).await.status, 200);
    // Repeated after its span it is the same event, not another one of another agent.
    assert_eq!(protobuf(&server, LOGS, log()).await.status, 200);
    assert_eq!(server.list("limit=100").await.len(), 2);
    let other = Message::default().fixed64(1, 1).bytes(12, "gen_ai.choice").bytes(9, id(7, 16)).bytes(10, id(8, 8));
    assert_eq!(protobuf(&server, LOGS, export("svc", [other])).await.status, 200);
    let newest = server.list("limit=1").await.remove(0);
    assert_eq!((&newest["agent_id"], &newest["session_id"]), (&json!("boss"), &json!("s")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_user_come_before_the_built_in_ones() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    let row = |row: Value| serde_json::from_value::<MappingRow>(row).unwrap();
    config.ingest.otlp.mapping = vec![
        row(json!({"field": "session_id", "attribute": "acme.conversation"})),
        row(
            json!({"field": "action_type", "attribute": "acme.kind", "is": ["tool", "function*"], "value": "TOOL_CALL"}),
        ),
        row(json!({"field": "action_input", "span_event": "acme.prompt", "attribute": "text"})),
        row(json!({"field": "agent_id", "name": "agent *", "signal": "traces"})),
        row(json!({"field": "action_status", "attribute": "acme.outcome", "is": ["failed"], "value": "error"})),
        row(json!({"field": "error_message", "resource_attribute": "acme.reason"})),
        row(json!({"field": "user_id", "body": "who", "signal": "logs"})),
    ];
    let server = TestServer::start(&config).await;
    let of = attributes(
        &json!({"acme.conversation": "c", "session.id": "other", "acme.kind": "function_call", "acme.outcome": "Failed"}),
    );
    let event = json!({"name": "acme.prompt", "attributes": attributes(&json!({"text": "hi"}))});
    let span = span_with(&json!({"name": "agent planner", "attributes": of, "events": [event], "status": {"code": 1}}));
    let body = request(&json!({"service.name": "svc", "acme.reason": "why"}), &[span]);
    assert_eq!(server.send(TRACES, &body).await.json(), json!({}));
    let stored = server.list("limit=1").await.remove(0);
    for (field, expected) in [
        ("agent_id", "planner"),
        ("session_id", "c"),
        ("action_type", "TOOL_CALL"),
        ("action_input", "hi"),
        ("action_status", "error"),
        ("error_message", "why"),
    ] {
        assert_eq!(stored[field], expected, "{field}");
    }
    let body = json!({"kvlistValue": {"values": [{"key": "who", "value": {"stringValue": "ann"}}]}});
    let record = json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "5", "body": body}]}]}]});
    assert_eq!(server.send(LOGS, &record).await.json(), json!({}));
    assert_eq!(server.list("limit=1").await[0]["metadata"]["user_id"], "ann");
    let metrics = server.metrics().await;
    assert_eq!(metric(&metrics, "cairn_ingest_accepted_events_total"), Some(2.0));
    server.stop().await.unwrap();
    // Rows that cannot work are refused at the start.
    let folder = TempDir::new().unwrap();
    for (rows, message) in [
        ("[{field: action_type, attribute: a}]", "value: TOOL_CALL"),
        ("[{field: action_status, attribute: a, value: good}]", "value: success"),
        ("[{field: session_id}]", "one of attribute"),
        ("[{field: session_id, attribute: a, body: b}]", "only one of"),
        ("[{field: nothing, attribute: a}]", "nothing"),
        ("[{field: session_id, atribute: a}]", "atribute"),
    ] {
        let file = folder.path().join("cairn.yaml");
        std::fs::write(&file, format!("ingest: {{otlp: {{mapping: {rows}}}}}\n")).unwrap();
        let (status, _, error) = run_text(&["config", "validate", "--config", file.to_str().unwrap()]);
        assert!(
            status == 2 && error.contains("ingest.otlp.mapping") && error.contains(message),
            "{rows}: {status} {error}"
        );
    }
}
