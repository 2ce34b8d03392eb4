//! Frames, the rows that consecutive events of a commit share: `cairn verify --all` finds every kind of damage to one.

use cairn::ledger::format::frame::{self, Frame, FrameBuilder};
use cairn::ledger::format::keys::{Agent, Location, Position, Run, ShardId};
use cairn::ledger::store::Compression;
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use rocksdb::DB;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::audit::verify::edit_frames;
use crate::support::harness::{TestServer, config, run_text};

/// The number of events in a ledger. Two agents alternate; a frame has more than a hundred events.
const EVENTS: usize = 500;

async fn ledger() -> TempDir {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
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
    let mut unpacked = Vec::new();
    frame::unpack(value, &mut unpacked).unwrap();
    let frame = Frame::decode(key, value, &unpacked).unwrap();
    (0..frame.count()).map(|at| frame.record(at).to_vec()).collect()
}

fn framed(records: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = FrameBuilder::new(Compression::Lz4);
    records.iter().for_each(|record| frame.add(record));
    frame.finish().unwrap().to_vec()
}

/// A frame that is not compressed, as in format 3.
fn plain_frame(records: &[Vec<u8>]) -> Vec<u8> {
    let mut frame = records.concat();
    let ends = records.iter().scan(0, |end, record| {
        *end += record.len() as u32;
        Some(*end)
    });
    ends.for_each(|end| frame.extend_from_slice(&end.to_be_bytes()));
    frame.extend_from_slice(&(records.len() as u32).to_be_bytes());
    frame
}

fn at(position: u64) -> [u8; 10] {
    Location { shard: ShardId(0), position: Position(position) }.encode()
}

fn verify(data: &TempDir) -> (i32, String) {
    let (code, out, err) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    (code, out + &err)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_is_found() {
    let data = ledger().await;
    let mut original = Vec::new();
    edit_frames(data.path(), |db| original = rows(db));
    let counts: Vec<usize> = original.iter().map(|(key, value)| records(key, value).len()).collect();
    assert!(counts.len() > 2 && counts[0] > 20 && counts.iter().sum::<usize>() == EVENTS, "{counts:?}");
    let (code, output) = verify(&data);
    assert!(code == 0 && output.contains("500 events verified: all valid"), "{output}");
    let (key, packed) = original[1].clone();
    let (records, plain) = (records(&key, &packed), plain_frame(&records(&key, &packed)));
    let records_len: usize = records.iter().map(Vec::len).sum();
    assert!(packed.len() < records_len / 2, "{} of {records_len} bytes", packed.len());
    let flipped = |value: &[u8], at: usize| {
        let mut value = value.to_vec();
        value[at] ^= 1;
        value
    };
    let damages = |value: &[u8]| {
        let len = value.len();
        let damages = [("one byte shorter", value[..len - 1].to_vec()), ("without its end", value[..len - 4].to_vec())];
        let count = (0..4).map(|n| ("a byte of its count or packing changed", flipped(value, len - 1 - n)));
        let last = (0..4).map(|n| ("a byte of its length or last end offset changed", flipped(value, len - 5 - n)));
        damages.into_iter().chain(count).chain(last).chain([("empty", Vec::new())]).collect::<Vec<_>>()
    };
    let mut damaged = [damages(&packed), damages(&plain)].concat();
    damaged.extend((0..8).map(|n| ("a byte of its first end offsets changed", flipped(&plain, records_len + n))));
    damaged.extend([0, 40, 100].map(|at| ("a compressed byte changed", flipped(&packed, at))));
    for (what, value) in damaged {
        edit_frames(data.path(), |db| put(db, &key, &value));
        let (code, output) = verify(&data);
        assert!(code == 1 && output.contains("BROKEN: "), "{what}: {output}");
    }
    // A row of format 3 holds the same.
    edit_frames(data.path(), |db| put(db, &key, &plain));
    assert_eq!(verify(&data).0, 0);
}

/// Every chain stays valid; only the two rows that claim the same location show the damage.
#[tokio::test(flavor = "multi_thread")]
async fn two_rows_that_claim_the_same_location_are_found() {
    let data = ledger().await;
    let mut original = Vec::new();
    edit_frames(data.path(), |db| original = rows(db));
    // The next event in the chain of `b`. The last event of `b` is the last event of the ledger.
    let last = records(&original.last().unwrap().0, &original.last().unwrap().1).pop().unwrap();
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
    // After the last event its chain is valid, it is not in the log yet, and ids of the last events need no row. The row of
    // its agent begins a run that continues the one before, so that row is named.
    let end = EVENTS as u64;
    edit_frames(data.path(), |db| {
        put(db, &at(end), &framed(std::slice::from_ref(&next)));
        grow(db, end);
    });
    let (code, output) = verify(&data);
    assert!(output.contains("501 events verified: all valid"), "{output}");
    let rows: Vec<&str> = output.lines().filter(|line| line.contains(": row ")).collect();
    assert!(code == 1 && rows.len() == 1 && rows[0].starts_with("agents: row "), "{output}");
    // At the location of another event, in a row that sorts before the row of that event, or after it.
    let (first_key, first) = &original[0];
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
        let (code, output) = verify(&data);
        assert!(
            code == 1 && output.contains("BROKEN: unreadable") && output.contains("its row is damaged"),
            "{what}: {output}"
        );
        edit_frames(data.path(), |db| db.delete_cf(db.cf_handle("events").unwrap(), key).unwrap());
    }
}

