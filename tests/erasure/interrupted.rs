//! A server that is killed while it erases: an erasure that was answered is complete, one that was recorded is completed after the
//! restart, and otherwise nothing was erased.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::durability::disk::{Call, Disk, TRACE, read_trace};
use crate::erasure::canaries::{canary, files_with};
use crate::erasure::requests::{KEY, client_with_key};
use crate::support::harness::{Process, cairn, eventually, run_text};

fn server(ledger: &Path) -> Process {
    server_as(cairn(), ledger)
}

fn server_as(command: std::process::Command, ledger: &Path) -> Process {
    let keys = format!("[\"{KEY} ingest,read,erase\"]");
    let environment = [
        ("CAIRN_AUTH__API_KEYS", keys.as_str()),
        ("CAIRN_RECORDER__ENABLED", "true"),
        ("CAIRN_SHARDS", "2"),
        ("CAIRN_STORAGE__MEMORY_BYTES", "8MiB"),
    ];
    Process::start_as(command, ledger, &environment)
}

/// Waits until no erasure is pending. Returns the number of events of a session that are left.
async fn left_of(client: &reqwest::Client, process: &Process, session: &str) -> usize {
    let get = async |path: &str| {
        let answer = client.get(format!("{}{path}", process.url)).send().await.unwrap();
        serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()
    };
    eventually("completed", async || {
        let erasures = get("/v1/erasures?limit=1000").await;
        erasures.as_array().unwrap().iter().all(|erasure| erasure["completed"] == true)
    })
    .await;
    get(&format!("/v1/events?session_id={session}&limit=1000")).await.as_array().unwrap().len()
}

async fn send(client: &reqwest::Client, url: String, body: Value) -> Option<u16> {
    let request = client.post(url).header("content-type", "application/json").body(body.to_string());
    request.send().await.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_survives_a_kill_at_any_moment() {
    // `make soak` sets 100.
    let kills: usize = std::env::var("TEST_ERASURE_KILLS").map_or(8, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let data = TempDir::new().unwrap();
    let ledger = data.path().join("ledger");
    let client = client_with_key(KEY);
    let mut process = server(&ledger);
    let (mut answered, mut completed, mut untouched) = (0, 0, 0);
    for round in 0..kills {
        let (erased, kept) = (canary(), canary());
        for n in 0..10 {
            let batch: Vec<Value> = (0..100)
                .map(|m| {
                    let text = if (n + m) % 3 == 0 { &erased } else { &kept };
                    let session = if (n + m) % 3 == 0 { format!("erased-{round}") } else { "kept".to_owned() };
                    json!({"agent_id": format!("a{}", m % 5), "session_id": session, "action_output": format!("{text} {n} {m}")})
                })
                .collect();
            assert_eq!(send(&client, format!("{}/v1/batch", process.url), batch.into()).await, Some(201));
        }
        let request = json!({"session_id": format!("erased-{round}"), "reason": "r"});
        let answer = tokio::spawn({
            let (client, url) = (client.clone(), format!("{}/v1/erasures", process.url));
            async move { send(&client, url, request).await }
        });
        // The pause is the subject: it chooses the moment of the kill.
        tokio::time::sleep(Duration::from_micros(random.u64(..150_000))).await;
        process.kill();
        let is_answered = answer.await.unwrap() == Some(200);
        if is_answered {
            assert_eq!(files_with(&ledger, &erased, &[]), Vec::<String>::new(), "it was answered");
            answered += 1;
        }
        process = server(&ledger);
        let left = left_of(&client, &process, &format!("erased-{round}")).await;
        match left {
            0 => {
                assert_eq!(files_with(&ledger, &erased, &[process.child.id()]), Vec::<String>::new());
                completed += 1;
            }
            334 | 333 => untouched += 1,
            some => panic!("{some} of the events of an erasure are left"),
        }
        assert!(!is_answered || left == 0);
        assert!(!files_with(&ledger, &kept, &[]).is_empty());
        process.kill();
        let (status, out, errors) = run_text(&["verify", "--all", "--data-dir", ledger.to_str().unwrap()]);
        assert_eq!(status, 0, "{out}{errors}");
        process = server(&ledger);
    }
    println!("{kills} kills: {answered} answered, {completed} complete after the restart, {untouched} not begun");
}

/// The system calls of a server that stores 60 events, erases 20 of them and is killed, and the index of the call that answers the
/// erasure.
async fn trace_of_erasure(ledger: &Path, erased: &str) -> (Vec<Call>, usize) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut strace = std::process::Command::new("strace");
    strace.args(TRACE).arg(file.path()).arg(cairn().get_program());
    let (mut process, client) = (server_as(strace, ledger), client_with_key(KEY));
    let batch: Vec<Value> = (0..60)
        .map(|n| {
            let is_erased = n % 3 == 0;
            let (session, text) = if is_erased { ("erased", erased) } else { ("kept", "stays") };
            json!({"agent_id": format!("a{}", n % 5), "session_id": session, "action_output": format!("{text} {n}")})
        })
        .collect();
    assert_eq!(send(&client, format!("{}/v1/batch", process.url), batch.into()).await, Some(201));
    let request = json!({"session_id": "erased", "reason": "r"});
    assert_eq!(send(&client, format!("{}/v1/erasures", process.url), request).await, Some(200));
    process.kill();
    let path = file.path().to_owned();
    eventually("the end of the trace", async || std::fs::read_to_string(&path).unwrap().contains("+++ killed")).await;
    let calls = read_trace(&std::fs::read_to_string(file.path()).unwrap());
    let answers =
        |call: &Call| call.sends().is_some_and(|sent| String::from_utf8_lossy(&sent).contains(r#""completed":true"#));
    let answer = calls.iter().position(answers).unwrap();
    (calls, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_survives_a_loss_of_power_at_any_moment() {
    let moments = std::env::var("TEST_POWER_LOSSES").map_or(12, |moments| moments.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let (data, erased) = (TempDir::new().unwrap(), canary());
    let mut disk = Disk::of(data.path());
    let (calls, answer) = trace_of_erasure(data.path(), &erased).await;
    let is_stored = |call: &Call| call.sends().is_some_and(|sent| sent.starts_with(b"HTTP/1.1 201"));
    let stored = calls.iter().position(is_stored).unwrap();
    let mut chosen: Vec<usize> = (0..moments).map(|_| random.usize(stored..calls.len())).collect();
    chosen.push(answer);
    let client = client_with_key(KEY);
    for (at, call) in calls.iter().enumerate() {
        disk.apply(call);
        if !chosen.contains(&at) {
            continue;
        }
        let image = TempDir::new().unwrap();
        match random.bool() || at == answer {
            true => disk.write_synced(image.path()),
            false => disk.write_torn(image.path(), &mut random),
        }
        if at >= answer {
            assert_eq!(
                files_with(image.path(), &erased, &[]),
                Vec::<String>::new(),
                "call {at}, after the answer at {answer}"
            );
        }
        let mut process = server(image.path());
        let left = left_of(&client, &process, "erased").await;
        assert!(left == 20 && at < answer || left == 0, "call {at}: {left} events");
        if left == 0 {
            assert_eq!(files_with(image.path(), &erased, &[process.child.id()]), Vec::<String>::new(), "call {at}");
        }
        process.kill();
        let (status, out, errors) = run_text(&["verify", "--all", "--data-dir", image.path().to_str().unwrap()]);
        assert_eq!(status, 0, "{out}{errors}");
    }
}
