//! The memory of the whole process under ordinary load, in a cgroup with the limit of a sidecar.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::harness::{Answer, Process, eventually};
use crate::support::load::{Kind, send};
use crate::support::machine::Cgroup;

/// The memory that a process returns to within a minute after any load.
const RESTING_BYTES: u64 = 110 << 20;

/// Seconds of each load: a longer run is in the Makefile.
fn seconds() -> u64 {
    std::env::var("TEST_MEMORY_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Sends each kind of load to a server in a cgroup of `limit` bytes, and checks that it survives, keeps its promises, and
/// returns the memory.
async fn load_under(limit: u64, connections: &[usize]) {
    let Some(cgroup) = Cgroup::new(limit) else { return };
    let data = TempDir::new().unwrap();
    let mut server = Process::start_as(cgroup.command(env!("CARGO_BIN_EXE_cairn").as_ref()), data.path(), &[]);
    let kinds = [
        Kind::Spans(1),
        Kind::Spans(512),
        Kind::Spans(20_000),
        Kind::Batch(512),
        Kind::Batch(5_000),
        Kind::Single(20),
        Kind::Single(900_000),
    ];
    let (mut acknowledged, started) = (0, Instant::now());
    for kind in kinds {
        for &connections in connections {
            // 256 requests of 10 MB are already more than the generator should hold.
            if connections > 64 && matches!(kind, Kind::Spans(20_000) | Kind::Single(900_000)) {
                continue;
            }
            let sent = send(&server.url, kind, connections, Duration::from_secs(seconds())).await;
            println!("{limit} {kind:?} over {connections}: {sent:?}, {} MiB", server.memory_bytes() >> 20);
            assert_eq!(cgroup.kills(), 0, "{kind:?} over {connections} connections: killed");
            acknowledged += sent.acknowledged.into_inner();
            assert!(sent.failed.into_inner() * 10 < acknowledged, "{kind:?} over {connections}");
        }
    }
    println!("{acknowledged} events in {:?}", started.elapsed());
    let stats = Answer::of(reqwest::get(format!("{}/v1/stats", server.url)).await.unwrap()).await.json();
    assert!(stats["total_events"].as_u64().unwrap() >= acknowledged, "{stats}, {acknowledged} acknowledged");
    let rested = Instant::now();
    eventually("the memory after the load", async || server.memory_bytes() < RESTING_BYTES).await;
    println!("{} MiB {:?} after the load", server.memory_bytes() >> 20, rested.elapsed());
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_load_stays_below_the_memory_limit_of_a_sidecar() {
    load_under(256 << 20, &[1, 16, 64, 256, 1000]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ordinary_load_stays_below_half_of_that_limit() {
    load_under(128 << 20, &[16, 256]).await;
}
