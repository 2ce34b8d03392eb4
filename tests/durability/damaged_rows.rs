//! Events that stand in one row: what is done to the row, and what `cairn verify --all` says of it.

use cairn::ledger::format::frame::{Frame, FrameBuilder};
use cairn::ledger::format::keys::{Agent, Location, Position, Run, ShardId};
use cairn::ledger::store::Compression;
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use rocksdb::DB;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::verify::edit_frames;
use crate::support::harness::{Running, config, run_text};

/// How many events a ledger has: of two agents in turn, in frames of a few dozen.
const EVENTS: usize = 200;

async fn ledger() -> TempDir {
    let data = TempDir::new().unwrap();
    let server = Running::start(&config(data.path())).await;
    let event = |n: usize| json!({"agent_id": (["a", "b"][n % 2]), "action_output": "said ".repeat(20)});
    let batch: Vec<Value> = (0..EVENTS).map(event).collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    server.stop().await.unwrap();
    data
}

fn rows(db: &DB) -> Vec<(Vec<u8>, Vec<u8>)> {
    let rows = db.iterator_cf(db.cf_handle("events").unwrap(), rocksdb::IteratorMode::Start);
    rows.map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
}

fn put(db: &DB, key: &[u8], value: &[u8]) {
    db.put_cf(db.cf_handle("events").unwrap(), key, value).unwrap();
}

fn records(key: &[u8], value: &[u8]) -> Vec<Vec<u8>> {
    let frame = Frame::decode(key, value).unwrap();
    (0..frame.count()).map(|at| frame.record(at).to_vec()).collect()
}

fn framed(records: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = FrameBuilder::default();
    records.iter().for_each(|record| frame.add(record));
    frame.finish().unwrap().to_vec()
}

fn at(position: u64) -> [u8; 10] {
    Location { shard: ShardId(0), position: Position(position) }.encode()
}

