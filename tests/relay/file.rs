//! The destination type `file`: whole events as lines of a file or of standard output, at least once and in order.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use cairn::relay::DestinationConfig;
use cairn::relay::config::DestinationType;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::relay::delivery::{start_with, status, wait_until_drained};
use crate::support::harness::{Process, eventually};

fn destination(path: &Path) -> DestinationConfig {
    let mut config = DestinationConfig { kind: DestinationType::File, ..Default::default() };
    config.name = "lines".to_owned();
    config.path = Some(path.to_owned());
    config.batch.wait = Duration::from_millis(5);
    (config.retry.initial, config.retry.max) = (Duration::from_millis(10), Duration::from_millis(50));
    config
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn events(from: usize, count: usize) -> Value {
    (from..from + count).map(|n| json!({"agent_id": format!("a{}", n % 5), "action_input": n})).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_appended_in_the_order_of_the_ledger_and_old_files_are_kept() {
    let (data, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = folder.path().join("events.jsonl");
    let mut config = destination(&path);
    config.rotate.bytes = ByteSize::kib(100);
    config.rotate.files = 20;
    let server = start_with(&data, config).await;
    for number in 0..10 {
        assert_eq!(server.send("/v1/batch", &events(number * 200, 200)).await.status, 201);
    }
    wait_until_drained(&server).await;
    let numbered = (1..=20).rev().map(|number| folder.path().join(format!("events.jsonl.{number}")));
    let files: Vec<_> = numbered.filter(|path| path.exists()).chain([path.clone()]).collect();
    let (all, count): (Vec<Value>, usize) = (files.iter().flat_map(|path| lines(path)).collect(), files.len());
    assert!(count > 4, "{count} files");
    assert!(files.iter().all(|path| path.metadata().unwrap().len() <= 100 << 10));
    assert_eq!(
        all.iter().map(|event| event["action_input"].as_u64().unwrap()).collect::<Vec<_>>(),
        (0..2000).collect::<Vec<_>>()
    );
    let id = all[7]["id"].as_str().unwrap();
    assert_eq!(all[7], server.get(&format!("/v1/events/{id}")).await.json());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_while_the_file_cannot_be_written() {
    let (data, folder) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let parent = folder.path().join("later");
    let server = start_with(&data, destination(&parent.join("events.jsonl"))).await;
    assert_eq!(server.send("/v1/batch", &events(0, 300)).await.status, 201);
    eventually("an error", async || status(&server).await["last_error"]["message"] != Value::Null).await;
    let error = status(&server).await["last_error"]["message"].as_str().unwrap().to_owned();
    assert!(error.contains("No such file"), "{error}");
    assert!(server.metrics().await.contains(r#"cairn_relay_failures_total{destination="lines",reason="write"}"#));
    std::fs::create_dir(&parent).unwrap();
    wait_until_drained(&server).await;
    assert_eq!(lines(&parent.join("events.jsonl")).len(), 300);
    server.stop().await.unwrap();
}

/// A configuration file with a destination that writes to `path`.
fn configured(folder: &Path, path: &str) -> String {
    let file = folder.join("cairn.yaml");
    let text = format!(
        "relay: {{destinations: [{{name: lines, type: file, path: '{path}', batch: {{events: 50, wait: 5ms}}}}]}}\n"
    );
    std::fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

async fn store(server: &Process, from: usize) {
    let post = reqwest::Client::new().post(format!("{}/v1/batch", server.url));
    let post = post.header("content-type", "application/json").body(events(from, 200).to_string());
    assert_eq!(post.send().await.unwrap().status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_in_the_file_although_the_server_is_killed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.jsonl");
    let config = configured(folder.path(), path.to_str().unwrap());
    for round in 0..5 {
        let mut server = Process::start(&folder.path().join("data"), &[("CAIRN_CONFIG", &config)]);
        for number in 0..10 {
            store(&server, (round * 10 + number) * 200).await;
        }
        if round == 4 {
            let inputs =
                || lines(&path).iter().map(|event| event["action_input"].as_u64().unwrap()).collect::<HashSet<_>>();
            // A line may be there in part while it is written.
            eventually("all events", async || {
                path.exists() && std::fs::read(&path).unwrap().ends_with(b"\n") && inputs().len() == 10_000
            })
            .await;
        }
        server.kill();
        // As if it was killed while it wrote.
        let mut text = std::fs::read(&path).unwrap_or_default();
        text.extend_from_slice(b"{\"agent_id\":\"a");
        std::fs::write(&path, text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_events_and_of_the_process_log_are_whole_on_standard_output() {
    let folder = TempDir::new().unwrap();
    let config = configured(folder.path(), "-");
    let environment = [("CAIRN_CONFIG", config.as_str()), ("CAIRN_LOG__LEVEL", "debug")];
    let server = Process::start(&folder.path().join("data"), &environment);
    for number in 0..20 {
        store(&server, number * 200).await;
    }
    let parsed = || server.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let relayed = || parsed().iter().filter(|line| line.get("hash").is_some()).count();
    eventually("all events", async || relayed() >= 4000).await;
    assert_eq!(relayed(), 4000);
}
