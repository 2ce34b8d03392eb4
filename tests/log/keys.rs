//! Keys of the log and their rotation, new logs, and receipts.

use std::sync::Arc;

use cairn::ledger::store::{StorageConfig, Store};
use cairn::tlog::keys::Keys;
use cairn::tlog::new_log::NewLog;
use cairn::tlog::rows::LogRows;
use serde_json::json;
use tempfile::TempDir;

use crate::log::checkpoints::{
    assert_signing_stopped, frequent_checkpoints, open_checkpoint, store_events, verifier_keys, wait_until_signed,
};
use crate::log::merkle::{Node, leaf_hash, node, root_of_inclusion};
use crate::support::harness::{TestServer, cairn, run_text};

#[tokio::test(flavor = "multi_thread")]
async fn with_a_new_key_checkpoints_have_both_signatures_until_the_old_key_is_retired() {
    let data = TempDir::new().unwrap();
    let data_dir = data.path().to_str().unwrap();
    assert_eq!(run_text(&["key", "show", "--data-dir", data_dir]).0, 3, "no key exists yet");
    let start = || async { TestServer::start(&frequent_checkpoints(data.path())).await };
    let server = start().await;
    store_events(&server, 5).await;
    wait_until_signed(&server, 5).await;
    let (code, output, _) = run_text(&["key", "rotate", "--data-dir", data_dir]);
    assert_eq!(code, 0);
    server.stop().await.unwrap();
    let keys = verifier_keys(data.path());
    assert!(keys.len() == 2 && output.starts_with(&keys[1]), "{output}");
    let remove = |key: &str| run_text(&["key", "remove", key, "--data-dir", data_dir]);
    let (code, _, error) = remove(&keys[0]);
    assert!(code == 3 && error.contains("the last checkpoint is not signed with another key"), "{error}");
    let server = start().await;
    wait_until_signed(&server, 5).await;
    let note = server.get("/log/checkpoint").await.text;
    assert_eq!(
        open_checkpoint(&note, &keys[0]),
        open_checkpoint(&note, &keys[1]),
        "without a new event, the checkpoint verifies with either key"
    );
    server.stop().await.unwrap();
    let (code, _, error) = remove("the/log+00000000+AAAA");
    assert!(code == 3 && error.contains("does not have the key the/log+00000000+AAAA"), "{error}");
    let (code, output, error) = remove(keys[0].split('+').nth(1).unwrap());
    assert!(code == 0 && output.contains(&format!("Removed {}", keys[0])), "{output}{error}");
    assert_eq!(verifier_keys(data.path()), keys[1..]);
    let (code, _, error) = remove(&keys[1]);
    assert!(code == 3 && error.contains("has no other key"), "{error}");
    let server = start().await;
    store_events(&server, 5).await;
    wait_until_signed(&server, 10).await;
    let note = server.get("/log/checkpoint").await.text;
    assert_eq!(
        (open_checkpoint(&note, &keys[1]).size, note.lines().filter(|line| line.starts_with('—')).count()),
        (10, 1)
    );
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_loss_of_its_key_only_a_new_log_with_another_origin_can_be_signed() {
    let data = TempDir::new().unwrap();
    let data_dir = data.path().to_str().unwrap();
    let config = frequent_checkpoints(data.path());
    let server = TestServer::start(&config).await;
    store_events(&server, 300).await;
    wait_until_signed(&server, 300).await;
    let old = open_checkpoint(&server.get("/log/checkpoint").await.text, &verifier_keys(data.path())[0]);
    assert_eq!(run_text(&["key", "new-log", "--data-dir", data_dir]).0, 3, "refused while a server runs");
    server.stop().await.unwrap();
    std::fs::remove_file(data.path().join("log.key")).unwrap();
    assert_signing_stopped(&config, "cairn key new-log").await;
    let (code, output, err) = run_text(&["key", "new-log", "--data-dir", data_dir]);
    assert!(code == 0 && output.contains("begins the log cairn/"), "{output}{err}");
    let server = TestServer::start(&config).await;
    wait_until_signed(&server, 301).await;
    let new = open_checkpoint(&server.get("/log/checkpoint").await.text, &verifier_keys(data.path())[0]);
    let old_file = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().path());
    let old_file = old_file.filter(|path| path.to_str().unwrap().contains("log.checkpoint.old-")).last().unwrap();
    let (code, _, error) =
        run_text(&["verify", "--all", "--data-dir", data_dir, "--checkpoint", old_file.to_str().unwrap()]);
    let expected = format!("is a checkpoint of the log {}, and this ledger has the log {}", old.origin, new.origin);
    assert!(code == 1 && error.contains(&expected), "{error}");
    assert!(new.origin != old.origin && output.contains(&new.origin));
    server.store(&json!({"agent_id": "a"})).await;
    wait_until_signed(&server, 302).await;
    server.stop().await.unwrap();
    let (code, output, _) = run_text(&["verify", "--all", "--data-dir", data_dir]);
    assert!(code == 0 && output.contains("log: 302 events, 1 checkpoint verified: valid"), "{output}");
    let kept = std::fs::read_dir(data.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().contains("log.checkpoint.old-"));
    assert_eq!(kept.count(), 1, "the old checkpoint is kept");
    // A configured origin has to be changed before a new log starts.
    let mut named = crate::support::harness::config(data.path());
    named.log.origin = Some(new.origin.clone());
    let environment = [("CAIRN_LOG__ORIGIN", new.origin.as_str())];
    let output =
        crate::support::harness::cairn().args(["key", "new-log", "--data-dir", data_dir]).envs(environment).output();
    assert_eq!(output.unwrap().status.code(), Some(3));
    let server = TestServer::start(&named).await;
    wait_until_signed(&server, 302).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_wait_checkpoint_the_answer_contains_a_receipt() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&frequent_checkpoints(data.path())).await;
    let check = |event: &serde_json::Value| {
        let receipt = &event["receipt"];
        let note = receipt["checkpoint"].as_str().unwrap_or_else(|| panic!("no receipt in {event}"));
        let head = open_checkpoint(note, &verifier_keys(data.path())[0]);
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
    let server = TestServer::start(&frequent_checkpoints(data.path())).await;
    let answer = server.send("/v1/events?wait=checkpoint", &json!({"agent_id": "a"})).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["receipt"]), (201, &json!(null)));
    assert!(answer.text.contains(r#","receipt":null}"#));
    server.stop().await.unwrap();
}

/// What a process leaves that was killed after each step of `cairn key new-log`.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_that_was_interrupted_signs_nothing_under_the_old_name() {
    for steps in 0..=NewLog::STEPS.len() {
        let data = TempDir::new().unwrap();
        let data_dir = data.path().to_str().unwrap();
        let config = frequent_checkpoints(data.path());
        let server = TestServer::start(&config).await;
        store_events(&server, 300).await;
        wait_until_signed(&server, 300).await;
        server.stop().await.unwrap();
        let old_key = verifier_keys(data.path()).remove(0);
        let old_origin = old_key.split('+').next().unwrap();
        {
            let storage = StorageConfig { data_dir: data.path().to_owned(), ..StorageConfig::default() };
            let rows = LogRows::new(Arc::new(Store::open(&storage).unwrap()));
            let new_log = NewLog::new(rows, &config.log.tree(), data.path()).unwrap();
            NewLog::STEPS.into_iter().take(steps).for_each(|step| step(&new_log).unwrap());
        }
        let is_interrupted = (1..NewLog::STEPS.len()).contains(&steps);
        if is_interrupted {
            assert_signing_stopped(&config, "cairn key new-log").await;
            assert!(steps > 1 || verifier_keys(data.path()) == [old_key.clone()], "no key was created");
            let (code, output, errors) = run_text(&["key", "new-log", "--data-dir", data_dir]);
            assert_eq!(code, 0, "{output}{errors}");
        }
        let server = TestServer::start(&config).await;
        store_events(&server, 5).await;
        wait_until_signed(&server, 305 + u64::from(is_interrupted)).await;
        server.stop().await.unwrap();
        let key = verifier_keys(data.path()).remove(0);
        assert_eq!(key.starts_with(&format!("{old_origin}+")), steps == 0, "after {steps} steps: {key}");
        assert_eq!(key == old_key, steps == 0, "after {steps} steps");
        let (code, output, _) = run_text(&["verify", "--all", "--data-dir", data_dir]);
        assert_eq!(code, 0, "{output}");
    }
}

#[test]
fn rotations_at_the_same_time_lose_no_key() {
    let data = TempDir::new().unwrap();
    let path = data.path().join("log.key");
    Keys::create(&path, "the/log").unwrap();
    // Left by a process that was killed while it rotated.
    std::fs::write(data.path().join("log.key.99-0.new"), "unfinished").unwrap();
    for round in 1..=3 {
        let rotations: Vec<_> = (0..6)
            .map(|_| {
                let mut command = cairn();
                command.args(["key", "rotate", "--data-dir", data.path().to_str().unwrap()]);
                command.stdout(std::process::Stdio::null()).spawn().unwrap()
            })
            .collect();
        for mut rotation in rotations {
            assert!(rotation.wait().unwrap().success());
        }
        assert_eq!(verifier_keys(data.path()).len(), 1 + 6 * round);
    }
    let names: Vec<_> = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["log.key"]);
    let creations: Vec<bool> = std::thread::scope(|scope| {
        let create = || Keys::create(&data.path().join("other.key"), "the/log").is_ok();
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(create)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(creations.iter().filter(|created| **created).count(), 1, "a key is created once");
}
