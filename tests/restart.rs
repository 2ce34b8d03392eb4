//! What was acknowledged survives `kill -9`, once each and unaltered, and the chains go on behind it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{Process, Running, config, reference_chain, run_text, whole_chain};

const ROUNDS: u64 = 8;
const WORKERS: u64 = 12;
const AGENTS: u64 = 5;

/// Sends events until the server is gone; returns what was acknowledged.
async fn load(url: String, round: u64, worker: u64) -> Vec<Value> {
    let client = reqwest::Client::new();
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let event = |at: u64| {
            let mut event = json!({"agent_id": format!("agent-{}", (worker + n + at) % AGENTS), "action_input": [round, worker, n, at]});
            if n % 2 == 0 {
                event["id"] = json!(format!("{round:08x}-{worker:04x}-4000-8000-{:012x}", n * 100 + at));
            }
            event
        };
        let (path, body) = match n % 3 {
            0 => ("/v1/batch", Value::from((0..10).map(event).collect::<Vec<_>>())),
            _ => ("/v1/events", event(0)),
        };
        let request = client.post(format!("{url}{path}")).header("content-type", "application/json");
        let Ok(response) = request.body(body.to_string()).send().await else { break };
        let status = response.status();
        // An answer that was cut off is none.
        let Ok(text) = response.text().await else { break };
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, 201, "{text}");
        match answer {
            Value::Array(entries) => acknowledged.extend(entries.into_iter().map(|mut entry| entry["event"].take())),
            event => acknowledged.push(event),
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_event_survives_kill_9_once_in_a_chain_without_a_gap() {
    let data = TempDir::new().unwrap();
    let mut acknowledged: HashMap<String, Value> = HashMap::new();
    for round in 0..ROUNDS {
        let mut server = Process::start(data.path(), &[]);
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| tokio::spawn(load(server.url.clone(), round, worker))).collect();
        let pause = 200 + fastrand::u64(..400);
        println!("round {round}: killed after {pause} ms");
        tokio::time::sleep(Duration::from_millis(pause)).await;
        server.kill();
        for worker in workers {
            for event in worker.await.unwrap() {
                let id = event["id"].as_str().unwrap().to_owned();
                assert!(acknowledged.insert(id, event).is_none(), "an id was given twice");
            }
        }
    }
    assert!(acknowledged.len() > 1000, "only {} events", acknowledged.len());
    let server = Process::start(data.path(), &[]);
    let client = reqwest::Client::new();
    let mut found = 0;
    for agent in 0..AGENTS {
        let chain = whole_chain(&client, &server.url, &format!("agent-{agent}")).await;
        let said = reference_chain(&chain).unwrap();
        assert!(said.starts_with(&format!("{} events", chain.len())), "{said}");
        let mut ids = std::collections::HashSet::new();
        for event in &chain {
            let id = event["id"].as_str().unwrap();
            assert!(ids.insert(id), "{id} is stored twice");
            if let Some(told) = acknowledged.get(id) {
                assert_eq!(event, told, "altered");
                found += 1;
            }
        }
    }
    assert_eq!(found, acknowledged.len(), "acknowledged events are missing");
    let (code, said, err) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{said}{err}");
}

/// How many syncs the system has finished for a traced server.
fn syncs(trace: &std::path::Path) -> usize {
    let trace = std::fs::read_to_string(trace).unwrap();
    // Also those that the tracer tells in two lines, because another thread called in between.
    trace.lines().filter(|line| line.contains("fdatasync") && line.ends_with("= 0")).count()
}

/// SIGKILL keeps what the system has in memory, so it cannot show a missing sync. The trace of system calls can.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_comes_after_the_sync_of_its_commit() {
    let folder = TempDir::new().unwrap();
    for (sync, at_least, at_most) in [("true", 10, usize::MAX), ("false", 0, 3)] {
        let trace = folder.path().join(format!("trace-{sync}"));
        let mut strace = std::process::Command::new("strace");
        // The tracer stands aside, so that the process that is started is the server.
        strace.args(["-D", "-f", "-qq", "-e", "trace=fdatasync,fsync", "-o"]).arg(&trace);
        strace.arg(crate::harness::cairn().get_program());
        let server = Process::start_as(strace, &folder.path().join(sync), &[("CAIRN_STORAGE__SYNC", sync)]);
        let client = reqwest::Client::new();
        let before = syncs(&trace);
        for sent in 1..=10 {
            let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
            assert_eq!(request.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
            assert!(sync == "false" || syncs(&trace) >= before + sent, "answered before the sync");
        }
        // Without syncs there are next to none, so the count would show if they were missing.
        let counted = syncs(&trace) - before;
        assert!((at_least..=at_most).contains(&counted), "{counted} syncs with storage.sync: {sync}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_process_in_good_order() {
    let data = TempDir::new().unwrap();
    let mut server = Process::start(data.path(), &[]);
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(request.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
    // The client keeps its connection open: that must not hold up the end.
    let pid = server.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || server.child.wait().unwrap().code());
    let code = tokio::time::timeout(Duration::from_secs(5), ended).await.expect("within 5 s").unwrap();
    assert_eq!(code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_chains_go_on_after_a_restart_and_another_number_of_shards_is_refused() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    let mut last = String::new();
    for sequence in 1..4 {
        let server = Running::start(&config).await;
        let event = server.store(&json!({"agent_id": "a"})).await;
        assert_eq!(event["sequence"], sequence);
        let received_at = event["received_at"].as_str().unwrap().to_owned();
        assert!(received_at >= last);
        last = received_at;
        server.stop().await.unwrap();
    }
    config.shards = 2;
    let Err(error) = Running::start_with(&config, |store| store).await else { panic!("it started") };
    assert!(error.to_string().contains("it was made with shards: 1"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_takes_neither_times_nor_ids_with_it() {
    let data = TempDir::new().unwrap();
    let hour_ms = 3_600_000;
    let now_ms = Arc::new(AtomicU64::new(1_800_000_000_000));
    let (mut times, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let clock = Arc::clone(&now_ms);
        let clock: cairn::ledger::Clock = Arc::new(move || clock.load(Ordering::Relaxed));
        let server = Running::start_at(&config(data.path()), |store| store, clock).await.unwrap();
        for _ in 0..3 {
            let event = server.store(&json!({"agent_id": "a"})).await;
            times.push(event["received_at"].as_str().unwrap().to_owned());
            ids.push(event["id"].as_str().unwrap().to_owned());
            now_ms.fetch_sub(hour_ms, Ordering::Relaxed);
        }
        for id in &ids {
            assert_eq!(server.get(&format!("/v1/events/{id}")).await.status, 200, "{id}");
        }
        server.stop().await.unwrap();
    }
    assert!(times.is_sorted(), "{times:?}");
    assert!(ids.is_sorted(), "{ids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_used_by_one_server_at_a_time() {
    let data = TempDir::new().unwrap();
    let _server = Process::start(data.path(), &[]);
    let data_dir = data.path().to_str().unwrap().to_owned();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data_dir];
    let second = crate::harness::cairn().args(arguments).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
    assert_eq!(second.status.code(), Some(3));
    let said = String::from_utf8_lossy(&second.stdout);
    assert!(said.contains("in use by another process"), "{said}");
}
