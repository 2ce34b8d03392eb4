//! Who removes more than retention has recorded, or says that it was retention, is found.

use std::path::Path;
use std::time::Duration;

use cairn::ledger::format::floor::{Anchor, Floor};
use cairn::ledger::format::keys::{meta_keys, shard_of};
use cairn::ledger::format::meta;
use cairn::ledger::store::{Family, StorageConfig, Store};
use cairn::recorder;
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use tempfile::TempDir;

use crate::erasure::requests::start;
use crate::log::checkpoints::copy;
use crate::retention::dropping::{PATIENCE, config, dropped, store, verify_all};
use crate::support::harness::{eventually_within, run_text};

fn open(ledger: &Path) -> Store {
    Store::open(&StorageConfig { data_dir: ledger.to_owned(), ..StorageConfig::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_floor_and_anchors_other_than_the_recorded_ones_are_broken() {
    let data = TempDir::new().unwrap();
    let server = start(&config(&data, Duration::from_secs(1))).await;
    store(&server, 1000, "old").await;
    eventually_within(PATIENCE, "they are dropped", async || dropped(&server).await >= 768).await;
    store(&server, 600, "new").await;
    server.stop().await.unwrap();
    let ledger = data.path().join("ledger");
    assert_eq!(verify_all(&ledger, None).0, 0);

    type Change = fn(&Store, &mut cairn::ledger::store::Batch);
    let changes: [(&str, Change, &str); 6] = [
        (
            "more events are dropped",
            |store, batch| {
                // Not in the shard of the recorder, whose record must stay.
                let recorder = recorder::id_of(meta::instance(store).unwrap().unwrap());
                let [recorder, a0, a1, a2, a3, a4] =
                    [&*recorder, "a0", "a1", "a2", "a3", "a4"].map(|agent| shard_of(AgentKey::of(agent), 3));
                let shard = [a0, a1, a2, a3, a4].into_iter().find(|shard| *shard != recorder).unwrap();
                let mut floor = Floor::read(store).unwrap().unwrap();
                floor.first[usize::from(shard.0)].0 += 10;
                floor.put(store, batch).unwrap();
            },
            "other events were dropped than event",
        ),
        (
            "the record is another event",
            |store, batch| {
                let mut floor = Floor::read(store).unwrap().unwrap();
                floor.record = Sequence(floor.record.0 - 1);
                floor.put(store, batch).unwrap();
            },
            "BROKEN",
        ),
        (
            "an anchor has another hash",
            |store, batch| {
                let anchor = Anchor::read(store, AgentKey::of("a1")).unwrap().unwrap();
                Anchor { prev_hash: Hash([7; 32]), ..anchor }.put(store, batch, AgentKey::of("a1")).unwrap();
            },
            "chains begin elsewhere than event",
        ),
        (
            "an anchor is gone",
            |store, batch| {
                let key = [meta_keys::ANCHOR, &AgentKey::of("a1").0].concat();
                store.delete(batch, Family::Meta, &key).unwrap();
            },
            "chains begin elsewhere than event",
        ),
        (
            "an agent has an anchor and no event",
            |store, batch| {
                let anchor = Anchor { sequence: Sequence(9), prev_hash: Hash([7; 32]) };
                anchor.put(store, batch, AgentKey::of("nobody")).unwrap();
            },
            "chains begin elsewhere than event",
        ),
        (
            "the floor is gone",
            |store, batch| {
                store.delete(batch, Family::Meta, meta_keys::FLOOR).unwrap();
            },
            "BROKEN",
        ),
    ];
    for (what, change, expected) in changes {
        let forged = TempDir::new().unwrap();
        copy(&ledger, forged.path());
        let store = open(forged.path());
        let mut batch = store.batch(0);
        change(&store, &mut batch);
        store.write_synced(batch).unwrap();
        drop(store);
        let (status, out) = verify_all(forged.path(), None);
        assert!(status == 1 && out.contains(expected), "{what}: {out}");
        let (status, out, errors) =
            run_text(&["verify", "--agent-id", "a1", "--data-dir", forged.path().to_str().unwrap()]);
        assert_eq!(status, 1, "{what}: {out}{errors}");
    }
}