fn verify(data: &TempDir) -> (i32, String) {
    let (code, out, err) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    (code, out + &err)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_commit_share_rows_and_a_damaged_row_is_found() {
    let data = ledger().await;
    let mut whole = Vec::new();
    edit_frames(data.path(), |db| whole = rows(db));
    let counts: Vec<usize> = whole.iter().map(|(key, value)| records(key, value).len()).collect();
    assert!(counts.len() > 2 && counts[0] > 20 && counts.iter().sum::<usize>() == EVENTS, "{counts:?}");
    let (code, said) = verify(&data);
    assert!(code == 0 && said.contains("200 events verified: all valid"), "{said}");
    let (key, value) = whole[1].clone();
    let behind_records: usize = records(&key, &value).iter().map(Vec::len).sum();
    let cut = |by: usize| value[..value.len() - by].to_vec();
    let flipped = |at: usize| {
        let mut value = value.clone();
        value[at] ^= 1;
        value
    };
    let len = value.len();
    let damaged = [("cut by a byte", cut(1)), ("cut by its count", cut(4)), ("empty", Vec::new())];
    let damaged = damaged.into_iter().chain((0..4).map(|n| ("a byte of its count", flipped(len - 1 - n))));
    let damaged = damaged.chain((0..4).map(|n| ("a byte of its last end", flipped(len - 5 - n))));
    let damaged = damaged.chain((0..8).map(|n| ("a byte of its first ends", flipped(behind_records + n))));
    for (what, value) in damaged {
        edit_frames(data.path(), |db| put(db, &key, &value));
        let (code, said) = verify(&data);
        assert!(code == 1 && said.contains("BROKEN: ") && said.contains("log: BROKEN"), "{what}: {said}");
        assert!(value.is_empty() || said.contains("a: BROKEN") || said.contains("b: BROKEN"), "{what}: {said}");
    }
    edit_frames(data.path(), |db| put(db, &key, &value));
    assert_eq!(verify(&data).0, 0);
}

/// Each of these leaves every chain whole for whoever does not see that two rows claim one location.
#[tokio::test(flavor = "multi_thread")]
async fn no_event_stands_in_two_rows() {
    let data = ledger().await;
    let mut whole = Vec::new();
    edit_frames(data.path(), |db| whole = rows(db));
    // The event that would be next in the chain of `b`, whose last event is the last of all.
    let last = records(&whole.last().unwrap().0, &whole.last().unwrap().1).pop().unwrap();
    let sequence = Sequence(u64::from_be_bytes(last[17..25].try_into().unwrap()) + 1);
    let canonical = &last[93..];
    let hash = Hash::of_event(canonical, &Hash(last[57..89].try_into().unwrap()));
    let next = [&last[..17], &sequence.0.to_be_bytes(), &last[57..89], &hash.0, &last[89..93], canonical].concat();
    let agent = AgentKey::of("b");
    let grow = |db: &DB, position: u64| {
        let agents = db.cf_handle("agents").unwrap();
        let mut head = Agent::decode(&db.get_cf(agents, agent.0).unwrap().unwrap()).unwrap();
        if head.sequence < sequence {
            let before = head.run;
            db.put_cf(db.cf_handle("chain").unwrap(), Run::key(agent, before.first), before.encode()).unwrap();
        }
        let location = Location { shard: ShardId(0), position: Position(position) };
        (head.sequence, head.hash, head.run) = (sequence, hash, Run { first: sequence, location, count: 1 });
        db.put_cf(agents, agent.0, head.encode()).unwrap();
    };
    // Behind the last event it is one that the log does not have yet: nothing is wrong.
    let end = EVENTS as u64;
    edit_frames(data.path(), |db| {
        put(db, &at(end), &framed(std::slice::from_ref(&next)));
        grow(db, end);
    });
    let (code, said) = verify(&data);
    assert!(code == 0 && said.contains("201 events verified: all valid"), "{said}");
    // In the location of another event, in a row that sorts before that event's, or behind it.
    let (first_key, first) = &whole[0];
    let count = records(first_key, first).len() as u64;
    let reaching_back = framed(&vec![next.clone(); (end + 1 - (count - 1)) as usize]);
    for (what, key, value) in [
        ("a row within another", at(5), framed(std::slice::from_ref(&next))),
        ("a row that reaches back over others", at(end), reaching_back),
    ] {
        edit_frames(data.path(), |db| {
            db.delete_cf(db.cf_handle("events").unwrap(), at(end)).unwrap();
            put(db, &key, &value);
            grow(db, Location::decode(&key).unwrap().position.0);
        });
        let (code, said) = verify(&data);
        assert!(
            code == 1 && said.contains("BROKEN: unreadable") && said.contains("its row is damaged"),
            "{what}: {said}"
        );
        edit_frames(data.path(), |db| db.delete_cf(db.cf_handle("events").unwrap(), key).unwrap());
    }
}

/// What a forger writes to make sums overflow. Nobody ends in a panic, and nobody takes it for a number.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_the_ledger_never_reaches_are_damage() {
    const ENDLESS: [u8; 8] = u64::MAX.to_be_bytes();
    let key = AgentKey::of("a").0;
    let get = |db: &DB, family: &str, key: &[u8]| db.get_cf(db.cf_handle(family).unwrap(), key).unwrap().unwrap();
    let put = |db: &DB, family: &str, key: &[u8], value: &[u8]| {
        db.put_cf(db.cf_handle(family).unwrap(), key, value).unwrap();
    };
    let change_head = |db: &DB, at: usize| {
        let mut head = get(db, "agents", &key);
        head[at..at + 8].copy_from_slice(&ENDLESS);
        put(db, "agents", &key, &head);
    };
    let last_row_nowhere = |db: &DB| {
        let (_, value) = rows(db).pop().unwrap();
        put(db, "events", &[&[0, 0], &ENDLESS[..]].concat(), &value);
    };
    let last_of_all = |db: &DB| {
        let (key, value) = rows(db).pop().unwrap();
        let mut records = records(&key, &value);
        records.iter_mut().for_each(|record| record[17..25].copy_from_slice(&ENDLESS));
        put(db, "events", &key, &framed(&records));
    };
    let run = |db: &DB| {
        let first = [&key[..], &1u64.to_be_bytes()].concat();
        let mut run = get(db, "chain", &first);
        run[2..10].copy_from_slice(&ENDLESS);
        put(db, "chain", &first, &run);
    };
    type Forgery<'f> = (&'f str, bool, &'f dyn Fn(&DB));
    let forgeries: [Forgery<'_>; 6] = [
        ("the key of a row", true, &last_row_nowhere),
        ("the sequences of records", true, &last_of_all),
        ("the sequence of a head", true, &|db| change_head(db, 0)),
        ("the time of a head", true, &|db| change_head(db, 48)),
        ("the location of a head's run", true, &|db| change_head(db, 58)),
        ("the location of a run", false, &run),
    ];
    for (what, is_near_the_end, forge) in forgeries {
        let data = ledger().await;
        edit_frames(data.path(), forge);
        let (code, said) = verify(&data);
        assert!(code == 1 && said.contains("BROKEN: "), "{what}: {code} {said}");
        match Running::start_with(&config(data.path()), |store| store).await {
            Ok(server) => {
                assert!(!is_near_the_end, "{what}: it started");
                assert_eq!(server.get("/v1/verify?agent_id=a").await.json()["valid"], false, "{what}");
                server.stop().await.unwrap();
            }
            Err(error) => assert!(is_near_the_end && error.to_string().contains("damaged"), "{what}: {error}"),
        }
    }
}

/// The room that 2,000 more events take, once they stand in tables.
async fn stored_with(compression: Compression, data: &TempDir) -> u64 {
    let mut config = config(data.path());
    config.storage.compression = compression;
    let server = Running::start(&config).await;
    let event = |n: usize| json!({"agent_id": "a", "action_output": format!("{n} of {} words, ", n * 7919).repeat(20)});
    let batch: Vec<Value> = (0..2000).map(event).collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    server.stop().await.unwrap();
    // What a stop has left in the write-ahead log alone, a start moves to tables.
    Running::start(&config).await.stop().await.unwrap();
    let files = std::fs::read_dir(data.path()).unwrap().map(Result::unwrap);
    let tables = files.filter(|file| file.path().extension().is_some_and(|end| end == "sst"));
    tables.map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn compression_may_be_changed_and_what_is_stored_stays_readable() {
    let mut sizes = Vec::new();
    for [first, second] in [[Compression::Lz4, Compression::Zstd], [Compression::Zstd, Compression::Lz4]] {
        let data = TempDir::new().unwrap();
        sizes.push(stored_with(first, &data).await);
        stored_with(second, &data).await;
        let (code, said) = verify(&data);
        assert!(code == 0 && said.contains("4000 events verified: all valid"), "{said}");
    }
    assert!(sizes[1] > 0 && sizes[1] * 20 < sizes[0] * 19, "zstd takes less room than lz4: {sizes:?}");
}
