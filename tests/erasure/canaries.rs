//! No byte of an erased event remains in any file of the data directory, whichever way the event came and whatever was derived from
//! it.

use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::erasure::requests::{KEY, client_with_key, config, erase};
use crate::relay::delivery::{destination, status};
use crate::support::harness::{Process, TestServer, eventually};
use crate::support::upstream::{EVENT, Reply, Upstream};

/// A text that occurs nowhere else.
pub fn canary() -> String {
    format!("canary{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..))
}

/// The files that contain the text: those in the directory, and those that were deleted and are still open in this process and in
/// `processes`.
pub fn files_with(directory: &Path, text: &str, processes: &[u32]) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if contains(&std::fs::read(&path).unwrap_or_default(), text) {
                found.push(path.display().to_string());
            }
        }
    }
    for process in processes.iter().copied().chain([std::process::id()]) {
        for entry in std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten() {
            let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
            if !target.starts_with(directory.to_str().unwrap()) || !target.ends_with("(deleted)") {
                continue;
            }
            let Ok(file) = std::fs::File::open(entry.path()) else { continue };
            let mut bytes = vec![0; file.metadata().map_or(0, |metadata| metadata.len()) as usize];
            if file.read_exact_at(&mut bytes, 0).is_ok() && contains(&bytes, text) {
                found.push(target);
            }
        }
    }
    found
}

fn contains(bytes: &[u8], text: &str) -> bool {
    memchr::memmem::find(bytes, text.as_bytes()).is_some()
}

