//! What a rule removes from an event is on no disk, in no log and at no upstream, whichever way the event came.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{
    Process, TestServer, cairn, config, eventually, metric, read_chain, reference_chain, run_text,
};
use crate::support::upstream::Upstream;

const SESSION: &str = "5f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11";
const ORG: &str = "00000000-0000-4000-8000-000000000001";

/// A token as GitHub issues them, put together here so that no scanner takes it for a real one.
fn secret() -> String {
    format!("ghp{}A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8", "_")
}

/// An event with the secret in every field that is examined.
fn event(id: &str) -> Value {
    let secret = secret();
    json!({
        "id": id, "agent_id": "a", "action_name": format!("push {secret}"), "error_message": secret, "labels": {"token": secret},
        "action_input": {"deep": [1, {"text": format!("{{\"token\": \"{secret}\"}}")}]}, "action_output": [secret, {secret.clone(): 1}],
        "metadata": {"k": secret}, "surplus": secret,
    })
}

fn attribute(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Requests with the secret, by every way in.
fn requests() -> Vec<(&'static str, Value)> {
    let secret = secret();
    let span = json!({"traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331", "name": format!("chat {secret}"),
        "startTimeUnixNano": "1771324200000000000", "endTimeUnixNano": "1771324200500000000",
        "attributes": [attribute("gen_ai.operation.name", "chat"), attribute("gen_ai.input.messages", &secret), attribute("x", &secret)],
        "status": {"code": 2, "message": secret},
        "events": [{"name": "exception", "attributes": [attribute("exception.message", &secret)]}]});
    let record = json!({"timeUnixNano": "1771324200000000000", "body": {"stringValue": secret}, "attributes": [attribute("y", &secret)]});
    vec![
        ("/v1/events", event("0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e60")),
        ("/v1/events?wait=checkpoint", event("0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e61")),
        ("/v1/batch", json!([event("0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e62"), {"agent_id": "b"}])),
        (
            "/v1/traces",
            json!({"resourceSpans": [{"resource": {"attributes": [attribute("host", &secret)]}, "scopeSpans": [{"spans": [span]}]}]}),
        ),
        ("/v1/logs", json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})),
        ("/api/v1/capture-session", json!({"session_id": SESSION, "user_data": {"note": secret}})),
        (
            "/api/v1/capture-event",
            json!({"session_id": SESSION, "primitive_type": "tool", "primitive_name": "t", "args": secret,
                                         "result": format!("[\"{secret}\"]"), "metadata": {"cookie": "c", "x": secret}}),
        ),
    ]
}

/// Requests whose answers, warnings and log lines quote what was sent.
fn quoted() -> Vec<(&'static str, String)> {
    let secret = secret();
    let event = |members: &str| ("/v1/events", format!("{{\"agent_id\": \"w\", {members}}}"));
    let record = |members: Value| {
        ("/v1/logs", json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [members]}]}]}).to_string())
    };
    let span =
        |members: Value| ("/v1/traces", json!({"resourceSpans": [{"scopeSpans": [{"spans": [members]}]}]}).to_string());
    vec![
        event(&format!("\"{secret}\": 1")),
        event(&format!("\"labels\": [\"{secret}\"]")),
        event(&format!("\"metadata\": {{\"{secret}\": 1, \"{secret}\": 2}}")),
        event(&format!("\"metadata\": {{\"{secret}\": 123456789012345678901234567890123}}")),
        event(&format!("\"action_output\": {{\"{secret}\": \"\\ud800\"}}")),
        event(&format!("\"timestamp\": \"{secret}\"")),
        event(&format!("\"session_id\": {{\"k\": \"{secret}\"}}")),
        ("/v1/events", format!("\"{secret}\"")),
        ("/v1/batch", format!("[\"{secret}\"]")),
        record(json!({"timeUnixNano": secret})),
        record(json!({"severityNumber": secret})),
        record(json!({"attributes": [{"key": secret, "value": {"foo": 1}}]})),
        span(json!({"kind": secret})),
        ("/v1/logs", json!({"resourceLogs": secret}).to_string()),
        ("/api/v1/capture-event", format!("[\"{secret}\"]")),
    ]
}

