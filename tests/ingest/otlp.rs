//! OTLP over HTTP: which spans and log records become events, repeated exports, and the answers. Rules: `docs/otlp.md`.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ingest::otlp_spans::{any_json, attributes, subset};
use crate::support::harness::{Answer, TestServer, config, metric, read_chain, reference_chain};
use crate::support::protobuf::{Message, any, export, id, span};

/// The call for spans.
pub const TRACES: &str = "/v1/traces";
/// The call for log records.
pub const LOGS: &str = "/v1/logs";

/// Posts an export in protobuf.
pub async fn protobuf(server: &TestServer, path: &str, body: Vec<u8>) -> Answer {
    let request = server.client.post(format!("{}{path}", server.url)).header("content-type", "application/x-protobuf");
    Answer::of(request.body(body).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn json_is_accepted_in_every_form_that_exporters_write() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let body = r#" {"resource_spans": [{"scopeSpans": [{"spans": [{"span_id": "00000000000000FF", "traceId": "0AF7651916CD43DD8448EB211C80319C",
        "startTimeUnixNano": 1771324200250000001, "endTimeUnixNano": 1.771324201750e18, "kind": "SPAN_KIND_SERVER", "flags": 1.0, "droppedLinksCount": "5e0",
        "status": {"code": "STATUS_CODE_ERROR"}, "parentSpanId": "", "links": null, "unknown": {"deep": [{"er": 1}]}, "name": "n",
        "attributes": [{"key": "i", "value": {"intValue": 5}}, {"key": "d", "value": {"doubleValue": 3}},
                       {"key": "nan", "value": {"doubleValue": "NaN"}}, {"key": "inf", "value": {"doubleValue": "-Infinity"}},
                       {"key": "b", "value": {"bytesValue": "AAEC"}}, {"key": "twice", "value": {"stringValue": "1"}},
                       {"value": {"stringValue": "2"}, "key": "twice"}, {"key": "later", "value": null}, {"key": "session.id", "value": {"stringValue": "first"}},
                       {"key": "session.id", "value": {"stringValue": "last"}},
                       {"key": "lone", "value": {"stringValue": "a\ud800b"}}]}]}],
        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "behind"}}]}}]} "#;
    let answer = Answer::of(server.post(TRACES, body).send().await.unwrap()).await;
    let warning = "1 span was stored with a warning, index 0: text that was not UTF-8 was replaced by U+FFFD";
    let expected = json!({"partialSuccess": {"rejectedSpans": "0", "errorMessage": warning}});
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));
    assert_eq!(answer.headers["content-type"], "application/json");
    let event = server.list("limit=1").await.remove(0);
    let expected = json!({"agent_id": "behind", "session_id": "last", "duration_ms": 1500, "action_status": "error"});
    assert_eq!(subset(&event, &expected), expected);
    assert_eq!(
        event["metadata"]["attributes"],
        json!({"i": 5, "d": 3, "nan": "NaN", "inf": "-Infinity", "b": "AAEC", "twice": "2", "later": null, "lone": "a\u{FFFD}b"})
    );
    assert_eq!((&event["metadata"]["kind"], &event["metadata"]["flags"]), (&json!("server"), &json!(1)));
    assert!(event["validation_warnings"].to_string().contains("U+FFFD"), "{event}");
    // Numbers that the JavaScript exporter writes as integers, null for absent members, both alphabets of base64.
    let body = r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "0000000000000002",
        "parentSpanId": null, "traceState": null, "name": "n", "attributes": [
        {"key": "a", "value": {"intValue": 10000000000000000000}}, {"key": "b", "value": {"intValue": "18446744073709551615"}},
        {"key": "c", "value": {"intValue": 1e+21}}, {"key": "d", "value": {"intValue": -9223372036854775808}},
        {"key": "e", "value": {"stringValue": null}}, {"key": "f", "value": {"bytesValue": "-_8"}},
        {"key": "g", "value": {"doubleValue": "31.245270191439438"}}, {"key": "h", "value": {"intValue": 1.0}}]}]}]}]}"#;
    let answer = Answer::of(server.post(TRACES, body).send().await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({})));
    let found = server.get("/v1/events?limit=1").await.text;
    let expected = r#""attributes":{"a":10000000000000000000,"b":18446744073709552000,"c":1e+21,"d":-9223372036854775808,"e":null,"f":"+/8=","g":31.245270191439438,"h":1}"#;
    assert!(found.contains(expected), "{found}");
    // Protobuf strings that are not UTF-8.
    let broken = span(3, "name", &[])
        .message(9, Message::default().bytes(1, "k").message(2, Message::default().bytes(1, b"a\xED\xA0\x80b")));
    assert_eq!(protobuf(&server, TRACES, export("svc", [broken])).await.status, 200);
    assert_eq!(server.list("limit=1").await[0]["metadata"]["attributes"], json!({"k": "a\u{FFFD}b"}));
    // Names whose order in UTF-16 differs from the order of their bytes. The reference checks the chain below, too.
    let names =
        ["\u{10000}", "\u{E000}", "\u{FFFF}", "\u{D7FF}", "\u{10FFFF}a", "a", "a\n", "a\"", "Z", "~", "\u{7F}", ""];
    let map: Value = names.iter().map(|name| ((*name).to_owned(), json!(name.len()))).collect();
    let attributes = names.iter().map(|name| (*name, map.clone())).collect::<Vec<_>>();
    assert_eq!(protobuf(&server, TRACES, export("behind", [span(4, "n", &attributes)])).await.status, 200);
    reference_chain(&read_chain(&server.client, &server.url, "behind").await).unwrap();
    for (body, what) in
        [("", "EOF"), ("[]", "an object"), (r#"{"resourceSpans": {}}"#, "an array"), ("{} {}", "trailing")]
    {
        let answer = Answer::of(server.post(TRACES, body).send().await.unwrap()).await;
        let error = answer.json();
        assert_eq!((answer.status.as_u16(), &error["code"]), (400, &json!(3)), "{body}");
        assert!(error["message"].as_str().unwrap().contains(what), "{body}: {error}");
    }
    // A span that cannot be read costs only itself.
    for (body, what) in [
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": -1}]}]}]}"#, "non-negative"),
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"flags": 4294967296}]}]}]}"#, "non-negative"),
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"status": []}]}]}]}"#, "an object"),
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": "soon"}]}]}]}"#, "integer, found soon"),
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"startTimeUnixNano": 1e300}]}]}]}"#, "integer"),
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 5}]}]}]}"#, "a string"),
        (r#"{"resourceSpans": [{"scopeSpans": [{"spans": [{"kind": "NO_KIND"}]}]}]}"#, "enum"),
    ] {
        let answer = Answer::of(server.post(TRACES, body).send().await.unwrap()).await;
        let partial = answer.json()["partialSuccess"].clone();
        assert_eq!((answer.status.as_u16(), &partial["rejectedSpans"]), (200, &json!("1")), "{body}");
        let message = partial["errorMessage"].as_str().unwrap();
        assert!(message.starts_with("1 span was rejected, index 0: ") && message.contains(what), "{body}: {message}");
    }
    // A member of another signal is valid JSON; the answer contains a warning.
    let answer = server.send(TRACES, &json!({"resourceLogs": []})).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.json()["partialSuccess"]["errorMessage"].as_str().unwrap().contains("resourceSpans"),
        "{}",
        answer.text
    );
    assert_eq!(server.send(TRACES, &json!({"resourceSpans": []})).await.json(), json!({}));
    // Error messages quote only the beginning of a long value.
    let long =
        format!(r#"{{"resourceSpans": [{{"scopeSpans": [{{"spans": [{{"kind": "{}"}}]}}]}}]}}"#, "x".repeat(1 << 20));
    let answer = Answer::of(server.post(TRACES, long).send().await.unwrap()).await;
    assert!(answer.status == 200 && answer.text.len() < 300, "{}", answer.text.len());
    let answer = server
        .send(TRACES, &json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz", "spanId": "q"}]}]}]}))
        .await;
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "0", "{}", answer.text);
    assert_eq!(server.list("limit=10").await.len(), 5);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_export_is_stored_once_and_a_different_span_with_the_same_id_under_another_id() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.shards = 3;
    let server = TestServer::start(&config).await;
    let named = |number, agent: &str| span(number, "n", &[("gen_ai.agent.name", json!(agent))]);
    for _ in 0..3 {
        let body = export("svc", (1..=700).map(|number| named(number, ["a", "b", "c"][number as usize % 3])));
        assert_eq!(protobuf(&server, TRACES, body).await.status, 200);
    }
    let other = || export("svc", [named(1, "b").attribute(9, "more", &json!(1)), named(2, "x"), named(2, "x")]);
    for _ in 0..2 {
        let answer = protobuf(&server, TRACES, other()).await;
        let warning = "3 spans were stored with a warning, the first one at index 0: id: ";
        assert!(answer.status == 200 && answer.text.contains(warning), "{}", answer.text);
    }
    let mut under_other_id = 0;
    for agent in ["a", "b", "c", "x"] {
        let chain = read_chain(&server.client, &server.url, agent).await;
        reference_chain(&chain).unwrap();
        for event in chain.iter().filter(|event| event["validation_warnings"].is_array()) {
            assert!(
                event["validation_warnings"][0].as_str().unwrap().contains("belongs to a different event"),
                "{event}"
            );
            under_other_id += 1;
        }
    }
    assert_eq!((under_other_id, server.list("limit=1000").await.len()), (2, 702));
    let metrics = server.metrics().await;
    assert_eq!(metric(&metrics, "cairn_ingest_accepted_events_total"), Some(702.0));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_without_an_agent_gets_the_agent_of_its_nearest_ancestor() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let child = |number, parent, of: &[(&str, Value)]| span(number, "n", of).bytes(4, id(parent, 8));
    let agent = |name: &str| [("gen_ai.agent.name", json!(name))];
    let spans = [
        child(5, 4, &[]),
        child(4, 3, &[]),
        child(3, 2, &agent("inner")),
        child(2, 1, &[]),
        span(1, "n", &agent("outer")),
        child(9, 8, &[]),
        // Names inside the JSON of an attribute, and names that count only on spans of kind AGENT.
        child(21, 20, &[]),
        span(20, "n", &[("metadata", json!("{\"lc_agent_name\":\"chain\"}"))]),
        child(23, 22, &[]),
        span(22, "n", &[("graph.node.id", json!("node")), ("openinference.span.kind", json!("AGENT"))]),
        child(25, 24, &[]),
        span(24, "n", &[("graph.node.id", json!("node"))]),
        // A cycle.
        child(10, 11, &[]),
        child(11, 10, &[]),
    ];
    assert_eq!(protobuf(&server, TRACES, export("svc", spans)).await.status, 200);
    let stored = server.list("limit=100").await;
    let agents = |number: u64| {
        let id = format!("{number:016x}");
        stored.iter().find(|event| event["metadata"]["span_id"] == *id).unwrap()["agent_id"].clone()
    };
    assert_eq!(
        [5, 4, 3, 2, 1, 9, 10, 11].map(agents),
        ["inner", "inner", "inner", "outer", "outer", "svc", "svc", "svc"]
    );
    assert_eq!([20, 21, 22, 23, 24, 25].map(agents), ["chain", "chain", "node", "node", "svc", "svc"]);
    // The default service names of SDKs count as none.
    for service in ["unknown_service", "unknown_service:node"] {
        assert_eq!(
            protobuf(&server, TRACES, export(service, [span(service.len() as u64, "n", &[])])).await.status,
            200
        );
    }
    let chain = read_chain(&server.client, &server.url, "unknown-agent").await;
    assert_eq!(chain.len(), 2);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn log_records_become_events() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let record = |name: &str, of: &Value| {
        let record = Message::default().fixed64(1, 1_771_324_200_250_000_001).fixed64(11, 1_771_324_200_250_000_002);
        let record = record.message(5, any(&json!({"said": [name]}))).attribute(6, "event.name", &json!(name));
        of.as_object().unwrap().iter().fold(record, |record, (key, value)| record.attribute(6, key, value))
    };
    let cases = [
        (
            record(
                "claude_code.tool_result",
                &json!({"session.id": "s", "tool_name": "Bash", "success": "false", "error": "E",
                                                   "duration_ms": "42", "tool_parameters": "{\"c\": 1}"}),
            ),
            json!({"action_type": "TOOL_RESULT", "action_name": "claude_code.tool_result", "session_id": "s", "duration_ms": 42,
                "action_input": {"c": 1}, "action_status": "error", "error_message": "E", "agent_id": "coder",
                "timestamp": "2026-02-17T10:30:00.250000001Z"}),
        ),
        (
            record("codex.api_request", &json!({"conversation.id": "c", "duration_ms": 7})),
            json!({"action_type": "LLM_CALL", "session_id": "c", "duration_ms": 7, "action_status": null}),
        ),
        (
            record("user_prompt", &json!({"prompt": "Do it", "gen_ai.agent.name": "a"})),
            json!({"action_type": "AGENT_TURN", "action_input": "Do it", "agent_id": "a", "session_id": null}),
        ),
        (
            record("codex.tool_result", &json!({"arguments": "[]", "output": "done", "success": true})),
            json!({"action_type": "TOOL_RESULT", "action_input": [], "action_output": "done", "action_status": "success"}),
        ),
        (
            record("codex.tool_decision", &json!({})),
            json!({"action_type": "CUSTOM", "action_name": "codex.tool_decision"}),
        ),
        // The attribute `event.name` takes precedence over the field; severity ERROR is an error; the span is known.
        (
            record("attribute", &json!({}))
                .bytes(12, "field")
                .integer(2, 17)
                .bytes(3, "ERROR")
                .bytes(9, id(1, 16))
                .bytes(10, id(2, 8)),
            json!({"action_name": "attribute", "action_status": "error", "session_id": "c0c0c0c0c0c0c0c00000000000000001"}),
        ),
        (
            Message::default().bytes(12, "field").attribute(6, "response", &json!("r")),
            json!({"action_name": "field", "action_output": "r"}),
        ),
        (Message::default(), json!({"action_type": "CUSTOM", "action_name": null, "action_status": null})),
        // Two equal records are two events.
        (Message::default(), json!({"action_type": "CUSTOM"})),
    ];
    for _ in 0..2 {
        let body = export("coder", cases.iter().map(|(record, _)| record.clone()));
        let answer = protobuf(&server, LOGS, body).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    }
    let stored = server.list("limit=100&order=asc").await;
    assert_eq!(stored.len(), cases.len(), "{stored:#?}");
    for (event, (_, expected)) in stored.iter().zip(&cases) {
        assert_eq!(subset(event, expected), *expected);
    }
    assert_eq!(
        stored[0]["metadata"],
        json!({"attributes": {"success": "false", "tool_name": "Bash"}, "body": {"said": ["claude_code.tool_result"]},
               "observed_timestamp": "2026-02-17T10:30:00.250000002Z", "resource": {"service.name": "coder"}})
    );
    let span = server.list("limit=1").await;
    assert_eq!(span.len(), 1);
    // The event of a span is the parent of the log records that were written in it.
    let span_event = store_span(&server, 2).await;
    assert_eq!(stored[5]["metadata"]["parent_id"], span_event["id"]);
    assert_eq!(stored[5]["metadata"]["event_name"], "field");
    // In JSON the events are the same.
    let json = json!({"resourceLogs": [{"resource": {"attributes": attributes(&json!({"service.name": "coder"}))},
        "scopeLogs": [{"logRecords": [{"timeUnixNano": "1771324200250000001", "observedTimeUnixNano": 1_771_324_200_250_000_002_u64,
            "severityNumber": "SEVERITY_NUMBER_UNSPECIFIED", "body": any_json(&json!({"said": ["codex.tool_decision"]})),
            "attributes": attributes(&json!({"event.name": "codex.tool_decision"}))}]}]}]});
    assert_eq!(server.send(LOGS, &json).await.json(), json!({}));
    assert_eq!(server.list("limit=100").await.len(), cases.len() + 1);
    server.stop().await.unwrap();
}

