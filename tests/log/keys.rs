//! Keys of the log that are added, logs that are begun anew, and receipts.

use serde_json::json;
use tempfile::TempDir;

use crate::log::checkpoints::{fill, is_stopped, often, open, signed, verifier_keys};
use crate::log::merkle::{Node, leaf_hash, node, root_of_inclusion};
use crate::support::harness::{Running, run_text};

#[tokio::test(flavor = "multi_thread")]
async fn with_a_new_key_checkpoints_bear_both_signatures_until_the_old_one_is_retired() {
    let data = TempDir::new().unwrap();
    let data_dir = data.path().to_str().unwrap();
    assert_eq!(run_text(&["key", "show", "--data-dir", data_dir]).0, 3, "there is none yet");
    let start = || async { Running::start(&often(data.path())).await };
    let server = start().await;
    fill(&server, 5).await;
    signed(&server, 5).await;
    let (code, said, _) = run_text(&["key", "rotate", "--data-dir", data_dir]);
    assert_eq!(code, 0);
    server.stop().await.unwrap();
    let keys = verifier_keys(data.path());
    assert!(keys.len() == 2 && said.starts_with(&keys[1]), "{said}");
    let server = start().await;
    fill(&server, 5).await;
    signed(&server, 10).await;
    let note = server.get("/log/checkpoint").await.text;
    assert_eq!(open(&note, &keys[0]), open(&note, &keys[1]), "whoever knows one of them can check");
    server.stop().await.unwrap();
    let file = data.path().join("log.key");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.lines().nth(1).unwrap()).unwrap();
    let server = start().await;
    fill(&server, 5).await;
    signed(&server, 15).await;
    let note = server.get("/log/checkpoint").await.text;
    assert_eq!((open(&note, &keys[1]).size, note.lines().filter(|line| line.starts_with('—')).count()), (15, 1));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_is_the_only_way_on_and_says_that_it_is_another_one() {
    let data = TempDir::new().unwrap();
    let data_dir = data.path().to_str().unwrap();
    let config = often(data.path());
    let server = Running::start(&config).await;
    fill(&server, 300).await;
    signed(&server, 300).await;
    let old = open(&server.get("/log/checkpoint").await.text, &verifier_keys(data.path())[0]);
    assert_eq!(run_text(&["key", "new-log", "--data-dir", data_dir]).0, 3, "not while a server runs");
    server.stop().await.unwrap();
    std::fs::remove_file(data.path().join("log.key")).unwrap();
    is_stopped(&config, "cairn key new-log").await;
    let (code, said, err) = run_text(&["key", "new-log", "--data-dir", data_dir]);
    assert!(code == 0 && said.contains("begins the log cairn/"), "{said}{err}");
    let server = Running::start(&config).await;
    signed(&server, 301).await;
    let new = open(&server.get("/log/checkpoint").await.text, &verifier_keys(data.path())[0]);
    assert!(new.origin != old.origin && said.contains(&new.origin));
    server.store(&json!({"agent_id": "a"})).await;
    signed(&server, 302).await;
    server.stop().await.unwrap();
    let (code, said, _) = run_text(&["verify", "--all", "--data-dir", data_dir]);
    assert!(code == 0 && said.contains("log: 302 events, 1 checkpoints verified: valid"), "{said}");
    let kept = std::fs::read_dir(data.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("log.checkpoint.old-"));
    assert_eq!(kept.count(), 1, "the old one is kept");
    // A name that was chosen has to be changed first.
    let mut named = crate::support::harness::config(data.path());
    named.log.origin = Some(new.origin.clone());
    let environment = [("CAIRN_LOG__ORIGIN", new.origin.as_str())];
    let output =
        crate::support::harness::cairn().args(["key", "new-log", "--data-dir", data_dir]).envs(environment).output();
    assert_eq!(output.unwrap().status.code(), Some(3));
    let server = Running::start(&named).await;
    signed(&server, 302).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_waits_for_its_checkpoint_if_it_is_asked_to() {
    let data = TempDir::new().unwrap();
    let server = Running::start(&often(data.path())).await;
    let check = |event: &serde_json::Value| {
        let receipt = &event["receipt"];
        let note = receipt["checkpoint"].as_str().unwrap_or_else(|| panic!("no receipt in {event}"));
        let head = open(note, &verifier_keys(data.path())[0]);
        let leaf = json!({"agent_id": event["agent_id"], "hash": event["hash"], "sequence": event["sequence"]});
        let leaf = leaf_hash(leaf.to_string().as_bytes());
        assert_eq!(node(receipt["leaf_hash"].as_str().unwrap()), leaf);
        let siblings = receipt["siblings"].as_array().unwrap();
        let siblings: Vec<Node> = siblings.iter().map(|hash| node(hash.as_str().unwrap())).collect();
        let (index, size) = (receipt["leaf_index"].as_u64().unwrap(), receipt["tree_size"].as_u64().unwrap());
        assert_eq!((root_of_inclusion(leaf, index, size, &siblings), size), (Some(head.root), head.size));
    };
    let event =
        json!({"agent_id": "a", "id": "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11", "metadata": {"event": {"id": "x"}}});
    for status in [201, 200] {
        let answer = server.send("/v1/events?wait=checkpoint", &event).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        check(&answer.json());
    }
    let batch = json!([{"agent_id": "b"}, {"odd": 1}, {"agent_id": "c", "odd": "}]"}]);
    let answer = server.send("/v1/batch?wait=checkpoint", &batch).await;
    let entries = answer.json();
    assert_eq!((answer.status.as_u16(), &entries[1]["retryable"]), (207, &json!(false)));
    check(&entries[0]["event"]);
    check(&entries[2]["event"]);
    assert_eq!(entries[2]["event"]["validation_warnings"].as_array().unwrap().len(), 1);
    assert_eq!(server.send("/v1/batch?wait=checkpoint", &json!([])).await.text, "[]");
    assert_eq!(server.send("/v1/events?wait=checkpoint", &json!({})).await.status, 400);
    assert_eq!(server.send("/v1/events?wait=for-ever", &event).await.status, 400);
    assert_eq!(server.send("/v1/events?wiat=checkpoint", &event).await.status, 400);
    server.stop().await.unwrap();
    std::fs::remove_file(data.path().join("log.key")).unwrap();
    let server = Running::start(&often(data.path())).await;
    let answer = server.send("/v1/events?wait=checkpoint", &json!({"agent_id": "a"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["receipt"]), (201, &json!(null)));
    assert!(answer.text.contains(r#","receipt":null}"#));
    server.stop().await.unwrap();
}
