//! Attacks on a ledger and its log, and how `cairn verify --all` reports them.

use std::path::Path;
use std::time::Duration;

use cairn::ledger::format::keys::{Agent, Run};
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use rocksdb::DB;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::verify::edit;
use crate::support::harness::{TestServer, config, run_text};

/// The ledger of a stopped server: 600 events, and a log with a fixed origin. One event contains `secret`.
async fn ledger(secret: &str) -> TempDir {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.log.checkpoint_interval = Duration::from_millis(20);
    config.log.origin = Some("the/log".to_owned());
    config.shards = 2;
    let server = TestServer::start(&config).await;
    for first in (0..600).step_by(100) {
        let event = |n: usize| {
            let output = if n == 17 { secret } else { "same" };
            json!({"agent_id": format!("a{}", n % 9), "timestamp": "2026-02-17T10:30:00Z", "action_output": output})
        };
        let batch: Vec<Value> = (first..first + 100).map(event).collect();
        assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    }
    server.stop().await.unwrap();
    data
}

fn verify(data: &Path, more: &[&str]) -> (i32, String) {
    let (code, out, err) = run_text(&[&["verify", "--all", "--data-dir", data.to_str().unwrap()], more].concat());
    (code, out + &err)
}

fn rows(db: &DB, family: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = db.iterator_cf(db.cf_handle(family).unwrap(), rocksdb::IteratorMode::Start);
    rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn keys(db: &DB, kind: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    rows(db, "log").into_iter().filter(|(key, _)| key[0] == kind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_to_the_rows_of_the_log_is_found() {
    type Attack = fn(&DB);
    let attacks: [(&str, Attack, &str); 6] = [
        (
            "a hash in a full tile",
            |db| {
                let (key, mut tile) = rows(db, "tiles").remove(0);
                tile[40] ^= 1;
                db.put_cf(db.cf_handle("tiles").unwrap(), key, tile).unwrap();
            },
            "tiles: row 00000000000000ff00 is wrong",
        ),
        (
            "a tile is missing",
            |db| db.delete_cf(db.cf_handle("tiles").unwrap(), &rows(db, "tiles")[1].0).unwrap(),
            "tiles: row 00000000000001ff00 is missing",
        ),
        (
            "a run is missing",
            |db| db.delete_cf(db.cf_handle("log").unwrap(), &keys(db, b'l')[1].0).unwrap(),
            "log: row l",
        ),
        (
            "a run leads to another event",
            |db| {
                let (key, mut location) = keys(db, b'l').remove(1);
                location[9] ^= 1;
                db.put_cf(db.cf_handle("log").unwrap(), key, location).unwrap();
            },
            "log: row l",
        ),
        (
            "an event leads to another leaf",
            |db| {
                let (key, mut leaf) = keys(db, b'p').remove(1);
                leaf[7] ^= 1;
                db.put_cf(db.cf_handle("log").unwrap(), key, leaf).unwrap();
            },
            "log: row p",
        ),
        (
            "the size is smaller",
            |db| {
                let (key, mut row) = keys(db, b's').remove(0);
                row[..8].copy_from_slice(&500u64.to_be_bytes());
                db.put_cf(db.cf_handle("log").unwrap(), key, row).unwrap();
            },
            "log: row s is wrong",
        ),
    ];
    for (what, attack, found) in attacks {
        let data = ledger("same").await;
        let (code, output) = verify(data.path(), &[]);
        assert!(code == 0 && output.contains("log: 600 events, 1 checkpoint verified: valid"), "{output}");
        edit(data.path(), attack);
        let (code, output) = verify(data.path(), &[]);
        assert_eq!(code, 1, "{what}: {output}");
        assert!(
            output.contains("log: BROKEN") && found.split('|').any(|found| output.contains(found)),
            "{what}: {output}"
        );
        assert!(output.contains("600 events verified: all valid"), "the chains are valid: {output}");
        let (code, output) = verify(data.path(), &["--json"]);
        let summary: Value = serde_json::from_str(output.lines().last().unwrap()).unwrap();
        assert_eq!((code, &summary["broken"], &summary["log"]["valid"]), (1, &json!(0), &json!(false)));
    }
}

/// Removes the matching rows of a column family; returns their number.
fn remove(db: &DB, family: &str, is_match: impl Fn(&[u8], &[u8]) -> bool) -> usize {
    let handle = db.cf_handle(family).unwrap();
    let rows: Vec<_> = db.iterator_cf(handle, rocksdb::IteratorMode::Start).map(Result::unwrap).collect();
    let found: Vec<_> = rows.into_iter().filter(|(key, value)| is_match(key, value)).collect();
    found.iter().for_each(|(key, _)| db.delete_cf(handle, key).unwrap());
    found.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_removed_chain_is_found_because_the_log_has_leaves_without_events() {
    let agent = AgentKey::of("a4");
    // All rows of one agent are removed: every other chain is valid.
    let data = ledger("same").await;
    edit(data.path(), |db| {
        // The agent key follows the first byte of a record.
        let events = remove(db, "events", |_, record| record[1..17] == agent.0);
        assert!(events > 60 && remove(db, "chain", |key, _| key.starts_with(&agent.0)) > 0);
        assert_eq!(remove(db, "agents", |key, _| key == agent.0), 1);
    });
    let (code, output) = verify(data.path(), &[]);
    assert!(
        code == 1 && output.contains("8 agents") && output.contains(": all valid"),
        "the chains are valid: {output}"
    );
    assert!(output.contains("log: BROKEN: the event of leaf") && output.contains("is missing"), "{output}");
    // The last event of one chain is removed, and its head set back.
    let data = ledger("same").await;
    edit(data.path(), |db| {
        let agents = db.cf_handle("agents").unwrap();
        let mut head = Agent::decode(&db.get_cf(agents, agent.0).unwrap().unwrap()).unwrap();
        let last = head.sequence.0;
        let is_last = |_: &[u8], record: &[u8]| record[1..17] == agent.0 && record[17..25] == last.to_be_bytes();
        let events = db.iterator_cf(db.cf_handle("events").unwrap(), rocksdb::IteratorMode::Start).map(Result::unwrap);
        let record = events.map(|(_, record)| record).find(|record| is_last(&[], record)).unwrap();
        assert_eq!(remove(db, "events", is_last), 1);
        (head.sequence, head.hash) = (Sequence(last - 1), Hash(record[25..57].try_into().unwrap()));
        head.run.count -= 1;
        if head.run.count == 0 {
            let chain = db.cf_handle("chain").unwrap();
            let runs = db.iterator_cf(chain, rocksdb::IteratorMode::Start).map(Result::unwrap);
            let (key, value) = runs.filter(|(key, _)| key.starts_with(&agent.0)).last().unwrap();
            head.run = Run::decode(&key, &value).unwrap().1;
            db.delete_cf(chain, key).unwrap();
        }
        db.put_cf(agents, agent.0, head.encode()).unwrap();
    });
    let (code, output) = verify(data.path(), &[]);
    assert!(code == 1 && output.contains("599 events verified: all valid"), "the chains are valid: {output}");
    assert!(output.contains("log: BROKEN: the event of leaf") && output.contains("is missing"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_history_with_matching_hashes_contradicts_the_signed_checkpoint() {
    let (real, forged) = (ledger("the truth").await, ledger("a lie").await);
    // Both ledgers are valid. The forged one gets the key and the checkpoint of the real one.
    for data in [&real, &forged] {
        assert_eq!(verify(data.path(), &[]).0, 0);
    }
    for file in ["log.key", "log.checkpoint"] {
        std::fs::copy(real.path().join(file), forged.path().join(file)).unwrap();
    }
    let (code, output) = verify(forged.path(), &[]);
    assert!(code == 1 && output.contains("the first 600 events are not those that were signed in"), "{output}");
    // A copy of the checkpoint is kept elsewhere.
    let kept_checkpoint = real.path().join("kept");
    std::fs::copy(real.path().join("log.checkpoint"), &kept_checkpoint).unwrap();
    let checkpoint = ["--checkpoint", kept_checkpoint.to_str().unwrap()];
    let (code, output) = verify(real.path(), &checkpoint);
    assert!(code == 0 && output.contains("2 checkpoints verified"), "{output}");
    // Ledger and checkpoint on disk are set back together; only the copy shows it.
    let shorter = TempDir::new().unwrap();
    let server = TestServer::start(&{
        let mut config = config(shorter.path());
        config.log.origin = Some("the/log".to_owned());
        std::fs::copy(real.path().join("log.key"), shorter.path().join("log.key")).unwrap();
        config
    })
    .await;
    assert_eq!(server.send("/v1/events", &json!({"agent_id": "a0"})).await.status, 201);
    server.stop().await.unwrap();
    let (code, output) = verify(shorter.path(), &[]);
    assert!(code == 0 && output.contains("log: 1 event, 1 checkpoint verified: valid"), "{output}");
    let (code, output) = verify(shorter.path(), &checkpoint);
    assert!(
        code == 1 && output.contains("was signed over 600 events, but the ledger has 1: it was rolled back"),
        "{output}"
    );
    // A missing log or a missing checkpoint is a break, not a ledger without a log.
    edit(shorter.path(), |db| assert_eq!(remove(db, "log", |key, _| key == b"s"), 1));
    let (code, output) = verify(shorter.path(), &[]);
    assert!(code == 1 && output.contains("log: row s is missing"), "{output}");
    let note = std::fs::read(forged.path().join("log.checkpoint")).unwrap();
    std::fs::remove_file(forged.path().join("log.checkpoint")).unwrap();
    let (code, output) = verify(forged.path(), &[]);
    assert!(code == 1 && output.contains("log: BROKEN: its last checkpoint is missing"), "{output}");
    std::fs::write(forged.path().join("log.checkpoint"), note).unwrap();
    let (code, output) = verify(forged.path(), &["--checkpoint", "/nowhere"]);
    assert!(code == 3 && output.contains("/nowhere"), "{output}");
    // With another key, the checkpoint is not one of this log.
    std::fs::remove_file(forged.path().join("log.key")).unwrap();
    cairn::tlog::keys::Keys::create(&forged.path().join("log.key"), "the/log").unwrap();
    let (code, output) = verify(forged.path(), &[]);
    assert!(code == 1 && output.contains("not signed with the/log+"), "{output}");
    std::fs::remove_file(forged.path().join("log.key")).unwrap();
    let (code, output) = verify(forged.path(), &[]);
    assert!(code == 1 && output.contains("the key file of the log is missing"), "{output}");
    cairn_proof::files::replace(&forged.path().join("log.key"), b"").unwrap();
    assert_eq!(verify(forged.path(), &checkpoint).0, 3, "what cannot be read was not verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_verified_at_any_key_and_for_any_length_of_the_log() {
    // A copy of the third event at locations where no event belongs.
    let key = |shard: u16, position: u64| [&shard.to_be_bytes()[..], &position.to_be_bytes()].concat();
    let data = ledger("same").await;
    let mut last = Vec::new();
    edit(data.path(), |db| {
        let events = db.iterator_cf(db.cf_handle("events").unwrap(), rocksdb::IteratorMode::Start).map(Result::unwrap);
        last = events.filter(|(key, _)| key.starts_with(&[0, 0])).last().unwrap().0.to_vec();
    });
    let locations = [
        ("before the first event", vec![0]),
        ("between two events", [key(0, 5), vec![0]].concat()),
        ("right after the last event of a shard", [last, vec![0]].concat()),
        ("between two shards", [key(0, u64::MAX), vec![0]].concat()),
        ("after the last event", key(1, 1 << 40)),
        ("after the last event of its shard", key(0, 1 << 40)),
        ("in a shard that does not exist", key(7, 0)),
    ];
    for (what, location) in locations {
        edit(data.path(), |db| {
            let events = db.cf_handle("events").unwrap();
            let record = db.get_cf(events, key(0, 2)).unwrap().unwrap();
            db.put_cf(events, &location, record).unwrap();
        });
        let (code, output) = verify(data.path(), &[]);
        let is_its_shard = location.len() == key(0, 0).len() && location.starts_with(&[0, 0]);
        let kind = match location.len() == key(0, 0).len() {
            true if is_its_shard => "sequence gap: expected ",
            true => "it is stored in a shard to which its agent does not belong",
            false => "its row is damaged",
        };
        assert!(code == 1 && output.contains(kind) && output.contains("events verified: 1 BROKEN"), "{what}: {output}");
        // A value that is not a record of any agent.
        for nothing in [vec![], vec![2; 100]] {
            edit(data.path(), |db| db.put_cf(db.cf_handle("events").unwrap(), &location, &nothing).unwrap());
            let (code, output) = verify(data.path(), &[]);
            assert!(code == 1 && output.contains("BROKEN: unreadable at sequence 1"), "{what}, {nothing:?}: {output}");
        }
        edit(data.path(), |db| db.delete_cf(db.cf_handle("events").unwrap(), &location).unwrap());
        assert_eq!(verify(data.path(), &[]).0, 0, "{what}");
    }
    // The log is too short, or it is unreadable: the events after it are verified nevertheless.
    let set_back = |db: &DB| {
        let size = [7u64.to_be_bytes(), 0u64.to_be_bytes(), 0u64.to_be_bytes()].concat();
        db.put_cf(db.cf_handle("log").unwrap(), b"s", size).unwrap();
    };
    let many = |db: &DB| {
        let row = [&600u64.to_be_bytes()[..], &[0; 65_536 * 8]].concat();
        db.put_cf(db.cf_handle("log").unwrap(), b"s", row).unwrap();
    };
    let cut = |db: &DB| db.delete_cf(db.cf_handle("log").unwrap(), &keys(db, b'l')[1].0).unwrap();
    for attack in [set_back as fn(&DB), many, cut] {
        let data = ledger("same").await;
        edit(data.path(), attack);
        let (code, output) = verify(data.path(), &[]);
        assert!(
            code == 1 && output.contains("600 events verified: all valid") && output.contains("log: BROKEN"),
            "{output}"
        );
        edit(data.path(), |db| {
            let events = db.cf_handle("events").unwrap();
            let last = db.iterator_cf(events, rocksdb::IteratorMode::End).next().unwrap().unwrap();
            let mut record = last.1.to_vec();
            *record.last_mut().unwrap() ^= 1;
            db.put_cf(events, last.0, record).unwrap();
        });
        let (code, output) = verify(data.path(), &[]);
        assert!(
            code == 1 && output.contains("BROKEN: hash mismatch") && output.contains("599 events verified"),
            "{output}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_leaf_whose_event_cannot_be_read_is_named() {
    for leaf in [0u64, 100, 300] {
        let data = ledger("same").await;
        edit(data.path(), |db| {
            // The run that has the leaf, and in it the event.
            let mut runs = keys(db, b'l').into_iter().map(|(key, location)| (key[1..].to_vec(), location));
            let (first, mut location) = runs.rfind(|(first, _)| first[..] <= leaf.to_be_bytes()[..]).unwrap();
            let offset = leaf - u64::from_be_bytes(first.try_into().unwrap());
            let position = u64::from_be_bytes(location[2..].try_into().unwrap()) + offset;
            location[2..].copy_from_slice(&position.to_be_bytes());
            let events = db.cf_handle("events").unwrap();
            let mut record = db.get_cf(events, &location).unwrap().unwrap();
            record[0] = 9;
            db.put_cf(events, &location, record).unwrap();
        });
        let (code, output) = verify(data.path(), &[]);
        let named = format!("log: BROKEN: the event of leaf {leaf} is missing or cannot be read");
        assert!(code == 1 && output.contains(&named) && output.contains("unreadable at sequence"), "{leaf}: {output}");
    }
}
