//! Verification of a ledger names the agent, the sequence and the kind of break for every change to the database.

use std::path::Path;

use cairn::ledger::format::frame::{self, Frame};
use cairn::ledger::format::keys::{Agent, Run};
use cairn::ledger::format::record::RecordRef;
use cairn::ledger::store::Compression;
use cairn_proof::chain::Sequence;
use rocksdb::{DB, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Process, TestServer, config, run_text};

const FAMILIES: [&str; 10] =
    ["events", "chain", "agents", "times", "client_ids", "index", "log", "tiles", "relay", "meta"];

/// Edits a closed database, with each record in a row of its own. Afterwards each record is in a frame of its own.
pub fn edit(data_dir: &Path, change: impl FnOnce(&DB)) {
    edit_frames(data_dir, |db| {
        replace_events(db, |key, value| {
            let mut unpacked = Vec::new();
            let frame = frame::unpack(value, &mut unpacked).and_then(|()| Frame::decode(key, value, &unpacked));
            let Some(frame) = frame else { return vec![(key.to_vec(), value.to_vec())] };
            (0..frame.count()).map(|at| (frame.location(at).encode().to_vec(), frame.record(at).to_vec())).collect()
        });
        change(db);
        replace_events(db, |key, record| vec![(key.to_vec(), framed(&[record]))]);
    });
}

/// Edits a closed database, with its frames as they are.
pub fn edit_frames(data_dir: &Path, change: impl FnOnce(&DB)) {
    let db = DB::open_cf(&Options::default(), data_dir, FAMILIES).unwrap();
    change(&db);
}

fn replace_events(db: &DB, rows: impl Fn(&[u8], &[u8]) -> Vec<(Vec<u8>, Vec<u8>)>) {
    let events = db.cf_handle("events").unwrap();
    let stored: Vec<_> = db.iterator_cf(events, rocksdb::IteratorMode::Start).map(Result::unwrap).collect();
    let replaced: Vec<_> = stored.iter().flat_map(|(key, value)| rows(key, value)).collect();
    stored.iter().for_each(|(key, _)| db.delete_cf(events, key).unwrap());
    replaced.iter().for_each(|(key, value)| db.put_cf(events, key, value).unwrap());
}

/// A frame with these records.
fn framed(records: &[&[u8]]) -> Vec<u8> {
    let mut frame = frame::FrameBuilder::new(Compression::Lz4);
    records.iter().for_each(|record| frame.add(record));
    frame.finish().unwrap().to_vec()
}

/// The ledger of a stopped server: ten events of agent `a` and five of agent `b`. Every third one has warnings.
async fn ledger() -> TempDir {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for n in 0..15 {
        let mut event = json!({"agent_id": (["a", "b", "a"][n % 3]), "action_name": format!("step {n}")});
        if n % 3 == 0 {
            event["odd"] = json!(n);
        }
        server.store(&event).await;
    }
    server.stop().await.unwrap();
    data
}

fn key(position: u64) -> Vec<u8> {
    [&[0, 0][..], &position.to_be_bytes()].concat()
}

fn change(data: &TempDir, position: u64, change: impl Fn(&mut Vec<u8>)) {
    edit(data.path(), |db| {
        let events = db.cf_handle("events").unwrap();
        let mut record = db.get_cf(events, key(position)).unwrap().unwrap();
        change(&mut record);
        db.put_cf(events, key(position), record).unwrap();
    });
}

/// Runs `cairn verify` on the data directory; returns exit status and output.
fn verify(data: &TempDir, what: &[&str]) -> (i32, String) {
    let data_dir = data.path().to_str().unwrap();
    let (code, out, err) = run_text(&[&["verify", "--data-dir", data_dir], what].concat());
    (code, out + &err)
}

/// Asserts that `--agent-id` and `--all` report one of the messages in `kind` for agent `a`, and that agent `b` is
/// valid.
fn assert_break(data: &TempDir, sequence: u64, kind: &str, what: &str) {
    let (code, out) = verify(data, &["--agent-id", "a"]);
    assert_eq!(code, 1, "{what}: {out}");
    let (code, all) = verify(data, &["--all"]);
    assert_eq!(code, 1, "{what}: {all}");
    for out in [&out, &all] {
        let line = out.lines().find(|line| line.starts_with("a: BROKEN: ")).unwrap_or_else(|| panic!("{what}: {out}"));
        assert!(line.contains(&sequence.to_string()), "{what}: {line}, not at {sequence}");
        assert!(kind.split('|').any(|kind| line.contains(kind)), "{what}: {line}, not {kind}");
    }
    assert!(!all.contains("b: BROKEN"), "{what}: {all}");
    let (code, out) = verify(data, &["--agent-id", "b"]);
    assert_eq!(code, 0, "{what}: {out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_untouched_ledger_is_valid() {
    let data = ledger().await;
    let (code, out) = verify(&data, &["--all"]);
    assert_eq!(
        (code, out.as_str()),
        (0, "2 agents, 15 events verified: all valid\nlog: 15 events, 1 checkpoint verified: valid\n")
    );
    let (code, out) = verify(&data, &["--agent-id", "a", "--json"]);
    let verdict: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &verdict["events_verified"]), (0, &json!(10)));
    let (code, out) = verify(&data, &["--agent-id", "nobody"]);
    assert_eq!((code, out.as_str()), (3, "cairn: there is no agent \"nobody\"\n"));
}