/// Values near `u64::MAX`, which could make additions overflow, are damage; they do not cause a panic.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_no_ledger_can_reach_are_reported_as_damage() {
    const MAX: [u8; 8] = u64::MAX.to_be_bytes();
    let key = AgentKey::of("a").0;
    let get = |db: &DB, family: &str, key: &[u8]| db.get_cf(db.cf_handle(family).unwrap(), key).unwrap().unwrap();
    let put = |db: &DB, family: &str, key: &[u8], value: &[u8]| {
        db.put_cf(db.cf_handle(family).unwrap(), key, value).unwrap();
    };
    let change_head = |db: &DB, at: usize| {
        let mut head = get(db, "agents", &key);
        head[at..at + 8].copy_from_slice(&MAX);
        put(db, "agents", &key, &head);
    };
    let move_last_row = |db: &DB| {
        let (_, value) = rows(db).pop().unwrap();
        put(db, "events", &[&[0, 0], &MAX[..]].concat(), &value);
    };
    let change_last_sequences = |db: &DB| {
        let (key, value) = rows(db).pop().unwrap();
        let mut records = records(&key, &value);
        records.iter_mut().for_each(|record| record[17..25].copy_from_slice(&MAX));
        put(db, "events", &key, &framed(&records));
    };
    let change_run = |db: &DB| {
        let first = [&key[..], &1u64.to_be_bytes()].concat();
        let mut run = get(db, "chain", &first);
        run[2..10].copy_from_slice(&MAX);
        put(db, "chain", &first, &run);
    };
    type Forgery<'f> = (&'f str, bool, &'f dyn Fn(&DB));
    let forgeries: [Forgery<'_>; 6] = [
        ("the key of a row", true, &move_last_row),
        ("the sequences of records", true, &change_last_sequences),
        ("the sequence of a head", true, &|db| change_head(db, 0)),
        ("the time of a head", true, &|db| change_head(db, 48)),
        ("the location of a head's run", true, &|db| change_head(db, 58)),
        ("the location of a run", false, &change_run),
    ];
    for (what, is_near_the_end, forge) in forgeries {
        let data = ledger().await;
        edit_frames(data.path(), forge);
        let (code, output) = verify(&data);
        assert!(code == 1 && output.contains("BROKEN: "), "{what}: {code} {output}");
        match TestServer::start_with(&config(data.path()), |store| store).await {
            Ok(server) => {
                assert!(!is_near_the_end, "{what}: the server started");
                assert_eq!(server.get("/v1/verify?agent_id=a").await.json()["valid"], false, "{what}");
                server.stop().await.unwrap();
            }
            Err(error) => assert!(is_near_the_end && error.to_string().contains("damaged"), "{what}: {error}"),
        }
    }
}

/// Stores 2,000 more events; returns the total size of the table files in bytes.
async fn stored_with(compression: Compression, data: &TempDir) -> u64 {
    let mut config = config(data.path());
    config.storage.compression = compression;
    let server = TestServer::start(&config).await;
    let word = || ["order", "customer", "paid", "refund", "of", "in", "march", "the"][fastrand::usize(..8)];
    let words = || (0..60).map(|_| format!("{} {} ", word(), fastrand::u8(..))).collect::<String>();
    let event = |_| json!({"agent_id": "a", "action_output": words()});
    let batch: Vec<Value> = (0..2000).map(event).collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    server.stop().await.unwrap();
    // A start flushes events that are only in the write-ahead log to table files.
    TestServer::start(&config).await.stop().await.unwrap();
    let files = std::fs::read_dir(data.path()).unwrap().map(Result::unwrap);
    let tables = files.filter(|file| file.path().extension().is_some_and(|end| end == "sst"));
    tables.map(|file| file.metadata().unwrap().len()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_events_stay_readable_when_the_compression_is_changed() {
    let mut sizes = Vec::new();
    for [first, second] in [[Compression::Lz4, Compression::Zstd], [Compression::Zstd, Compression::Lz4]] {
        let data = TempDir::new().unwrap();
        sizes.push(stored_with(first, &data).await);
        stored_with(second, &data).await;
        let (code, output) = verify(&data);
        assert!(code == 0 && output.contains("4000 events verified: all valid"), "{output}");
    }
    assert!(sizes[1] > 0 && sizes[1] * 20 < sizes[0] * 19, "zstd needs less space than lz4: {sizes:?}");
}
