//! A sidecar on a small volume takes events as fast as they can be relayed, refuses none, and stays within its volume.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use cairn::ledger::RetentionConsumer;
use tempfile::TempDir;

use crate::log::checkpoints::frequent_checkpoints;
use crate::relay::delivery::destination;
use crate::retention::dropping::{dropped, verify_all};
use crate::support::harness::TestServer;
use crate::support::load::{Kind, send};
use crate::support::upstream::{EVENT, Reply, Upstream};

/// The size of the volume, in bytes.
const VOLUME: u64 = 64 << 20;

/// The size of the files in a directory, in bytes.
fn size(directory: &Path) -> u64 {
    let sizes = std::fs::read_dir(directory).into_iter().flatten().flatten();
    sizes.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_volume_takes_events_for_as_long_as_they_come() {
    // `make soak` sets 600.
    let seconds = std::env::var("TEST_SMALL_VOLUME_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    for is_relayed in [false, true] {
        let (data, relayed) = (TempDir::new().unwrap(), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&relayed);
        let upstream = Upstream::start_with(move |path, _| {
            count.fetch_add(u64::from(path == EVENT), Ordering::Relaxed);
            Reply::Accept
        })
        .await;
        upstream.state.forgets.store(true, Ordering::Relaxed);
        let mut config = frequent_checkpoints(data.path());
        config.storage.max_bytes = ByteSize::b(VOLUME - (8 << 20));
        config.storage.memory_bytes = ByteSize::mib(16);
        config.retention.events.max_bytes = ByteSize::mib(32);
        config.retention.unrelayed = !is_relayed;
        if is_relayed {
            config.relay.agnost = Some(destination(&upstream));
            config.retention.after = vec![RetentionConsumer::Relay];
        }
        let server = TestServer::start(&config).await;
        let (url, ledger) = (server.url.clone(), data.path().to_owned());
        let load = tokio::spawn(async move { send(&url, Kind::Batch(100), 8, Duration::from_secs(seconds)).await });
        let mut peak = 0;
        while !load.is_finished() {
            peak = peak.max(size(&ledger));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sent = load.await.unwrap();
        let acknowledged = sent.acknowledged.into_inner();
        let failed = (sent.refused.into_inner(), sent.failed.into_inner());
        println!(
            "{acknowledged} events in {seconds} s, {} dropped, at most {} MiB",
            dropped(&server).await,
            peak >> 20
        );
        assert_eq!(failed, (0, 0), "refused and failed requests");
        assert!(peak < VOLUME, "{peak} bytes");
        if is_relayed {
            let mut before = 0;
            while relayed.load(Ordering::Relaxed) < acknowledged {
                let now = relayed.load(Ordering::Relaxed);
                assert!(now > before, "only {now} of {acknowledged} events are relayed");
                before = now;
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
            assert_eq!(relayed.load(Ordering::Relaxed), acknowledged, "each event once");
        } else {
            assert!(dropped(&server).await > acknowledged / 2);
        }
        server.stop().await.unwrap();
        let (status, out) = verify_all(data.path(), None);
        assert_eq!(status, 0, "{out}");
    }
}
