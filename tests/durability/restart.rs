//! Regular stops and restarts: times, the number of shards, one server per data directory; and answers come after the
//! sync.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::harness::{Process, TestServer, config};

/// The number of completed syncs in a trace.
fn syncs(trace: &std::path::Path) -> usize {
    let trace = std::fs::read_to_string(trace).unwrap();
    // Includes calls that strace writes in two lines, because another thread called in between.
    trace.lines().filter(|line| line.contains("fdatasync") && line.ends_with("= 0")).count()
}

/// After SIGKILL the page cache survives, so a kill cannot show a missing sync. A trace of system calls can.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_after_the_sync_of_its_commit() {
    let folder = TempDir::new().unwrap();
    for (sync, at_least, at_most) in [("true", 10, usize::MAX), ("false", 0, 3)] {
        let trace = folder.path().join(format!("trace-{sync}"));
        let mut strace = std::process::Command::new("strace");
        // With `-D` strace runs as a child of the server, so that the started process is the server itself.
        strace.args(["-D", "-f", "-qq", "-e", "trace=fdatasync,fsync", "-o"]).arg(&trace);
        strace.arg(crate::support::harness::cairn().get_program());
        let server = Process::start_as(strace, &folder.path().join(sync), &[("CAIRN_STORAGE__SYNC", sync)]);
        let client = reqwest::Client::new();
        let before = syncs(&trace);
        for sent in 1..=10 {
            let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
            assert_eq!(request.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
            assert!(sync == "false" || syncs(&trace) >= before + sent, "answered before the sync");
        }
        // With `sync: false` there are almost none, which shows that the count can detect missing syncs.
        let counted = syncs(&trace) - before;
        assert!((at_least..=at_most).contains(&counted), "{counted} syncs with storage.sync: {sync}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_stops_the_server_with_exit_status_0() {
    let data = TempDir::new().unwrap();
    let mut server = Process::start(data.path(), &[]);
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(request.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
    // The client keeps its connection open, which must not delay the stop.
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || server.child.wait().unwrap().code());
    let code = tokio::time::timeout(Duration::from_secs(5), ended).await.expect("within 5 s").unwrap();
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_chains_continue_after_a_restart_and_another_number_of_shards_is_refused() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    let mut last = String::new();
    for sequence in 1..4 {
        let server = TestServer::start(&config).await;
        let event = server.store(&json!({"agent_id": "a"})).await;
        assert_eq!(event["sequence"], sequence);
        let received_at = event["received_at"].as_str().unwrap().to_owned();
        assert!(received_at >= last);
        last = received_at;
        server.stop().await.unwrap();
    }
    config.shards = 2;
    let Err(error) = TestServer::start_with(&config, |store| store).await else { panic!("the server started") };
    assert!(error.to_string().contains("it was created with shards: 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_the_same_data_directory_is_refused() {
    let data = TempDir::new().unwrap();
    let _server = Process::start(data.path(), &[]);
    let data_dir = data.path().to_str().unwrap().to_owned();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data_dir];
    let second =
        crate::support::harness::cairn().args(arguments).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    let output = String::from_utf8_lossy(&second.stdout);
    assert!(output.contains("in use by another process"), "{output}");
}
