//! The calls and commands of erasure and of holds.

use cairn::config::Config;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::erasure::recorder;
use crate::support::harness::{Answer, TestServer, cairn, eventually_within};

/// A key with all scopes.
pub const KEY: &str = "eraser-key";

/// A client that sends this key with every request.
pub fn client_with_key(key: &str) -> reqwest::Client {
    let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
    let headers = HeaderMap::from_iter([(AUTHORIZATION, value)]);
    reqwest::Client::builder().default_headers(headers).build().unwrap()
}

/// A configuration with a key that may erase.
pub fn config(data: &TempDir) -> Config {
    let mut config = recorder::config(&data.path().join("ledger"));
    config.auth.api_keys = vec![format!("{KEY} ingest,read,erase")];
    config
}

/// Starts a server whose client may erase.
pub async fn start(config: &Config) -> TestServer {
    let mut server = TestServer::start(config).await;
    server.client = client_with_key(KEY);
    server
}

/// Erases events, and asserts that this was completed. Returns the number of events.
pub async fn erase(server: &TestServer, selection: Value) -> u64 {
    let mut body = selection;
    body["reason"] = json!("a test");
    let answer = server.send("/v1/erasures", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.json()["completed"], true, "{}", answer.text);
    answer.json()["events"].as_u64().unwrap()
}