/// An event with the canary in every field that a client sets.
fn everywhere(canary: &str) -> Value {
    json!({
        "agent_id": "a", "session_id": format!("{canary}-1"), "source": format!("{canary}-2"),
        "action_type": format!("{canary}-3"), "action_name": format!("{canary}-4"),
        "action_input": {format!("{canary}-5"): [{"deep": format!("{canary}-6")}]}, "action_output": format!("{canary}-7"),
        "action_status": format!("{canary}-8"), "error_message": format!("{canary}-9"),
        "labels": {"user": format!("{canary}-10"), format!("{canary}-11"): 1}, "metadata": {"m": format!("{canary}-12")},
        "unknown": format!("{canary}-13"), "hash": format!("{canary}-14"),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn erased_events_leave_no_byte_whichever_selector_erases_them() {
    let data = TempDir::new().unwrap();
    let server = crate::erasure::requests::start(&config(&data)).await;
    let ledger = data.path().join("ledger");
    for selector in ["id", "session_id", "agent_id", "labels", "since"] {
        let canary = canary();
        let stored = server.store(&everywhere(&canary)).await;
        server.store(&json!({"agent_id": "b", "action_output": "stays"})).await;
        assert!(!files_with(&ledger, &canary, &[]).is_empty(), "the search finds what is there");
        let selection = match selector {
            "id" => json!({"id": stored["id"]}),
            "session_id" => json!({"session_id": stored["session_id"]}),
            "labels" => json!({"labels": {"user": stored["labels"]["user"]}}),
            "since" => json!({"agent_id": "a", "since": stored["received_at"]}),
            _ => json!({"agent_id": "a"}),
        };
        assert_eq!(erase(&server, selection).await, 1, "{selector}");
        assert_eq!(files_with(&ledger, &canary, &[]), Vec::<String>::new(), "{selector}");
        let salt = stored["salt"].as_str().unwrap();
        assert_eq!(files_with(&ledger, salt, &[]), Vec::<String>::new(), "{selector}: the salt");
    }
    assert_eq!(server.list("agent_id=b").await.len(), 5);
    server.stop().await.unwrap();
    let (status, out, _) =
        crate::support::harness::run_text(&["verify", "--all", "--data-dir", ledger.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_in_and_every_place_behind_it_is_erased() {
    let data = TempDir::new().unwrap();
    let canary = canary();
    // It quotes what it refuses.
    let upstream = Upstream::start_with(|path, body| match (path, body["args"].as_str()) {
        (EVENT, Some(args)) if args.contains("refused") => Reply::Status(422, None),
        (EVENT, Some(args)) if args.contains("waits") => Reply::Status(503, Some("60".to_owned())),
        _ => Reply::Accept,
    })
    .await;
    upstream.state.accepts_anything.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut config = config(&data);
    config.relay.agnost = Some(destination(&upstream));
    config.shards = 3;
    let server = crate::erasure::requests::start(&config).await;
    let ledger = data.path().join("ledger");

    let text = |what: &str| format!("{canary} {what}");
    server.store(&json!({"agent_id": "a", "session_id": "1", "action_input": text("refused")})).await;
    server.store(&json!({"agent_id": "a", "session_id": "2", "action_input": text("waits")})).await;
    let batch: Vec<Value> = (0..500)
        .map(|n| json!({"agent_id": format!("agent-{n}"), "metadata": {"n": n}, "action_output": text("batch")}))
        .collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    let span = json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": text("span"),
        "attributes": [{"key": "gen_ai.prompt", "value": {"stringValue": text("attribute")}}]});
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "otlp-agent"}}]});
    let export = json!({"resourceSpans": [{"resource": resource.clone(), "scopeSpans": [{"spans": [span]}]}]});
    assert_eq!(server.send("/v1/traces", &export).await.status, 200);
    let record = json!({"body": {"stringValue": text("log")}, "timeUnixNano": "1771324200250000000"});
    let logs = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]});
    assert_eq!(server.send("/v1/logs", &logs).await.status, 200);
    let session = json!({"session_id": "5b8efff7-9803-8103-d269-b633813fc60c", "user_data": {"user_id": text("user")}});
    let org = [("x-org-id", "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11")];
    let post = async |path: &str, body: &Value| {
        let request = server.post(path, body.to_string()).header(org[0].0, org[0].1);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(post("/api/v1/capture-session", &session).await, 200);
    eventually("a dead letter", async || status(&server).await["dead_letters"] == 1).await;
    assert!(!files_with(&ledger, &canary, &[]).is_empty());

    let agents = server.get("/v1/agents?limit=1000").await.json();
    let ids = agents.as_array().unwrap().iter().filter_map(|agent| agent["agent_id"].as_str());
    let mut erased = 0;
    let agents: serde_json::Map<String, Value> =
        ids.filter(|id| !id.starts_with("cairn/")).map(|id| (id.to_owned(), json!([[1, 1_000_000]]))).collect();
    erased += erase(&server, json!({"agents": agents})).await;
    assert_eq!(erased, 2 + 500 + 2 + 1);
    assert_eq!(files_with(&ledger, &canary, &[]), Vec::<String>::new());
    eventually("no dead letter and no backlog", async || {
        let status = status(&server).await;
        status["dead_letters"] == 0
    })
    .await;
    server.stop().await.unwrap();
    let (status, out, _) =
        crate::support::harness::run_text(&["verify", "--all", "--data-dir", ledger.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_that_was_deleted_has_no_byte_either() {
    let data = TempDir::new().unwrap();
    let ledger = data.path().join("ledger");
    let keys = format!("[\"{KEY} ingest,read,erase\"]");
    let mut process = Process::start(&ledger, &[("CAIRN_AUTH__API_KEYS", &keys), ("CAIRN_RECORDER__ENABLED", "true")]);
    let client = client_with_key(KEY);
    let canary = canary();
    let send = async |path: &str, body: Value| {
        let request = client.post(format!("{}{path}", process.url)).header("content-type", "application/json");
        request.body(body.to_string()).send().await.unwrap()
    };
    for n in 0..30 {
        let batch: Vec<Value> = (0..200)
            .map(|m| json!({"agent_id": "a", "session_id": format!("s{}", m % 7), "action_output": format!("{canary} {n} {m}")}))
            .collect();
        assert_eq!(send("/v1/batch", batch.into()).await.status(), 201);
    }
    let pid = process.child.id();
    assert!(!files_with(&ledger, &canary, &[pid]).is_empty());
    let answer = send("/v1/erasures", json!({"agent_id": "a", "reason": "r"})).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(files_with(&ledger, &canary, &[pid]), Vec::<String>::new());
    process.kill();
    assert_eq!(files_with(&ledger, &canary, &[]), Vec::<String>::new());
    let server = TestServer::start(&{
        let mut config = crate::erasure::recorder::config(&ledger);
        config.auth.api_keys.clear();
        config
    })
    .await;
    assert_eq!(server.get("/v1/verify?agent_id=a").await.json()["events_verified"], 6000);
    server.stop().await.unwrap();
}
