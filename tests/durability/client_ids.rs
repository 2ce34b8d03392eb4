//! The ids of clients: at any age, across restarts, kills and shards, an id leads to its event, as in a model that only
//! knows the events.

use std::collections::HashMap;

use cairn::ledger::format::id_cursor;
use cairn::ledger::format::keys::{Location, Position, ShardId, cursor_key};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::audit::verify::edit_frames;
use crate::durability::faults::seed;
use crate::support::harness::{Answer, Process, TestServer, config, metric, run_text};

/// The number of events in a batch.
const BATCH: usize = 500;
/// The number of batches between two ends of the server.
const BATCHES: usize = 50;

/// What is known about an id: its event was stored with this hash, or the end of the server left that open.
enum Known {
    Stored(Value),
    Open,
}

#[derive(Default)]
struct Model {
    ids: Vec<Uuid>,
    known: HashMap<Uuid, Known>,
    repeated: usize,
    refused: usize,
}

/// The event with an id. `other` makes it a different one.
fn event(id: Uuid, other: bool) -> Value {
    json!({"id": id.to_string(), "agent_id": format!("agent-{}", id.as_u128() % 7), "action_input": other})
}

impl Model {
    /// A batch of new ids, of known ids of any age, and of known ids with another content.
    fn batch(&mut self, random: &mut fastrand::Rng) -> Vec<(Uuid, bool)> {
        let mut batch: Vec<(Uuid, bool)> = Vec::new();
        for _ in 0..BATCH {
            let old = (!self.ids.is_empty()).then(|| self.ids[random.usize(..self.ids.len())]);
            batch.push(match (random.u8(..10), old, batch.last()) {
                (0, Some(old), _) => (old, false),
                (1, Some(old), _) if matches!(self.known[&old], Known::Stored(_)) => (old, true),
                // Twice in one batch.
                (2, _, Some((last, false))) => (*last, false),
                _ => (Uuid::from_u128(random.u128(..) & !(0xF << 76) | 4 << 76), false),
            });
        }
        batch
    }

    /// Compares the answer with the model.
    fn check(&mut self, batch: &[(Uuid, bool)], answer: &Value) {
        let entries = answer.as_array().unwrap();
        assert_eq!(entries.len(), batch.len());
        for ((id, other), entry) in batch.iter().zip(entries) {
            let stored = entry.get("event").map(|event| event["hash"].clone());
            match (self.known.get(id), stored) {
                (Some(Known::Stored(hash)), Some(stored)) if !other => {
                    assert_eq!(*hash, stored, "{id} was stored twice");
                    self.repeated += 1;
                }
                (Some(Known::Stored(_)), None) if *other => {
                    assert_eq!(entry["retryable"], false, "{entry}");
                    self.refused += 1;
                }
                (None | Some(Known::Open), Some(stored)) if !other => {
                    self.know(*id, Known::Stored(stored));
                }
                (_, found) => panic!("{id} {other}: {found:?} {entry}"),
            }
        }
    }

    /// The end of the server left open whether the new ids of a batch are stored.
    fn leave_open(&mut self, batch: &[(Uuid, bool)]) {
        for (id, _) in batch {
            if !self.known.contains_key(id) {
                self.know(*id, Known::Open);
            }
        }
    }

    fn know(&mut self, id: Uuid, known: Known) {
        if self.known.insert(id, known).is_none() {
            self.ids.push(id);
        }
    }
}