/// Stores a span, and returns its event.
async fn store_span(server: &TestServer, number: u64) -> Value {
    assert_eq!(protobuf(server, TRACES, export("coder", [span(number, "n", &[])])).await.status, 200);
    server.list("limit=1").await.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_record_whose_id_is_taken_is_stored_once_under_another_id() {
    let (data, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let twin = || Message::default().fixed64(1, 1_771_324_200_250_000_001).bytes(12, "twin");
    let twins = || export("coder", [twin(), twin()]);
    // Another server shows which ids they get.
    let first = TestServer::start(&config(other.path())).await;
    assert_eq!(protobuf(&first, LOGS, twins()).await.status, 200);
    let ids: Vec<_> = first.list("order=asc").await.iter().map(|event| event["id"].clone()).collect();
    first.stop().await.unwrap();
    let server = TestServer::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "thief", "id": ids[0]})).await;
    for _ in 0..2 {
        assert_eq!(protobuf(&server, LOGS, twins()).await.status, 200);
        assert_eq!(protobuf(&server, LOGS, export("coder", [twin()])).await.status, 200);
    }
    let chain = read_chain(&server.client, &server.url, "coder").await;
    assert_eq!(chain.len(), 2, "{chain:#?}");
    let under_other_id = chain.iter().find(|event| event["id"] != ids[1]).unwrap();
    assert!(
        under_other_id["validation_warnings"][0].as_str().unwrap().contains(ids[0].as_str().unwrap()),
        "{under_other_id}"
    );
    // If that id is taken, too, the record is rejected in the answer.
    let under_other_id = under_other_id["id"].clone();
    server.stop().await.unwrap();
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for id in [&ids[0], &under_other_id] {
        server.store(&json!({"agent_id": "thief", "id": id})).await;
    }
    let answer = protobuf(&server, LOGS, twins()).await;
    assert!(answer.status == 200 && answer.text.contains("1 log record was rejected"), "{}", answer.text);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_select_agent_only_spans_of_agents_are_stored() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.ingest.otlp.select = cairn::ingest::Select::Agent;
    config.ingest.otlp.agent_id = "nobody".to_owned();
    config.ingest.otlp.listen = Some(std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into());
    config.auth.api_keys = vec!["k3y".to_owned()];
    let server = TestServer::start(&config).await;
    let otlp = server.otlp_url.clone().unwrap();
    let keys = [
        "http.method",
        "gen_ai.system",
        "llm.model_name",
        "openinference.span.kind",
        "traceloop.span.kind",
        "ai.model.id",
        "mcp.method.name",
    ];
    let spans = keys.iter().zip(1..).map(|(key, number)| span(number, "n", &[(key, json!("x"))]));
    let body = export("unknown_service", spans);
    for (url, key, status) in
        [(&otlp, None, 401), (&otlp, Some("Bearer k3y"), 200), (&server.url, Some("Bearer k3y"), 200)]
    {
        let mut request = server.client.post(format!("{url}{TRACES}")).header("content-type", "application/x-protobuf");
        if let Some(key) = key {
            request = request.header("authorization", key);
        }
        let answer = Answer::of(request.body(body.clone()).send().await.unwrap()).await;
        assert_eq!(answer.status.as_u16(), status);
        assert_eq!(answer.headers["content-type"], "application/x-protobuf");
        // A `google.rpc.Status` with code UNAUTHENTICATED and a message.
        assert_eq!(answer.text.starts_with("\u{8}\u{10}\u{12}"), status == 401, "{:?}", answer.text);
    }
    let get = |url: String| server.client.get(url).header("authorization", "Bearer k3y").send();
    let stored: Value =
        Answer::of(get(format!("{}/v1/events?agent_id=nobody", server.url)).await.unwrap()).await.json();
    assert_eq!(stored.as_array().unwrap().len(), keys.len() - 1);
    assert_eq!(get(format!("{}{TRACES}", server.url)).await.unwrap().status(), 405);
    // The second address serves only OTLP.
    assert_eq!(get(format!("{otlp}/v1/events")).await.unwrap().status(), 404);
    assert_eq!(get(format!("{otlp}{TRACES}")).await.unwrap().status(), 405);
    let metrics = server.metrics().await;
    assert_eq!(metric(&metrics, "cairn_ingest_unselected_events_total"), Some(2.0));
    assert_eq!(metric(&metrics, "cairn_unauthorized_requests_total"), Some(1.0));
    server.stop().await.unwrap();
    config.ingest.otlp.enabled = false;
    let server = TestServer::start(&config).await;
    assert!(server.otlp_url.is_none());
    let request = server.client.post(format!("{}{TRACES}", server.url)).header("authorization", "Bearer k3y");
    assert_eq!(request.send().await.unwrap().status(), 404);
    server.stop().await.unwrap();
}
