//! A server that is killed, or loses power, while it drops events: what was recorded is completed, or nothing of it was done, and
//! nothing that is younger is lost.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::durability::disk::{Call, Disk, TRACE, read_trace};
use crate::retention::dropping::{PATIENCE, client, verify_all};
use crate::support::harness::{Process, cairn, eventually, eventually_within};

/// Events of this age are dropped.
const MAX_AGE: Duration = Duration::from_secs(1);

fn server(command: std::process::Command, ledger: &Path) -> Process {
    let environment = [
        ("CAIRN_RETENTION__EVENTS__MAX_AGE", "1s"),
        ("CAIRN_LOG__CHECKPOINT_INTERVAL", "20ms"),
        ("CAIRN_SHARDS", "2"),
        ("CAIRN_STORAGE__MEMORY_BYTES", "8MiB"),
    ];
    Process::start_as(command, ledger, &environment)
}

async fn get(url: &str, path: &str) -> Value {
    let answer = client().get(format!("{url}{path}")).send().await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

/// Sends batches of 100 events until the server is gone. Returns the ids of the acknowledged ones, and when they were.
async fn send(url: String) -> Vec<(std::time::Instant, String)> {
    let (client, mut stored) = (client(), Vec::new());
    for n in 0.. {
        let batch: Vec<Value> = (0..100)
            .map(|m| json!({"agent_id": format!("a{}", m % 5), "action_output": n * m, "id": uuid::Uuid::new_v4().to_string()}))
            .collect();
        let body = json!(batch).to_string();
        let request = client.post(format!("{url}/v1/batch")).header("content-type", "application/json").body(body);
        let Ok(answer) = request.send().await else { break };
        assert_eq!(answer.status(), 201);
        let now = std::time::Instant::now();
        stored.extend(batch.into_iter().map(|event| (now, event["id"].as_str().unwrap().to_owned())));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_survives_a_kill_at_any_moment() {
    // `make soak` sets 100.
    let kills: usize = std::env::var("TEST_RETENTION_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let data = TempDir::new().unwrap();
    let mut process = server(cairn(), data.path());
    let (mut before, mut rose) = (0, 0);
    for _ in 0..kills {
        let sender = tokio::spawn(send(process.url.clone()));
        // The pause is the subject: it chooses the moment of the kill.
        tokio::time::sleep(Duration::from_micros(random.u64(700_000..2_200_000))).await;
        process.kill();
        let killed = std::time::Instant::now();
        let stored = sender.await.unwrap();
        let (status, out) = verify_all(data.path(), None);
        assert_eq!(status, 0, "as the kill left it: {out}");
        process = server(cairn(), data.path());
        for (at, id) in stored.iter().rev().step_by(37) {
            if killed.elapsed() + (killed - *at) >= MAX_AGE {
                break;
            }
            let answer = client().get(format!("{}/v1/events/{id}", process.url)).send().await.unwrap();
            // It may have become old meanwhile.
            assert!(answer.status() == 200 || killed.elapsed() + (killed - *at) >= MAX_AGE, "{id} is lost");
        }
        let dropped = get(&process.url, "/v1/stats").await["events_dropped"].as_u64().unwrap();
        assert!(dropped >= before, "{dropped} after {before}");
        rose += usize::from(dropped > before);
        before = dropped;
    }
    assert!(rose > 0, "nothing was dropped");
    process.kill();
    let (status, out) = verify_all(data.path(), None);
    assert_eq!(status, 0, "{out}");
    println!("{kills} kills, {before} events dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drop_survives_a_loss_of_power_at_any_moment() {
    let moments = std::env::var("TEST_POWER_LOSSES").map_or(12, |moments| moments.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let data = TempDir::new().unwrap();
    let mut disk = Disk::of(data.path());
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut strace = std::process::Command::new("strace");
    strace.args(TRACE).arg(file.path()).arg(cairn().get_program());
    let mut process = server(strace, data.path());
    let batch: Vec<Value> = (0..600).map(|n| json!({"agent_id": format!("a{}", n % 5), "action_output": n})).collect();
    let request = client().post(format!("{}/v1/batch", process.url)).header("content-type", "application/json");
    assert_eq!(request.body(json!(batch).to_string()).send().await.unwrap().status(), 201);
    eventually_within(PATIENCE, "they are dropped", async || {
        get(&process.url, "/v1/stats").await["events_dropped"] == 512
    })
    .await;
    process.kill();
    let path = file.path().to_owned();
    eventually("the end of the trace", async || std::fs::read_to_string(&path).unwrap().contains("+++ killed")).await;
    let calls = read_trace(&std::fs::read_to_string(file.path()).unwrap());
    let is_stored = |call: &Call| call.sends().is_some_and(|sent| sent.starts_with(b"HTTP/1.1 201"));
    let stored = calls.iter().position(is_stored).unwrap();
    let chosen: Vec<usize> = (0..moments).map(|_| random.usize(stored..calls.len())).collect();
    for (at, call) in calls.iter().enumerate() {
        disk.apply(call);
        if !chosen.contains(&at) {
            continue;
        }
        let image = TempDir::new().unwrap();
        match random.bool() {
            true => disk.write_synced(image.path()),
            false => disk.write_torn(image.path(), &mut random),
        }
        let mut process = server(cairn(), image.path());
        // They are old by now, so it drops them, whatever of that was done.
        eventually_within(PATIENCE, "they are dropped", async || {
            get(&process.url, "/v1/stats").await["events_dropped"] == 512
        })
        .await;
        process.kill();
        let (status, out) = verify_all(image.path(), None);
        assert_eq!(status, 0, "call {at}: {out}");
    }
}