/// Whether a text is in a file below a directory.
fn is_in_files(directory: &Path, text: &str) -> bool {
    std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).any(|path| match path.is_dir() {
        true => is_in_files(&path, text),
        false => std::fs::read(path).unwrap().windows(text.len()).any(|window| window == text.as_bytes()),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_on_no_disk_in_no_log_and_at_no_upstream() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let url = upstream.url();
    let environment = [
        ("CAIRN_RELAY__AGNOST__ORG_ID", ORG),
        ("CAIRN_RELAY__AGNOST__ENDPOINT", url.as_str()),
        ("CAIRN_LOG__LEVEL", "debug"),
    ];
    let server = Process::start(data.path(), &environment);
    let client = reqwest::Client::new();
    let post = async |path: &str, body: &Value| {
        let request = client.post(format!("{}{path}", server.url)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for (path, body) in requests() {
        let (status, answer) = post(path, &body).await;
        assert!((200..300).contains(&status) && !answer.contains(&secret()), "{path}: {status} {answer}");
    }
    for (path, body) in quoted() {
        let request = client.post(format!("{}{path}", server.url)).header("content-type", "application/json");
        let answer = request.body(body.clone()).send().await.unwrap().text().await.unwrap();
        assert!(!answer.contains(&secret()), "{path} {body}: {answer}");
    }
    eventually("everything relayed", async || upstream.events().len() >= 6).await;
    assert!(upstream.accepted().iter().all(|request| !format!("{request:?}").contains(&secret())));
    // A repeated event is the same.
    assert_eq!(post("/v1/events", &event("0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e60")).await.0, 200);
    for (path, body) in
        requests().into_iter().filter(|(path, _)| path.starts_with("/v1/logs") || path.starts_with("/v1/traces"))
    {
        assert_eq!(post(path, &body).await.0, 200, "{path}");
    }
    let chain = read_chain(&client, &server.url, "a").await;
    reference_chain(&chain).unwrap();
    assert_eq!(chain.len(), 3);
    let warned = reqwest::get(format!("{}/v1/events?agent_id=w", server.url)).await.unwrap().text().await.unwrap();
    assert!(warned.contains("unknown fields are stored") && !warned.contains(&secret()), "{warned}");
    let all = reqwest::get(format!("{}/v1/events?limit=1000", server.url)).await.unwrap().text().await.unwrap();
    assert!(!all.contains(&secret()));
    let content = &chain[0];
    let mark = "[REDACTED:github_token]";
    assert_eq!(content["action_name"], json!(format!("push {mark}")));
    assert_eq!(content["metadata"], json!({"_unknown": {"surplus": mark}, "k": mark}));
    assert_eq!(content["redactions"], json!({"github_token": 8}));
    let metrics = reqwest::get(format!("{}/metrics", server.admin_url)).await.unwrap().text().await.unwrap();
    assert!(metric(&metrics, "cairn_redactions_total{rule=\"github_token\"}").unwrap() >= 24.0);
    assert_eq!(metric(&metrics, "cairn_redactions_total{rule=\"key\"}"), Some(1.0));
    assert!(!server.log().contains(&secret()));
    drop(server);
    // The first copy of a text in a block is not compressed.
    assert!(is_in_files(data.path(), "[REDACTED:github_token]"), "the search finds what is there");
    assert!(!is_in_files(data.path(), &secret()));
    let (code, output, _) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_presets_events_are_stored_as_they_were_sent() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.redaction.presets = Vec::new();
    let server = TestServer::start(&config).await;
    let stored = server.store(&event("0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e60")).await;
    assert_eq!((&stored["error_message"], stored.get("redactions")), (&json!(secret()), None));
    // A client cannot claim that something was redacted.
    let claimed = server.store(&json!({"agent_id": "a", "redactions": {"email": 1}})).await;
    assert_eq!(claimed.get("redactions"), None);
    assert_eq!(claimed["validation_warnings"], json!(["redactions is set by the server: the value sent is ignored"]));
    server.stop().await.unwrap();
}

#[test]
fn the_command_shows_what_the_rules_of_a_configuration_do() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("cairn.yaml"), "auth: {api_keys_file: /nowhere}\nredaction: {presets: [secrets, email]}\n")
        .unwrap();
    let run = |text: &str| {
        std::fs::write(path("in"), text).unwrap();
        let output = cairn().args(["redact", "--test", &path("in"), "--config", &path("cairn.yaml")]).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let lines = format!(
        "{{\"agent_id\": \"x@y.org\", \"action_name\": \"x@y.org\"}}\n\n{}\n",
        json!({"agent_id": "a", "more": secret()})
    );
    let expected = "{\"action_name\":\"[REDACTED:email]\",\"agent_id\":\"x@y.org\"}\n{\"agent_id\":\"a\",\"more\":\"[REDACTED:github_token]\"}\n";
    let summary = "cairn: 2 events, 2 with redactions: email 1, github_token 1\n";
    assert_eq!(run(&lines), (Some(0), expected.to_owned(), summary.to_owned()));
    let array = format!("[{}]", lines.trim().replace("\n\n", ","));
    assert_eq!(run(&array), (Some(0), expected.to_owned(), summary.to_owned()));
    let text = format!("token {}\n", secret());
    let expected =
        ("token [REDACTED:github_token]\n".to_owned(), "cairn: a text, no events: github_token 1\n".to_owned());
    assert_eq!(run(&text), (Some(0), expected.0, expected.1));
    assert_eq!(run("nothing").2, "cairn: a text, no events: nothing found\n");
    std::fs::write(path("cairn.yaml"), "redaction:\n  rules:\n    - {name: a, pattern: '('}\n").unwrap();
    let (code, _, error) = run("x");
    assert!(
        code == Some(2) && error.contains("redaction.rules[0].pattern: expected a regular expression, found \"(\""),
        "{error}"
    );
    let (code, _, error) = run_text(&["config", "validate", "--config", &path("cairn.yaml")]);
    assert!(code == 2 && error.contains("redaction.rules[0].pattern"), "{error}");
}
