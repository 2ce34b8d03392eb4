//! Loss of power: whatever was not synced is lost. After SIGKILL the page cache survives, so a kill cannot show a
//! missing sync; a trace of the server's system calls that is replayed on a model of a disk can.
//!
//! For each tested moment, a server is started on what the disk would contain then. Everything that the traced server
//! had begun to send in answers by that moment must be there: events, checkpoints, and the key that signed them.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use crate::audit::oracle::{Oracle, send};
use crate::durability::disk::{Call, Disk, TRACE, read_trace};
use crate::support::harness::{Process, cairn, eventually, metric};

/// The system calls of a server that accepted events until it was killed.
async fn trace(data: &Path, environment: &[(&str, &str)], requests: usize, seed: u64) -> Vec<Call> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut strace = std::process::Command::new("strace");
    strace.args(TRACE).arg(file.path()).arg(cairn().get_program());
    let mut server = Process::start_as(strace, data, environment);
    let senders = (0..3).map(|sender| send(server.url.clone(), seed + sender, requests));
    let mut follower = Oracle::default();
    let fetch_checkpoints = async {
        for _ in 0..10 {
            // The pause is the subject: checkpoints are fetched at ten moments of the load.
            tokio::time::sleep(Duration::from_millis(50)).await;
            follower.fetch_checkpoint(&server.url).await;
        }
    };
    let results = tokio::join!(futures_util::future::join_all(senders), fetch_checkpoints).0;
    assert!(results.into_iter().all(|results| results.all_answered()));
    server.kill();
    // The line of the kill is the last one of the trace.
    let path = file.path().to_owned();
    eventually("the end of the trace", async || std::fs::read_to_string(&path).unwrap().contains("+++ killed")).await;
    read_trace(&std::fs::read_to_string(file.path()).unwrap())
}

/// Records what an answer acknowledges: stored events, or a checkpoint. Returns whether it acknowledges anything.
fn record_answer(answer: &[u8], oracle: &mut Oracle) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.starts_with("HTTP/1.1 201") {
        oracle.record(crate::audit::oracle::SendResults::of(serde_json::from_str(body).unwrap()));
        return true;
    }
    let is_checkpoint = head.starts_with("HTTP/1.1 200") && body.contains("\n\n\u{2014} ");
    if is_checkpoint {
        oracle.add_checkpoint(body);
    }
    is_checkpoint
}

/// Starts a server on the content of a disk, and asserts that nothing acknowledged is missing.
async fn check_image(image: &Path, oracle: &Oracle, environment: &[(&str, &str)]) {
    if oracle.len() > 0 {
        oracle.verify(image);
    }
    let server = Process::start(image, environment);
    oracle.check(&server.url).await;
    let metrics = reqwest::get(format!("{}/metrics", server.admin_url)).await.unwrap().text().await.unwrap();
    assert_eq!(metric(&metrics, "cairn_log_rollback"), Some(0.0), "the server can no longer sign");
}

/// Simulates losses of power in two lives of a ledger: at `moments` answers, and half as many at any system call.
/// Returns how often something acknowledged was lost.
async fn lose_power(environment: &[(&str, &str)], moments: usize) -> usize {
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let data = TempDir::new().unwrap();
    let mut oracle = Oracle::default();
    let mut lost = 0;
    // First a new ledger, then the same one after recovery.
    for life in 0..2 {
        let mut disk = Disk::of(data.path());
        let calls = trace(data.path(), environment, 25, random.u64(..1 << 32)).await;
        let sends: Vec<usize> = (0..calls.len()).filter(|at| calls[*at].sends().is_some()).collect();
        assert!(sends.len() > 60, "{} answers", sends.len());
        let mut chosen: Vec<usize> = (0..moments).map(|_| random.usize(..sends.len())).map(|at| sends[at]).collect();
        // Also at any other call, from the first one.
        chosen.extend((0..moments / 2).map(|_| random.usize(..calls.len())));
        for (at, call) in calls.iter().enumerate() {
            if let Some(answer) = call.sends() {
                record_answer(&answer, &mut oracle);
            }
            disk.apply(call);
            if chosen.contains(&at) {
                let image = TempDir::new().unwrap();
                if random.bool() {
                    disk.write_synced(image.path())
                } else {
                    disk.write_torn(image.path(), &mut random)
                }
                let checked = {
                    let check = std::panic::AssertUnwindSafe(check_image(image.path(), &oracle, environment));
                    futures_util::FutureExt::catch_unwind(check).await
                };
                if checked.is_err() {
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
async fn when_the_power_goes_off_everything_that_was_acknowledged_is_on_disk() {
    let moments = std::env::var("TEST_POWER_LOSSES").map_or(12, |moments| moments.parse().unwrap());
    assert_eq!(lose_power(&[("CAIRN_LOG__CHECKPOINT_INTERVAL", "20ms")], moments).await, 0);
}

/// The model detects lost events, so the test above can fail.
#[tokio::test(flavor = "multi_thread")]
async fn without_syncs_the_model_detects_lost_events() {
    let environment = [("CAIRN_LOG__CHECKPOINT_INTERVAL", "20ms"), ("CAIRN_STORAGE__SYNC", "false")];
    assert!(lose_power(&environment, 4).await > 0);
}

#[test]
fn only_answers_that_acknowledge_something_are_recorded() {
    let mut oracle = Oracle::default();
    let event = br#"{"id":"a","agent_id":"x"}"#;
    let whole = [&b"HTTP/1.1 201 Created\r\ncontent-type: application/json\r\n\r\n"[..], event].concat();
    assert!(record_answer(&whole, &mut oracle) && oracle.len() == 1);
    assert!(!record_answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", &mut oracle));
}
