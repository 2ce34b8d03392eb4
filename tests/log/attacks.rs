//! What is done to a ledger and its log, and what `cairn verify --all` says of it.

use std::path::Path;
use std::time::Duration;

use cairn::ledger::format::keys::{Agent, Run};
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use rocksdb::DB;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::verify::edit;
use crate::support::harness::{Running, config, run_text};

/// A ledger of 600 events whose log has the same name in every test, its server gone.
async fn ledger(secret: &str) -> TempDir {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.log.checkpoint_interval = Duration::from_millis(20);
    config.log.origin = Some("the/log".to_owned());
    config.shards = 2;
    let server = Running::start(&config).await;
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
async fn what_is_done_to_the_log_is_found() {
    type Attack = fn(&DB);
    let attacks: [(&str, Attack, &str); 6] = [
        (
            "a hash in a whole tile",
            |db| {
                let (key, mut tile) = rows(db, "tiles").remove(0);
                tile[40] ^= 1;
                db.put_cf(db.cf_handle("tiles").unwrap(), key, tile).unwrap();
            },
            "an event of the leaves 0 to 255 is not the one that was logged",
        ),
        (
            "a tile is gone",
            |db| db.delete_cf(db.cf_handle("tiles").unwrap(), &rows(db, "tiles")[1].0).unwrap(),
            "an event of the leaves 256 to 511 is not",
        ),
        (
            "a run is gone",
            |db| db.delete_cf(db.cf_handle("log").unwrap(), &keys(db, b'l')[1].0).unwrap(),
            // The run before it goes on in its location. Which of them depends on how the shards were interleaved: its
            // shard may have ended, the next run may begin elsewhere, or other events of it stand there.
            "is missing or cannot be read|is not where the one before it ends|is not the one that was logged",
        ),
        (
            "a run leads to another event",
            |db| {
                let (key, mut location) = keys(db, b'l').remove(1);
                location[9] ^= 1;
                db.put_cf(db.cf_handle("log").unwrap(), key, location).unwrap();
            },
            "is not where the one before it ends",
        ),
        (
            "an event does not find its leaf",
            |db| {
                let (key, mut leaf) = keys(db, b'p').remove(1);
                leaf[7] ^= 1;
                db.put_cf(db.cf_handle("log").unwrap(), key, leaf).unwrap();
            },
            "does not lead back to it",
        ),
        (
            "the size is smaller",
            |db| {
                let (key, mut row) = keys(db, b's').remove(0);
                row[..8].copy_from_slice(&500u64.to_be_bytes());
                db.put_cf(db.cf_handle("log").unwrap(), key, row).unwrap();
            },
            "its size is not that of its runs",
        ),
    ];
    for (what, attack, found) in attacks {
        let data = ledger("same").await;
        let (code, said) = verify(data.path(), &[]);
        assert!(code == 0 && said.contains("log: 600 events, 1 checkpoints verified: valid"), "{said}");
        edit(data.path(), attack);
        let (code, said) = verify(data.path(), &[]);
        assert_eq!(code, 1, "{what}: {said}");
        assert!(said.contains("log: BROKEN") && found.split('|').any(|found| said.contains(found)), "{what}: {said}");
        assert!(said.contains("600 events verified: all valid"), "the chains are whole: {said}");
        let (code, said) = verify(data.path(), &["--json"]);
        let summary: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!((code, &summary["broken"], &summary["log"]["valid"]), (1, &json!(0), &json!(false)));
    }
}

/// Removes rows of a family; says how many there were.
fn remove(db: &DB, family: &str, is_one: impl Fn(&[u8], &[u8]) -> bool) -> usize {
    let handle = db.cf_handle(family).unwrap();
    let rows: Vec<_> = db.iterator_cf(handle, rocksdb::IteratorMode::Start).map(Result::unwrap).collect();
    let found: Vec<_> = rows.into_iter().filter(|(key, value)| is_one(key, value)).collect();
    found.iter().for_each(|(key, _)| db.delete_cf(handle, key).unwrap());
    found.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_was_cut_off_or_taken_out_with_all_its_rows_leaves_leaves_without_events() {
    let agent = AgentKey::of("a4");
    // A whole agent is dropped: every chain that is left is whole.
    let data = ledger("same").await;
    edit(data.path(), |db| {
        // The record has the agent behind its first byte.
        let events = remove(db, "events", |_, record| record[1..17] == agent.0);
        assert!(events > 60 && remove(db, "chain", |key, _| key.starts_with(&agent.0)) > 0);
        assert_eq!(remove(db, "agents", |key, _| key == agent.0), 1);
    });
    let (code, said) = verify(data.path(), &[]);
    assert!(code == 1 && said.contains("8 agents") && said.contains(": all valid"), "the chains are whole: {said}");
    assert!(said.contains("log: BROKEN: the event of leaf") && said.contains("is missing"), "{said}");
    // The tail of one chain is cut off, and its head set back.
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
    let (code, said) = verify(data.path(), &[]);
    assert!(code == 1 && said.contains("599 events verified: all valid"), "the chains are whole: {said}");
    assert!(said.contains("log: BROKEN: the event of leaf") && said.contains("is missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_made_anew_with_all_its_hashes_does_not_fit_what_was_signed() {
    let (real, forged) = (ledger("what it said").await, ledger("what it should have said").await);
    // Each of them is whole. The forger has no key of the real log, and takes its checkpoint.
    for data in [&real, &forged] {
        assert_eq!(verify(data.path(), &[]).0, 0);
    }
    for file in ["log.key", "log.checkpoint"] {
        std::fs::copy(real.path().join(file), forged.path().join(file)).unwrap();
    }
    let (code, said) = verify(forged.path(), &[]);
    assert!(code == 1 && said.contains("the first 600 events are not those that were signed in"), "{said}");
    // A checkpoint that was kept elsewhere finds a ledger that was set back with its own checkpoint.
    let kept = real.path().join("kept");
    std::fs::copy(real.path().join("log.checkpoint"), &kept).unwrap();
    let checkpoint = ["--checkpoint", kept.to_str().unwrap()];
    let (code, said) = verify(real.path(), &checkpoint);
    assert!(code == 0 && said.contains("2 checkpoints verified"), "{said}");
    // The checkpoint that is on the disk is set back with the ledger: the one that was kept elsewhere is not.
    let shorter = TempDir::new().unwrap();
    let server = Running::start(&{
        let mut config = config(shorter.path());
        config.log.origin = Some("the/log".to_owned());
        std::fs::copy(real.path().join("log.key"), shorter.path().join("log.key")).unwrap();
        config
    })
    .await;
    assert_eq!(server.send("/v1/events", &json!({"agent_id": "a0"})).await.status, 201);
    server.stop().await.unwrap();
    let (code, said) = verify(shorter.path(), &[]);
    assert!(code == 0 && said.contains("log: 1 events, 1 checkpoints verified: valid"), "{said}");
    let (code, said) = verify(shorter.path(), &checkpoint);
    assert!(
        code == 1 && said.contains("was signed over 600 events, and there are 1: the ledger was set back"),
        "{said}"
    );
    // A log that is gone, or whose seal is, is not one that was never there.
    edit(shorter.path(), |db| assert_eq!(remove(db, "log", |key, _| key == b"s"), 1));
    let (code, said) = verify(shorter.path(), &[]);
    assert!(code == 1 && said.contains("log: BROKEN: there is none, and"), "{said}");
    let note = std::fs::read(forged.path().join("log.checkpoint")).unwrap();
    std::fs::remove_file(forged.path().join("log.checkpoint")).unwrap();
    let (code, said) = verify(forged.path(), &[]);
    assert!(code == 1 && said.contains("log: BROKEN: its last checkpoint is gone"), "{said}");
    std::fs::write(forged.path().join("log.checkpoint"), note).unwrap();
    let (code, said) = verify(forged.path(), &["--checkpoint", "/nowhere"]);
    assert!(code == 3 && said.contains("/nowhere"), "{said}");
    // With another key it is no checkpoint of this log.
    std::fs::remove_file(forged.path().join("log.key")).unwrap();
    cairn::tlog::keys::Keys::make(&forged.path().join("log.key"), "the/log").unwrap();
    let (code, said) = verify(forged.path(), &[]);
    assert!(code == 1 && said.contains("it was not signed with the/log+"), "{said}");
    std::fs::remove_file(forged.path().join("log.key")).unwrap();
    let (code, said) = verify(forged.path(), &[]);
    assert!(code == 1 && said.contains("the log's key is gone"), "{said}");
    cairn_proof::files::replace(&forged.path().join("log.key"), b"").unwrap();
    assert_eq!(verify(forged.path(), &checkpoint).0, 3, "what cannot be read was not verified");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_row_is_read_wherever_it_stands_and_however_far_the_log_goes() {
    // A second copy of the third event, where no event belongs.
    let key = |shard: u16, position: u64| [&shard.to_be_bytes()[..], &position.to_be_bytes()].concat();
    let data = ledger("same").await;
    let mut last = Vec::new();
    edit(data.path(), |db| {
        let events = db.iterator_cf(db.cf_handle("events").unwrap(), rocksdb::IteratorMode::Start).map(Result::unwrap);
        last = events.filter(|(key, _)| key.starts_with(&[0, 0])).last().unwrap().0.to_vec();
    });
    let places = [
        ("before the first event", vec![0]),
        ("between two events", [key(0, 5), vec![0]].concat()),
        ("right behind a shard's last event", [last, vec![0]].concat()),
        ("between two shards", [key(0, u64::MAX), vec![0]].concat()),
        ("behind the last event", key(1, 1 << 40)),
        ("behind the last event of its shard", key(0, 1 << 40)),
        ("in a shard that there is not", key(7, 0)),
    ];
    for (what, location) in places {
        edit(data.path(), |db| {
            let events = db.cf_handle("events").unwrap();
            let record = db.get_cf(events, key(0, 2)).unwrap().unwrap();
            db.put_cf(events, &location, record).unwrap();
        });
        let (code, said) = verify(data.path(), &[]);
        let is_its_shard = location.len() == key(0, 0).len() && location.starts_with(&[0, 0]);
        let kind = match location.len() == key(0, 0).len() {
            true if is_its_shard => "sequence gap: expected ",
            true => "it stands where no event of its agent can",
            false => "its row is damaged",
        };
        assert!(code == 1 && said.contains(kind) && said.contains("events verified: 1 BROKEN"), "{what}: {said}");
        // What is nobody's event, also of an agent that no event was seen of.
        for nothing in [vec![], vec![2; 100]] {
            edit(data.path(), |db| db.put_cf(db.cf_handle("events").unwrap(), &location, &nothing).unwrap());
            let (code, said) = verify(data.path(), &[]);
            assert!(code == 1 && said.contains("BROKEN: unreadable at sequence 1"), "{what}, {nothing:?}: {said}");
        }
        edit(data.path(), |db| db.delete_cf(db.cf_handle("events").unwrap(), &location).unwrap());
        assert_eq!(verify(data.path(), &[]).0, 0, "{what}");
    }
    // The log ends early, and ends in the middle of what it is said to have: the last event is verified all the same.
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
        let (code, said) = verify(data.path(), &[]);
        assert!(code == 1 && said.contains("600 events verified: all valid") && said.contains("log: BROKEN"), "{said}");
        edit(data.path(), |db| {
            let events = db.cf_handle("events").unwrap();
            let last = db.iterator_cf(events, rocksdb::IteratorMode::End).next().unwrap().unwrap();
            let mut record = last.1.to_vec();
            *record.last_mut().unwrap() ^= 1;
            db.put_cf(events, last.0, record).unwrap();
        });
        let (code, said) = verify(data.path(), &[]);
        assert!(code == 1 && said.contains("BROKEN: hash mismatch") && said.contains("599 events verified"), "{said}");
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
        let (code, said) = verify(data.path(), &[]);
        let named = format!("log: BROKEN: the event of leaf {leaf} is missing or cannot be read");
        assert!(code == 1 && said.contains(&named) && said.contains("unreadable at sequence"), "{leaf}: {said}");
    }
}