async fn delete(server: &TestServer, path: &str) -> Answer {
    Answer::of(server.client.delete(format!("{}{path}", server.url)).send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_event_leaves_a_stub() {
    let data = TempDir::new().unwrap();
    let server = start(&config(&data)).await;
    let event = json!({"agent_id": "a", "id": "0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f", "action_output": "secret", "session_id": "s"});
    let stored = server.store(&event).await;
    server.store(&json!({"agent_id": "a", "action_output": "stays"})).await;
    let id = stored["id"].as_str().unwrap();
    let dry = server.send("/v1/erasures", &json!({"id": id, "dry_run": true})).await;
    assert_eq!(dry.json(), json!({"events": 1, "held": 0, "already_erased": 0, "dry_run": true}));
    assert_eq!(server.get(&format!("/v1/events/{id}")).await.status, 200, "a dry run erases nothing");
    assert_eq!(erase(&server, json!({"session_id": "s"})).await, 1);

    let stub = server.get(&format!("/v1/events/{id}")).await;
    assert_eq!(stub.status, 410, "{}", stub.text);
    let stub = stub.json();
    let record = recorder::recorded(&server).await.into_iter().find(|event| event["action_name"] == "recorder.erasure");
    let record = record.unwrap();
    let erased = json!({"at": record["received_at"], "recorder": record["agent_id"], "sequence": record["sequence"]});
    let mut expected = json!({"erased": erased});
    for name in ["id", "agent_id", "sequence", "prev_hash", "hash", "received_at"] {
        expected[name] = stored[name].clone();
    }
    assert_eq!(stub, expected);
    assert_eq!(record["action_input"]["selected_by"], json!(["session_id"]));
    let digest: [u8; 32] = sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(KEY)).into();
    assert_eq!(record["action_input"]["key"], json!(cairn_proof::hex::encode(&digest[..4])));
    assert_eq!(record["action_output"], json!({"agents": {"a": [[1, 1]]}, "events": 1}));

    let chain = server.list("agent_id=a&order=asc").await;
    assert_eq!((&chain[0], chain[1]["action_output"].as_str()), (&expected, Some("stays")));
    assert!(server.list("session_id=s").await.is_empty(), "the index does not have it any more");
    let again = server.send("/v1/events", &event).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, expected), "a retry is known");
    let other = server.send("/v1/events", &json!({"agent_id": "b", "id": id})).await;
    assert_eq!(other.status, 409, "another agent's event is another event");
    assert_eq!(erase(&server, json!({"agent_id": "a"})).await, 1, "only what is left");
    let verdict = server.get("/v1/verify?agent_id=a").await.json();
    assert_eq!((&verdict["valid"], &verdict["events_verified"]), (&json!(true), &json!(2)), "{verdict}");

    let list = server.get("/v1/erasures").await.json();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(
        (&list[0]["events"], &list[0]["reason"], &list[0]["completed"]),
        (&json!(1), &json!("a test"), &json!(true))
    );
    let page = server.get("/v1/erasures?limit=1").await;
    let next = crate::support::harness::next_page(&page.headers).unwrap();
    assert_eq!(server.get(&next).await.json()[0], list[1]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_needs_its_scope_a_reason_and_a_selection() {
    let data = TempDir::new().unwrap();
    let mut config = config(&data);
    config.auth.api_keys.extend(["both".to_owned(), "only erase".to_owned()]);
    let mut server = start(&config).await;
    server.store(&json!({"agent_id": "a"})).await;
    for (body, error) in [
        (json!({"agent_id": "a"}), "reason is required"),
        (json!({"agent_id": "a", "reason": " "}), "reason"),
        (json!({"agent_id": "a", "reason": "x".repeat(2000)}), "reason"),
        (json!({"reason": "r"}), "at least one of"),
        (json!({"reason": "r", "since": "2026-02-17T10:30:00Z"}), "at least one of"),
        (json!({"reason": "r", "agent": "a"}), "unknown field `agent`"),
        (json!({"reason": "r", "agent_id": "a", "since": "yesterday"}), "RFC 3339"),
        (json!({"reason": "r", "labels": {"a": {}}}), "labels.a"),
        (json!([]), "object"),
    ] {
        let answer = server.send("/v1/erasures", &body).await;
        assert!(answer.status == 400 && answer.error().contains(error), "{body}: {}", answer.text);
    }
    assert_eq!(erase(&server, json!({"agent_id": "nobody"})).await, 0);
    let recorder = recorder::recorded(&server).await[0]["agent_id"].clone();
    assert_eq!(erase(&server, json!({"agent_id": recorder})).await, 0, "the recorder's own events stay");
    server.client = client_with_key("both");
    for path in ["/v1/erasures", "/v1/holds"] {
        assert_eq!(server.send(path, &json!({"agent_id": "a", "reason": "r"})).await.status, 403);
        assert_eq!(server.get(path).await.status, 200);
    }
    server.client = client_with_key("only");
    assert_eq!(server.get("/v1/erasures").await.status, 403);
    assert_eq!(erase(&server, json!({"agent_id": "a"})).await, 1);
    server.stop().await.unwrap();

    // Without keys nobody may erase: an agent in the same pod could otherwise erase what it did.
    config.auth.api_keys.clear();
    let server = TestServer::start(&config).await;
    let answer = server.send("/v1/erasures", &json!({"agent_id": "a", "reason": "r"})).await;
    assert!(answer.status == 401 && answer.error().contains("scope erase"), "{}", answer.text);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn held_events_stay_until_the_hold_is_lifted() {
    let data = TempDir::new().unwrap();
    let server = start(&config(&data)).await;
    for session in ["held", "free"] {
        server.store(&json!({"agent_id": "a", "session_id": session, "labels": {"user": 7}})).await;
    }
    let answer = server.send("/v1/holds", &json!({"session_id": "held", "reason": "case 1"})).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let hold = answer.json();
    let id = hold["id"].as_str().unwrap();
    assert_eq!(server.get("/v1/holds").await.json(), json!([hold]));
    // Also those that come later.
    server.store(&json!({"agent_id": "a", "session_id": "held", "labels": {"user": 7}})).await;
    let answer = server.send("/v1/erasures", &json!({"labels": {"user": 7}, "reason": "r"})).await.json();
    assert_eq!((&answer["events"], &answer["held"]), (&json!(1), &json!(2)), "{answer}");
    assert_eq!(server.list("session_id=held").await.len(), 2);

    assert_eq!(delete(&server, &format!("/v1/holds/{id}")).await.status, 400, "a reason is required");
    assert_eq!(delete(&server, "/v1/holds/0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f?reason=r").await.status, 404);
    assert_eq!(delete(&server, &format!("/v1/holds/{id}?reason=over")).await.status, 200);
    assert_eq!(server.get("/v1/holds").await.json(), json!([]));
    assert_eq!(erase(&server, json!({"labels": {"user": "7"}})).await, 2);
    let recorded = recorder::recorded(&server).await;
    let holds: Vec<&Value> = recorded.iter().filter(|event| event["action_name"] == "recorder.hold").collect();
    let inputs: Vec<&Value> = holds.iter().map(|event| &event["action_input"]).collect();
    assert_eq!(inputs.iter().map(|input| &input["change"]).collect::<Vec<_>>(), ["added", "lifted"]);
    assert_eq!((&inputs[0]["reason"], &inputs[1]["reason"]), (&json!("case 1"), &json!("over")));
    assert!(!recorded.iter().any(|event| event.to_string().contains("held\"")), "conditions are recorded by name only");
    server.stop().await.unwrap();
    let data_dir = data.path().join("ledger");
    let (status, out, _) =
        crate::support::harness::run_text(&["verify", "--all", "--data-dir", data_dir.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_erase_list_hold_and_replay() {
    let data = TempDir::new().unwrap();
    let server = start(&config(&data)).await;
    let key = data.path().join("key");
    std::fs::write(&key, KEY).unwrap();
    let run = |arguments: &[&str]| {
        let mut command = cairn();
        command.args(arguments).args(["--server", &server.url, "--api-key-file", key.to_str().unwrap()]);
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
    };
    for n in 0..4 {
        server.store(&json!({"agent_id": "a", "session_id": format!("s{}", n % 2), "labels": {"n": n}})).await;
    }
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| run(arguments));
    assert_eq!(run(&["erase", "--reason", "r"]).0, 2, "a selection is required");
    assert_eq!(run(&["erase", "--session", "s0"]).0, 2, "a reason is required");
    let (status, out, _) = run(&["erase", "--session", "s0", "--dry-run"]);
    assert_eq!((status, out.trim()), (0, "2 events would be erased"));
    let (_, out, errors) = run(&["hold", "add", "--label", "n=0", "--reason", "case"]);
    assert!(out.contains("added"), "{out}{errors}");
    let (_, out, _) = run(&["hold", "list"]);
    assert!(out.contains("case") && out.contains(r#"{"labels":{"n":"0"}}"#), "{out}");
    let (status, out, _) = run(&["erase", "--session", "s0", "--reason", "r"]);
    assert_eq!((status, out.trim()), (0, "1 event erased, 1 kept by a hold"));
    assert!(run(&["hold", "lift", "--label", "n=1", "--reason", "r"]).2.contains("no hold with these conditions"));
    let (_, out, _) = run(&["hold", "lift", "--label", "n=0", "--reason", "over"]);
    assert!(out.contains("lifted"), "{out}");
    let (_, out, _) = run(&["erase", "--list"]);
    assert!(out.contains("1 event  key ") && out.trim_end().ends_with('r'), "{out}");
    let (_, list, _) = run(&["erase", "--list", "--json"]);

    // A ledger from before the erasure, with another event in the place of one that the backup does not have.
    let other = TempDir::new().unwrap();
    let mut erasures: Value = serde_json::from_str(&list).unwrap();
    erasures[0]["agents"]["a"] = json!([[3, 9]]);
    let restored = start(&config(&other)).await;
    for n in 0..3 {
        restored.store(&json!({"agent_id": "a", "action_output": n})).await;
    }
    erasures[0]["at"] = json!("2099-01-01T00:00:00.000Z");
    let file = data.path().join("erasures.json");
    std::fs::write(&file, erasures.to_string()).unwrap();
    let replay = |file: &std::path::Path| {
        let mut command = cairn();
        command
            .args(["erase", "--replay", file.to_str().unwrap(), "--server", &restored.url, "--api-key-file"])
            .arg(&key);
        tokio::task::block_in_place(|| String::from_utf8(command.output().unwrap().stdout).unwrap())
    };
    assert_eq!(replay(&file).trim(), "1 event of 1 erasure erased");
    assert_eq!(restored.list("agent_id=a&order=desc&limit=1").await[0]["sequence"], 3);
    // Ranges in any order, which overlap or lead beyond the end.
    let selection = json!({"agents": {"a": [[2, 9], [1, 1], [1, 2], [5, 3], [0, 0], [2, u64::MAX]]}});
    assert_eq!(erase(&restored, selection).await, 2);
    assert_eq!(restored.get("/v1/verify?agent_id=a").await.json()["valid"], true);
    restored.store(&json!({"agent_id": "a"})).await;
    // What was received after the erasure is not what was erased.
    erasures[0]["at"] = json!("2001-01-01T00:00:00.000Z");
    erasures[0]["agents"]["a"] = json!([[4, 4]]);
    std::fs::write(&file, erasures.to_string()).unwrap();
    assert_eq!(replay(&file).trim(), "0 events of 1 erasure erased");
    restored.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn content_is_erased_by_its_age_unless_it_is_held() {
    let data = TempDir::new().unwrap();
    let mut config = config(&data);
    config.retention.content = std::time::Duration::from_secs(2);
    config.shards = 2;
    let server = start(&config).await;
    let hold = server.send("/v1/holds", &json!({"session_id": "held", "reason": "case"})).await;
    assert_eq!(hold.status, 201);
    for n in 0..20 {
        let session = if n % 5 == 0 { "held" } else { "free" };
        server.store(&json!({"agent_id": format!("a{}", n % 3), "session_id": session, "action_output": n})).await;
    }
    assert_eq!(server.list("session_id=free").await.len(), 16, "it is too young");
    eventually_within(std::time::Duration::from_secs(150), "erased", async || {
        server.list("session_id=free").await.is_empty()
    })
    .await;
    assert_eq!(server.list("session_id=held").await.len(), 4);
    let records = server.get("/v1/erasures").await.json();
    let sum: u64 = records.as_array().unwrap().iter().map(|record| record["events"].as_u64().unwrap()).sum();
    assert_eq!(sum, 16, "{records}");
    assert_eq!((&records[0]["reason"], &records[0]["key"]), (&json!("retention.content: 2s"), &Value::Null));
    for agent in ["a0", "a1", "a2"] {
        assert_eq!(server.get(&format!("/v1/verify?agent_id={agent}")).await.json()["valid"], true);
    }
    server.stop().await.unwrap();
}
