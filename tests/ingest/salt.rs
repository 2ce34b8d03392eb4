//! Every event has a salt of its own, whichever way it came. `tests/erasure/proofs.rs` tests what it is for.

use std::collections::HashSet;
use std::path::Path;

use cairn::config::Config;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{TestServer, config, read_chain, reference_chain};

const ID: &str = "0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e6f";

fn without_salt(data_dir: &Path) -> Config {
    let mut config = config(data_dir);
    config.ledger.salt = false;
    config
}

fn log_record(text: &str) -> Value {
    json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{"timeUnixNano": "1771324200000000000", "body": {"stringValue": text}}]}]}]})
}

/// Sends an event by each way in.
async fn send_by_every_way(server: &TestServer) {
    let session = "5f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11";
    let requests = [
        ("/v1/events", json!({"agent_id": "a"})),
        ("/v1/events?wait=checkpoint", json!({"agent_id": "a"})),
        ("/v1/batch", json!([{"agent_id": "a"}, {"agent_id": "a", "id": ID}])),
        ("/v1/logs", log_record("one")),
        ("/api/v1/capture-session", json!({"session_id": session, "org_id": "o"})),
        ("/api/v1/capture-event", json!({"session_id": session, "primitive_type": "tool", "primitive_name": "t"})),
    ];
    for (path, body) in requests {
        let answer = server.send(path, &body).await;
        assert!(answer.status.is_success(), "{path}: {}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_another_salt_whichever_way_it_came() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    send_by_every_way(&server).await;
    let events = server.list("limit=100").await;
    let salts: HashSet<&str> = events.iter().map(|event| event["salt"].as_str().unwrap()).collect();
    assert_eq!((events.len(), salts.len()), (7, 7));
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    assert!(salts.iter().all(|salt| salt.len() == 22 && salt.bytes().all(is_base64url)), "{salts:?}");
    let chain = read_chain(&server.client, &server.url, "a").await;
    reference_chain(&chain).unwrap();
    // A repeated event is the stored one, with its salt.
    let stored = chain.iter().find(|event| event["id"] == json!(ID)).unwrap();
    let answer = server.send("/v1/events", &json!({"agent_id": "a", "id": ID})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()), (200, stored));
    let answer = server.send("/v1/logs", &log_record("one")).await;
    assert_eq!((answer.status.as_u16(), server.list("limit=100").await.len()), (200, 7));
    // A client cannot choose a salt.
    let chosen = server.store(&json!({"agent_id": "a", "salt": "AAAAAAAAAAAAAAAAAAAAAA"})).await;
    assert_ne!(chosen["salt"], json!("AAAAAAAAAAAAAAAAAAAAAA"));
    assert_eq!(chosen["validation_warnings"], json!(["salt is set by the server: the value sent is ignored"]));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_salts_events_have_the_fields_of_provenlog_alone_and_both_verify() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&without_salt(data.path())).await;
    send_by_every_way(&server).await;
    let events = server.list("limit=100").await;
    assert!(events.len() == 7 && events.iter().all(|event| event.get("salt").is_none()));
    server.stop().await.unwrap();
    // The setting may change: a repeated event is still the same, and the chain goes on.
    let server = TestServer::start(&config(data.path())).await;
    assert_eq!(server.send("/v1/events", &json!({"agent_id": "a", "id": ID})).await.status, 200);
    server.store(&json!({"agent_id": "a"})).await;
    let chain = read_chain(&server.client, &server.url, "a").await;
    assert!(chain.len() == 5 && chain[4].get("salt").is_some());
    reference_chain(&chain).unwrap();
    server.stop().await.unwrap();
}