/// A closed pipe does not change the exit status.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_ledger_is_reported_by_the_exit_status_also_when_the_output_is_closed_early() {
    let data = ledger().await;
    change(&data, 9, |record| *record.last_mut().unwrap() ^= 1);
    for what in [&["--all"][..], &["--agent-id", "a"]] {
        let mut command = crate::support::harness::cairn();
        command.args(["verify", "--data-dir", data.path().to_str().unwrap()]).args(what);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{what:?}");
    }
}

/// Positions 0 to 14 contain events of a, b, a, a, b, a ...; position 9 has the seventh one of a, which has warnings.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_of_each_part_of_a_record_is_named() {
    let data = ledger().await;
    let mut original = Vec::new();
    edit(data.path(), |db| original = db.get_cf(db.cf_handle("events").unwrap(), key(9)).unwrap().unwrap());
    let canonical_at = original.windows(2).position(|pair| pair == b"{\"").unwrap();
    assert!(canonical_at > 97, "the record has warnings");
    // Some bytes of each part of the record only, because each needs several runs of the program.
    let bytes: Vec<usize> =
        [0, 1, 16, 17, 24, 25, 56, 57, 88, 89, 90, 91, 92, 93, 94, canonical_at - 5, canonical_at - 1]
            .into_iter()
            .chain((canonical_at..original.len()).step_by(37))
            .chain([original.len() - 1])
            .collect();
    for at in bytes {
        change(&data, 9, |record| {
            record.clone_from(&original);
            record[at] ^= 1;
        });
        let expected = match at {
            0 => "unknown record format",
            1..17 => "another agent's event|agent key does not match|gap: expected 7",
            17..25 => "gap: expected 7",
            25..57 => "broken link",
            57..89 => "hash mismatch",
            89..93 => "truncated|damaged|hash mismatch",
            _ if at < canonical_at => "warnings are damaged",
            _ => "hash mismatch",
        };
        assert_break(&data, 7, expected, &format!("byte {at}"));
    }
}