async fn post(client: &reqwest::Client, url: &str, batch: &[(Uuid, bool)]) -> Option<Answer> {
    let events: Vec<Value> = batch.iter().map(|(id, other)| event(*id, *other)).collect();
    let sent = client
        .post(format!("{url}/v1/batch"))
        .header("content-type", "application/json")
        .body(json!(events).to_string())
        .send()
        .await;
    Some(Answer::of(sent.ok()?).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_leads_to_its_event_at_any_age() {
    let (mut random, mut model) = (fastrand::Rng::with_seed(seed()), Model::default());
    let (data, client) = (TempDir::new().unwrap(), reqwest::Client::new());
    // A segment has about 11,000 ids.
    let environment = [("CAIRN_SHARDS", "2"), ("CAIRN_STORAGE__MEMORY_BYTES", "8MiB")];
    let mut server = Process::start(data.path(), &environment);
    for round in 0..6 {
        for _ in 0..BATCHES {
            let batch = model.batch(&mut random);
            let answer = post(&client, &server.url, &batch).await.unwrap();
            model.check(&batch, &answer.json());
        }
        let text = client.get(format!("{}/metrics", server.admin_url)).send().await.unwrap().text().await.unwrap();
        let recent = metric(&text, "cairn_recent_ids").unwrap();
        assert!(
            recent <= 24_000.0 && metric(&text, "cairn_recent_ids_bytes").unwrap() <= (8 << 20) as f64 / 2.0,
            "{recent}"
        );
        if round % 2 == 0 {
            // While a batch is on its way: what it stored is open.
            let batch = model.batch(&mut random);
            let sent = tokio::spawn({
                let (client, url, batch) = (client.clone(), server.url.clone(), batch.clone());
                async move { post(&client, &url, &batch).await.map(|answer| answer.json()) }
            });
            // The pause is the subject: it chooses the moment of the kill.
            tokio::time::sleep(std::time::Duration::from_millis(random.u64(..15))).await;
            server.kill();
            match sent.await.unwrap() {
                Some(answer) => model.check(&batch, &answer),
                None => model.leave_open(&batch),
            }
        } else {
            kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
            server.child.wait().unwrap();
        }
        let (code, output, _) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
        assert_eq!(code, 0, "{output}");
        server = Process::start(data.path(), &environment);
    }
    // Every id once more, whatever its age.
    for ids in model.ids.clone().chunks(BATCH) {
        let batch: Vec<(Uuid, bool)> = ids.iter().map(|id| (*id, false)).collect();
        let answer = post(&client, &server.url, &batch).await.unwrap();
        model.check(&batch, &answer.json());
    }
    let events = Answer::of(client.get(format!("{}/v1/stats", server.url)).send().await.unwrap()).await.json();
    assert_eq!(events["total_events"], json!(model.ids.len()), "{events}");
    assert!(model.ids.len() > 80_000 && model.repeated > 80_000 && model.refused > 5000);
}

/// An id that leads to an event in a shard that does not exist is a finding, not a panic.
#[tokio::test(flavor = "multi_thread")]
async fn an_id_of_an_event_in_a_shard_that_does_not_exist_is_a_finding() {
    let (data, id) = (TempDir::new().unwrap(), Uuid::from_u128(4 << 76 | 9));
    let server = TestServer::start(&config(data.path())).await;
    server.store(&event(id, false)).await;
    server.stop().await.unwrap();
    edit_frames(data.path(), |db| {
        let (events, ids) = (db.cf_handle("events").unwrap(), db.cf_handle("client_ids").unwrap());
        let frame = db.get_cf(events, [0; 10]).unwrap().unwrap();
        let elsewhere = Location { shard: ShardId(5), position: Position(0) }.encode();
        db.put_cf(events, elsewhere, frame).unwrap();
        db.put_cf(ids, id.as_bytes(), elsewhere).unwrap();
    });
    let (code, output, errors) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    assert!(code == 1 && output.contains("BROKEN"), "{code} {output} {errors}");
}

/// Changes the cursor of the first shard in a closed ledger; `None` removes it.
fn change_cursor(data: &TempDir, value: Option<&[u8]>) -> Vec<u8> {
    let mut stored = Vec::new();
    edit_frames(data.path(), |db| {
        let (family, key) = (db.cf_handle("client_ids").unwrap(), cursor_key(ShardId(0)));
        stored = db.get_cf(family, key).unwrap().unwrap_or_default();
        match value {
            Some(value) => db.put_cf(family, key, value).unwrap(),
            None => db.delete_cf(family, key).unwrap(),
        }
    });
    stored
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_cursor_is_named_refused_or_harmless_and_repaired() {
    let (data, client) = (TempDir::new().unwrap(), reqwest::Client::new());
    let batch: Vec<(Uuid, bool)> = (0..BATCH as u128).map(|n| (Uuid::from_u128(n << 90 | 4 << 76), false)).collect();
    let stop = |mut server: Process| {
        kill_process(Pid::from_child(&server.child), Signal::TERM).unwrap();
        server.child.wait().unwrap();
    };
    let server = Process::start(data.path(), &[]);
    let first = post(&client, &server.url, &batch).await.unwrap().json();
    stop(server);
    let cairn = |arguments: &[&str]| {
        let (code, out, err) = run_text(&[arguments, &["--data-dir", data.path().to_str().unwrap()]].concat());
        (code, out + &err)
    };
    assert_eq!(cairn(&["verify", "--all"]).0, 0);
    let (_, too_far) = id_cursor::row(ShardId(0), Position(BATCH as u64 + 1));
    let (_, behind) = id_cursor::row(ShardId(0), Position(7));
    let damaged = [&[1][..], &behind[1..]].concat();
    for (value, starts, is_repaired) in [
        (Some(&damaged[..]), false, true),
        (Some(&behind[..]), true, true),
        (None, true, true),
        // There may have been another event.
        (Some(&too_far[..]), false, false),
    ] {
        let right = change_cursor(&data, value);
        let (code, output) = cairn(&["verify", "--all"]);
        assert!(code == 1 && output.contains("client_ids: row cursor"), "{value:?}: {output}");
        match starts {
            true => {
                // The ids behind the cursor are read again.
                let server = Process::start(data.path(), &[]);
                assert_eq!(post(&client, &server.url, &batch).await.unwrap().json(), first, "{value:?}");
                drop(server);
            }
            false => {
                let error = TestServer::start_with(&config(data.path()), |store| store).await.err().unwrap();
                assert!(error.to_string().contains("the cursor of shard 0 in `client_ids` is wrong"), "{error}");
            }
        }
        let repaired = cairn(&["repair", "--apply"]);
        assert_eq!(repaired.0 == 0, is_repaired, "{value:?}: {}", repaired.1);
        if !is_repaired {
            change_cursor(&data, Some(&right));
        }
        let (code, output) = cairn(&["verify", "--all"]);
        assert!(code == 0 && output.contains("500 events verified: all valid"), "{value:?}: {output}");
    }
}
