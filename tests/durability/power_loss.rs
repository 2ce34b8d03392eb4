//! The power goes: what was not synced is gone. SIGKILL keeps what the system has in memory, so it cannot show a sync that
//! is missing; a trace of the server's system calls, replayed on a model of a disk, can.
//!
//! From every moment that is looked at, the server is started on what the disk would hold then. What it had begun to
//! answer by that moment has to be there: events, checkpoints, and the key that signed them.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::audit::oracle::{Oracle, send};
use crate::durability::disk::{Call, Disk, TRACE, read_trace};
use crate::support::harness::{Process, cairn, eventually, metric};

/// The calls of a server that took events until it was killed.
async fn trace(data: &Path, environment: &[(&str, &str)], requests: usize, seed: u64) -> Vec<Call> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut strace = std::process::Command::new("strace");
    strace.args(TRACE).arg(file.path()).arg(cairn().get_program());
    let mut server = Process::start_as(strace, data, environment);
    let senders = (0..3).map(|sender| send(server.url.clone(), seed + sender, requests));
    let mut follower = Oracle::default();
    let look = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            follower.see_checkpoint(&server.url).await;
        }
    };
    let heard = tokio::join!(futures_util::future::join_all(senders), look).0;
    assert!(heard.into_iter().all(|heard| heard.is_whole()));
    server.kill();
    // The tracer has written all of it when the kill is there.
    let path = file.path().to_owned();
    eventually("the end of the trace", async || std::fs::read_to_string(&path).unwrap().contains("+++ killed")).await;
    read_trace(&std::fs::read_to_string(file.path()).unwrap())
}

/// What an answer that was sent promises: events that are stored, or a checkpoint.
fn promised(answer: &[u8], oracle: &mut Oracle) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.starts_with("HTTP/1.1 201") {
        oracle.hear(crate::audit::oracle::Heard::of(serde_json::from_str(body).unwrap()));
        return true;
    }
    let is_checkpoint = head.starts_with("HTTP/1.1 200") && body.contains("\n\n\u{2014} ");
    if is_checkpoint {
        oracle.keep_checkpoint(body);
    }
    is_checkpoint
}

/// Starts a server on what a disk holds, and has it show that nothing is missing.
async fn look(image: &Path, oracle: &Oracle, environment: &[(&str, &str)]) {
    if oracle.len() > 0 {
        oracle.verify(image);
    }
    let server = Process::start(image, environment);
    oracle.check(&server.url).await;
    let metrics = reqwest::get(format!("{}/metrics", server.admin_url)).await.unwrap().text().await.unwrap();
    assert_eq!(metric(&metrics, "cairn_log_rollback"), Some(0.0), "it cannot sign any more");
}

/// Loses the power at moments of two lives, and says how often something that was promised was not there.
async fn lose_power(environment: &[(&str, &str)], moments: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let data = TempDir::new().unwrap();
    let mut oracle = Oracle::default();
    let mut lost = 0;
    // A new ledger, and one that is recovered.
    for life in 0..2 {
        let mut disk = Disk::of(data.path());
        let calls = trace(data.path(), environment, 25, random.u64(..1 << 32)).await;
        let sends: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].sends().is_some()).collect();
        assert!(sends.len() > 60, "{} answers", sends.len());
        let mut chosen: Vec<usize> = (0..moments).map(|_| random.usize(..sends.len())).map(|at| sends[at]).collect();
        // Between answers, too, from the first call on.
        chosen.extend((0..moments / 2).map(|_| random.usize(..calls.len())));
        for (at, call) in calls.iter().enumerate() {
            if let Some(answer) = call.sends() {
                promised(&answer, &mut oracle);
            }
            disk.apply(call);
            if chosen.contains(&at) {
                let image = TempDir::new().unwrap();
                if random.bool() {
                    disk.write_synced(image.path())
                } else {
                    disk.write_torn(image.path(), &mut random)
                }
                let looked = {
                    let look = std::panic::AssertUnwindSafe(look(image.path(), &oracle, environment));
                    futures_util::FutureExt::catch_unwind(look).await
                };
                if looked.is_err() {
                    println!("life {life}, call {at} of {}", calls.len());
                    lost += 1;
                }
            }
        }
        let chosen = chosen.len();
        println!("life {life}: {chosen} power losses, {} events acknowledged, {lost} with a loss", oracle.len());
    }
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_power_goes_everything_that_was_answered_is_there() {
    let moments = std::env::var("TEST_POWER_LOSSES").map_or(12, |moments| moments.parse().unwrap());
    assert_eq!(lose_power(&[("CAIRN_LOG__CHECKPOINT_INTERVAL", "20ms")], moments).await, 0);
}

/// The model sees what it is made to see.
#[tokio::test(flavor = "multi_thread")]
async fn without_syncs_the_same_test_finds_events_that_are_lost() {
    let environment = [("CAIRN_LOG__CHECKPOINT_INTERVAL", "20ms"), ("CAIRN_STORAGE__SYNC", "false")];
    assert!(lose_power(&environment, 4).await > 0);
}

/// A body is read by those who check it, so it has to be one.
#[test]
fn an_answer_is_told_from_others() {
    let mut oracle = Oracle::default();
    let event = br#"{"id":"a","agent_id":"x"}"#;
    let whole = [&b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\r\n"[..], event].concat();
    assert!(promised(&whole, &mut oracle) && oracle.len() == 1);
    assert!(!promised(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", &mut oracle));
    let _: Value = serde_json::from_slice(event).unwrap();
}
