//! Keys of the log that are added, and logs that are begun anew.

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Running, run_text};
use crate::log::{fill, is_stopped, often, open, signed, verifier_keys};

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
    let mut named = crate::harness::config(data.path());
    named.log.origin = Some(new.origin.clone());
    let environment = [("CAIRN_LOG__ORIGIN", new.origin.as_str())];
    let output = crate::harness::cairn().args(["key", "new-log", "--data-dir", data_dir]).envs(environment).output();
    assert_eq!(output.unwrap().status.code(), Some(3));
    let server = Running::start(&named).await;
    signed(&server, 302).await;
    server.stop().await.unwrap();
}