/// Every bit of every byte, without starting the program.
#[tokio::test(flavor = "multi_thread")]
async fn changing_any_bit_of_a_record_breaks_the_walk() {
    let data = ledger().await;
    let mut chain = Vec::new();
    // The first seven events of agent `a`; the last of them has warnings.
    edit(data.path(), |db| {
        let read = |position| db.get_cf(db.cf_handle("events").unwrap(), key(position)).unwrap().unwrap();
        chain = [0, 2, 3, 5, 6, 8, 9].map(read).to_vec();
    });
    let agent = cairn_proof::chain::AgentKey::of("a");
    let mut checker = cairn_proof::chain::walk::Checker::default();
    let mut follows = |before: &cairn_proof::chain::Walk, record: &[u8]| {
        let record = RecordRef::parse(record).ok().filter(|record| record.agent() == agent)?;
        let mut walk = *before;
        walk.step(&record.link(), &mut checker).ok().map(|()| walk)
    };
    let last = chain.pop().unwrap();
    let before = chain.iter().fold(cairn_proof::chain::Walk::default(), |walk, record| follows(&walk, record).unwrap());
    assert!(follows(&before, &last).is_some());
    for at in 0..last.len() {
        for bit in 0..8 {
            let mut changed = last.clone();
            changed[at] ^= 1 << bit;
            assert!(follows(&before, &changed).is_none(), "bit {bit} of byte {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_removed_swapped_changed_or_added_are_found() {
    let data = ledger().await;
    let restore = |data: &TempDir, rows: &[(u64, Vec<u8>)]| {
        edit(data.path(), |db| {
            for (position, record) in rows {
                db.put_cf(db.cf_handle("events").unwrap(), key(*position), record).unwrap();
            }
        });
    };
    let read = |data: &TempDir, positions: &[u64]| {
        let mut rows = Vec::new();
        edit(data.path(), |db| {
            let get = |&position: &u64| {
                (position, db.get_cf(db.cf_handle("events").unwrap(), key(position)).unwrap().unwrap())
            };
            rows = positions.iter().map(get).collect::<Vec<_>>();
        });
        rows
    };
    let whole = read(&data, &[2, 3, 8, 14]);

    edit(data.path(), |db| db.delete_cf(db.cf_handle("events").unwrap(), key(8)).unwrap());
    assert_break(&data, 6, "event is missing|gap: expected 6, found 7", "an event removed");
    restore(&data, &whole);

    restore(&data, &[(2, whole[1].1.clone()), (3, whole[0].1.clone())]);
    assert_break(&data, 2, "gap: expected 2, found 3", "two events swapped");
    restore(&data, &whole);

    edit(data.path(), |db| db.delete_cf(db.cf_handle("events").unwrap(), key(14)).unwrap());
    assert_break(&data, 10, "event is missing|wrong head", "the last event removed");
    restore(&data, &whole);

    // Events 8 and 9 of agent `a` are at positions 11 and 12, and their run is a row of `chain`.
    let of_agent = cairn_proof::chain::AgentKey::of("a");
    let run_key = |first| Run::key(of_agent, Sequence(first));
    let put_run =
        |db: &DB, first: u64, run: &[u8]| db.put_cf(db.cf_handle("chain").unwrap(), run_key(first), run).unwrap();
    let (mut run, mut before) = (Vec::new(), Vec::new());
    edit(data.path(), |db| {
        let chain = db.cf_handle("chain").unwrap();
        [run, before] = [8, 6].map(|first| db.get_cf(chain, run_key(first)).unwrap().unwrap());
        db.delete_cf(chain, run_key(8)).unwrap();
    });
    assert_break(&data, 8, "gap: expected 8, found 10|`chain` is missing", "a run removed");

    // A run that leads to another location.
    let elsewhere = |run: &[u8]| [&run[..2], &2u64.to_be_bytes(), &run[10..]].concat();
    edit(data.path(), |db| put_run(db, 8, &elsewhere(&run)));
    assert_break(
        &data,
        8,
        "`chain` is missing or wrong|another agent|gap: expected 8, found 2",
        "a run that leads elsewhere",
    );
    // Two runs replaced by one with the same sequences and other locations.
    edit(data.path(), |db| {
        db.delete_cf(db.cf_handle("chain").unwrap(), run_key(8)).unwrap();
        put_run(db, 6, &[&before[..10], &4u32.to_be_bytes()].concat());
    });
    assert_break(&data, 8, "`chain` is missing or wrong|another agent|event is missing", "two runs merged");
    edit(data.path(), |db| {
        put_run(db, 6, &before);
        put_run(db, 8, &run);
    });
    // The last run is in the row of the agent.
    let change_head = |change: &dyn Fn(&mut Agent)| {
        edit(data.path(), |db| {
            let agents = db.cf_handle("agents").unwrap();
            let mut head = Agent::decode(&db.get_cf(agents, of_agent.0).unwrap().unwrap()).unwrap();
            change(&mut head);
            db.put_cf(agents, of_agent.0, head.encode()).unwrap();
        });
    };
    change_head(&|head| head.run.location.position.0 = 2);
    assert_break(&data, 10, "`chain` is missing or wrong|gap: expected 10, found 2", "a last run that leads elsewhere");
    change_head(&|head| (head.run.location.position.0, head.run.count) = (13, 2));
    assert_break(&data, 10, "`chain` is missing or wrong|gap: expected 10, found 9", "a last run that is longer");
    change_head(&|head| (head.run.location.position.0, head.run.count) = (14, 1));
    assert_eq!(verify(&data, &["--all"]).0, 0);
    // A run of an agent without events: no other agent is reported.
    let unknown_agent = [&[0; 16][..], &1u64.to_be_bytes()].concat();
    edit(data.path(), |db| db.put_cf(db.cf_handle("chain").unwrap(), &unknown_agent, &run).unwrap());
    let (code, out) = verify(&data, &["--all"]);
    assert!(code == 1 && out.lines().count() == 5 && out.contains("chain: row 0000"), "{out}");
    edit(data.path(), |db| db.delete_cf(db.cf_handle("chain").unwrap(), &unknown_agent).unwrap());

    // A record with another content and a matching hash: only the next event, or the head, shows the change.
    let changed = |record: &[u8]| with_matching_hash(record, "step", "stop");
    restore(&data, &[(8, changed(&whole[2].1))]);
    assert_break(&data, 7, "broken link", "an event rewritten with its hash");
    restore(&data, &whole);
    restore(&data, &[(14, changed(&whole[3].1))]);
    assert_break(&data, 11, "wrong head", "the last event rewritten with its hash");
    restore(&data, &whole);
    assert_eq!(verify(&data, &["--all"]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_not_a_canonical_event_is_found_although_its_hash_matches() {
    let data = ledger().await;
    let mut original = Vec::new();
    edit(data.path(), |db| original = db.get_cf(db.cf_handle("events").unwrap(), key(14)).unwrap().unwrap());
    for (from, to, kind) in [
        ("\"1.0\"", "\"1.0\" ", "not in canonical form"),
        ("source", "sourcf", "unknown field"),
        ("\"agent_id\":\"a\",", "", "agent_id is missing|agent key does not match"),
        ("\"a\"", "\"c\"", "belongs to agent \"c\"|agent key does not match"),
    ] {
        change(&data, 14, |record| *record = with_matching_hash(&original, from, to));
        for what in [&["--agent-id", "a"][..], &["--all"]] {
            let (code, out) = verify(&data, what);
            assert_eq!(code, 1, "{to}: {out}");
            assert!(kind.split('|').any(|kind| out.contains(kind)), "{to}: {out}");
        }
    }
}

/// A record with `from` replaced by `to` in its content, and the matching hash.
fn with_matching_hash(record: &[u8], from: &str, to: &str) -> Vec<u8> {
    let at = record.windows(2).position(|pair| pair == b"{\"").unwrap();
    let canonical = String::from_utf8(record[at..].to_vec()).unwrap();
    assert!(canonical.contains(from));
    let canonical = canonical.replace(from, to);
    let prev = cairn_proof::chain::Hash(record[25..57].try_into().unwrap());
    let hash = cairn_proof::chain::Hash::of_event(canonical.as_bytes(), &prev);
    [&record[..57], &hash.0, &record[89..at], canonical.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_is_verified_and_listed_while_its_server_writes() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    let client = reqwest::Client::new();
    let url = server.url.clone();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writer = tokio::spawn({
        let (stop, client, url) = (stop.clone(), client.clone(), url.clone());
        async move {
            let mut sent = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let batch: Vec<Value> =
                    (0..50).map(|n| json!({"agent_id": format!("a{}", n % 7), "action_input": n})).collect();
                let request = client.post(format!("{url}/v1/batch")).header("content-type", "application/json");
                let response = request.body(Value::from(batch).to_string()).send().await.unwrap();
                assert_eq!(response.status(), 201);
                sent += 50;
            }
            sent
        }
    });
    crate::support::harness::eventually("some events", async || {
        let stats = client.get(format!("{url}/v1/stats")).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&stats).unwrap()["total_events"].as_u64().unwrap() > 500
    })
    .await;
    let data_dir = data.path().to_str().unwrap().to_owned();
    let (code_all, all, log, on_server) = tokio::task::spawn_blocking(move || {
        let all = run_text(&["verify", "--all", "--data-dir", &data_dir]);
        let log = run_text(&["log", "--agent-id", "a3", "--last", "20", "--json", "--data-dir", &data_dir]);
        (all.0, all, log, run_text(&["verify", "--all", "--server", &url]))
    })
    .await
    .unwrap();
    assert_eq!(code_all, 0, "{all:?}");
    let sequences: Vec<u64> =
        log.1.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["sequence"].as_u64().unwrap()).collect();
    assert_eq!((log.0, sequences.len()), (0, 20), "{log:?}");
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!((on_server.0, on_server.1.lines().count()), (0, 7), "{on_server:?}");
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(writer.await.unwrap() > 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_names_the_broken_chain_and_does_not_start_over_a_break_near_the_end() {
    let data = ledger().await;
    change(&data, 2, |record| *record.last_mut().unwrap() ^= 1);
    // Every event of so small a ledger is near its end, which the start checks.
    let Err(error) = TestServer::start_with(&config(data.path()), |store| store).await else { panic!("it started") };
    assert!(error.to_string().contains("hash mismatch at sequence 2"), "{error}");
    assert!(error.to_string().contains("cairn verify --all"), "{error}");

    // With enough events after the break the server starts, and reports the break when it is asked.
    change(&data, 2, |record| *record.last_mut().unwrap() ^= 1);
    let server = TestServer::start(&config(data.path())).await;
    let batch: Vec<Value> = (0..200).map(|_| json!({"agent_id": "b"})).collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    server.stop().await.unwrap();
    change(&data, 2, |record| *record.last_mut().unwrap() ^= 1);
    let server = TestServer::start(&config(data.path())).await;
    let verdict = server.get("/v1/verify?agent_id=a").await.json();
    assert_eq!((&verdict["valid"], &verdict["sequence"]), (&json!(false), &json!(2)));
    assert_eq!(verdict["error"], "hash mismatch at sequence 2");
    assert_eq!(server.get("/v1/verify?agent_id=b").await.json()["valid"], true);
    assert_eq!(server.get("/v1/stats").await.json()["chain_health"], 0.5);
    let url = server.url.clone();
    let out = tokio::task::spawn_blocking(move || run_text(&["verify", "--all", "--server", &url])).await.unwrap();
    assert_eq!(out.0, 1, "{out:?}");
    assert!(out.1.contains("a: BROKEN: hash mismatch at sequence 2"), "{out:?}");
    server.stop().await.unwrap();
}
