//! A server is killed with SIGKILL at random times, under load over many connections, and while it starts.
//!
//! `TEST_SEED`, which is printed, reproduces the load and the times of the kills, but not the timing of the machine.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;

use crate::audit::oracle::{Oracle, send};
use crate::support::harness::{Process, cairn};

/// Limits the size of a ledger, so that checking all of it takes little time.
const KILLS_PER_LEDGER: usize = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_at_any_time_loses_no_acknowledged_event_and_restarts() {
    // `make soak` sets 500.
    let kills: usize = std::env::var("TEST_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(crate::durability::faults::seed());
    let (mut done, mut acknowledged) = (0, 0);
    while done < kills {
        let rounds = (kills - done).min(KILLS_PER_LEDGER);
        acknowledged += kill_repeatedly(rounds, &mut random).await;
        done += rounds;
        println!("{done} kills, {acknowledged} events acknowledged, 0 lost");
    }
    assert!(acknowledged > 20 * kills, "only {acknowledged} events");
}

/// Kills the server of one ledger `rounds` times, checks the ledger each time, and returns the number of acknowledged
/// events.
async fn kill_repeatedly(rounds: usize, random: &mut fastrand::Rng) -> usize {
    let data = TempDir::new().unwrap();
    // Small buffers, so that RocksDB flushes and compacts while the test runs.
    let shards = if random.bool() { "1" } else { "2" };
    let environment =
        [("CAIRN_LOG__CHECKPOINT_INTERVAL", "5ms"), ("CAIRN_SHARDS", shards), ("CAIRN_STORAGE__MEMORY_BYTES", "8MiB")];
    let mut oracle = Oracle::default();
    let mut server = Process::start(data.path(), &environment);
    for _ in 0..rounds {
        let connections = random.usize(1..24);
        let senders: Vec<_> =
            (0..connections).map(|_| tokio::spawn(send(server.url.clone(), random.u64(..), usize::MAX))).collect();
        // The pauses are the subject: they choose the moments of the checkpoint and of the kill.
        tokio::time::sleep(Duration::from_millis(random.u64(5..250))).await;
        oracle.fetch_checkpoint(&server.url).await;
        tokio::time::sleep(Duration::from_millis(random.u64(..20))).await;
        server.kill();
        for sender in senders {
            oracle.record(sender.await.unwrap());
        }
        for _ in 0..random.usize(..3) {
            kill_while_it_starts(data.path(), &environment, random);
        }
        // First as the kill left it, then after a server has recovered it.
        oracle.verify(data.path());
        server = Process::start(data.path(), &environment);
        oracle.check(&server.url).await;
        oracle.resend_unanswered(&server.url).await;
    }
    oracle.check(&server.url).await;
    oracle.check_with_reference(&server).await;
    oracle.verify(data.path());
    oracle.len()
}

fn kill_while_it_starts(data: &Path, environment: &[(&str, &str)], random: &mut fastrand::Rng) {
    let mut command = cairn();
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).envs(environment.iter().copied());
    command.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The pause is the subject: it chooses the moment of the kill.
    std::thread::sleep(Duration::from_millis(random.u64(..120)));
    child.kill().unwrap();
    child.wait().unwrap();
}
