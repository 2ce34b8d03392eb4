//! Every row is under verification: whichever row of a family is edited, removed, added or swapped, `cairn verify --all`
//! names it, and `cairn repair` derives it again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn::audit::verify::{self, Observer, RowFault, Summary};
use cairn::ledger::format::keys::Agent;
use cairn::ledger::store::{Family, StorageConfig, Store};
use cairn::tlog::{checkpoint, keys::Keys};
use cairn_proof::chain::{AgentKey, Break};
use cairn_proof::tree::Head;
use hyper::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::harness::{TestServer, config, eventually, metric, run_text};

const SHARDS: u16 = 3;
const START_MS: u64 = 1_800_000_000_000;
/// Per family.
const EDITS: usize = 1000;

type Rows = Vec<(Vec<u8>, Vec<u8>)>;
/// Rows to write; `None` removes one.
type Changes = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A ledger in which every family has rows: agents in turn, ids of clients and of the server, labels, steps of the clock,
/// and enough events for tiles.
async fn ledger() -> TempDir {
    let (data, now_ms) = (TempDir::new().unwrap(), Arc::new(AtomicU64::new(START_MS)));
    let mut config = config(data.path());
    config.shards = SHARDS;
    config.log.origin = Some("the/log".to_owned());
    let clock = Arc::clone(&now_ms);
    let server =
        TestServer::start_at(&config, |store| store, Arc::new(move || clock.load(Ordering::Relaxed))).await.unwrap();
    for request in 0..60u64 {
        // Forward in small steps, and now and then a step of the clock.
        let step = if request % 20 == 19 { 3_600_000 } else { 7 };
        match request % 40 {
            39 => now_ms.fetch_sub(step, Ordering::Relaxed),
            _ => now_ms.fetch_add(step, Ordering::Relaxed),
        };
        let events: Vec<Value> = (0..20).map(|n| event(request, n)).collect();
        assert_eq!(server.send("/v1/batch", &events.into()).await.status, 201);
    }
    eventually("the index has all events", async || {
        metric(&server.metrics().await, r#"cairn_consumer_lag_events{consumer="index"}"#) == Some(0.0)
    })
    .await;
    server.stop().await.unwrap();
    data
}

fn event(request: u64, n: u64) -> Value {
    let mut event = json!({
        "agent_id": format!("agent-{}", (request * 7 + n / 3) % 11),
        "action_name": "step",
        "action_status": (["success", "error"][(n % 2) as usize]),
        "session_id": format!("session-{}", request % 5),
        "labels": {"n": n % 4, "team": "red \"x\"", "request": request},
    });
    if n.is_multiple_of(2) {
        event["id"] =
            json!(Uuid::from_u128(u128::from(request * 1000 + n) << 64 | 0x4000_8000_0000_0000_0000).to_string());
    }
    event
}

fn open(data: &Path) -> Arc<Store> {
    Arc::new(Store::open(&StorageConfig { data_dir: data.to_owned(), ..StorageConfig::default() }).unwrap())
}

fn signed_head(data: &Path) -> Head {
    let keys = Keys::read_any(&data.join("log.key")).unwrap().unwrap();
    checkpoint::read(&data.join("log.checkpoint"), &keys).unwrap().unwrap().0
}

#[derive(Default)]
struct Found {
    rows: Vec<RowFault>,
    broken: Vec<String>,
}

impl Observer for Found {
    fn progress(&mut self, _: u64) {}

    fn broken(&mut self, agent_id: &str, found: &Break) {
        self.broken.push(format!("{agent_id}: {found}"));
    }

    fn row(&mut self, fault: &RowFault) {
        self.rows.push(fault.clone());
    }
}

/// A ledger that is open for changes.
struct Ledger {
    store: Arc<Store>,
    checkpoints: Vec<(String, Head)>,
}

impl Ledger {
    fn open(data: &Path) -> Ledger {
        let checkpoints = vec![("the last checkpoint".to_owned(), signed_head(data))];
        let ledger = Ledger { checkpoints, store: open(data) };
        ledger.assert_untouched();
        ledger
    }

    fn verify(&self) -> (Summary, Found) {
        let mut found = Found::default();
        let summary = verify::all(&self.store, SHARDS, &self.checkpoints, 1, &mut found).unwrap();
        (summary, found)
    }

    fn assert_untouched(&self) {
        let (summary, found) = self.verify();
        assert!(found.rows.is_empty() && found.broken.is_empty(), "{:?} {:?}", found.rows, found.broken);
        assert_eq!(summary.log.and_then(|log| log.broken), None);
        assert_eq!((summary.events, summary.wrong_rows, summary.broken), (1200, 0, 0));
    }

    fn rows(&self, family: Family) -> Rows {
        let mut rows = self.store.rows(family).unwrap();
        rows.seek_first();
        let mut found = Vec::new();
        while let Some((key, value)) = rows.row().unwrap() {
            found.push((key.to_vec(), value.to_vec()));
            rows.next();
        }
        found
    }

    /// Writes rows; `None` removes one.
    fn write(&self, family: Family, rows: &[(Vec<u8>, Option<Vec<u8>>)]) {
        let mut batch = self.store.batch(0);
        for (key, value) in rows {
            match value {
                Some(value) => self.store.put(&mut batch, family, key, value).unwrap(),
                None => self.store.delete(&mut batch, family, key).unwrap(),
            }
        }
        self.store.write(batch).unwrap();
    }
}

/// A random change of some rows: the rows as they are afterwards.
fn random_change(rows: &Rows, random: &mut fastrand::Rng) -> (&'static str, Changes) {
    let pick = |random: &mut fastrand::Rng| rows[random.usize(..rows.len())].clone();
    let (key, mut value) = pick(random);
    let is_stored = |key: &[u8]| rows.iter().any(|(stored, _)| stored == key);
    match random.u8(..6) {
        0 | 1 if !value.is_empty() => {
            let at = random.usize(..value.len());
            value[at] ^= 1 << random.u8(..8);
            ("edited", vec![(key, Some(value))])
        }
        2 => {
            match random.bool() {
                true => value.push(random.u8(..)),
                false => value.truncate(value.len().saturating_sub(1)),
            }
            ("with another length", vec![(key, Some(value))])
        }
        3 => ("removed", vec![(key, None)]),
        4 => loop {
            let mut key = key.clone();
            let at = random.usize(..key.len());
            key[at] ^= 1 << random.u8(..8);
            if !is_stored(&key) {
                break ("added", vec![(key, Some(value))]);
            }
        },
        _ => {
            let other = pick(random);
            if other.1 == value {
                return random_change(rows, random);
            }
            ("swapped", vec![(key, Some(other.1)), (other.0, Some(value))])
        }
    }
}

/// Changes rows of a family at random. `is_named` decides whether the findings name a change.
fn change_at_random(ledger: &Ledger, family: Family, is_named: impl Fn(&Summary, &Found, &[u8]) -> bool) {
    let original = ledger.rows(family);
    let mut random = fastrand::Rng::with_seed(family as u64 + 1);
    for round in 0..EDITS {
        let (what, changes) = random_change(&original, &mut random);
        ledger.write(family, &changes);
        let (summary, found) = ledger.verify();
        for (key, value) in &changes {
            assert!(
                is_named(&summary, &found, key),
                "{}, round {round}: row {} {what} ({value:02x?}): {:?} {:?} {:?}",
                family.name(),
                key.escape_ascii(),
                found.rows,
                found.broken,
                summary.log,
            );
        }
        let is_original =
            |key: &Vec<u8>| original.iter().find(|(stored, _)| stored == key).map(|(_, value)| value.clone());
        let restored: Vec<_> =
            changes.into_iter().map(|(key, _)| (is_original(&key), key)).map(|(v, k)| (k, v)).collect();
        ledger.write(family, &restored);
        if round % 100 == 0 {
            ledger.assert_untouched();
        }
    }
    ledger.assert_untouched();
}

fn names(found: &Found, family: Family, is_key: impl Fn(&[u8]) -> bool) -> bool {
    found.rows.iter().any(|fault| fault.family == family && is_key(&fault.key))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_that_follows_from_the_events_is_named() {
    let data = ledger().await;
    let ledger = Ledger::open(data.path());
    let families = [Family::Agents, Family::Chain, Family::Times, Family::ClientIds, Family::Log, Family::Tiles];
    for family in families {
        assert!(ledger.rows(family).len() > 2, "{}", family.name());
        let is_shown = |key: &[u8]| family != Family::Log || !matches!(key, [b'c', ..] | b"k"); // sizes of signed trees
        change_at_random(&ledger, family, |_, found, key| !is_shown(key) || names(found, family, |named| named == key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_row_of_index_meta_or_events_is_named() {
    let data = ledger().await;
    let ledger = Ledger::open(data.path());
    // Which events share a row is not known any more once the row is removed, so each of them is named by its own
    // position: term and shard are the same.
    change_at_random(&ledger, Family::Index, |_, found, key| {
        names(found, Family::Index, |named| named == key || named.get(..18) == key.get(..18))
    });
    // A step of the clock that no event shows, and the rows that are written once, have checks of groups of rows.
    change_at_random(&ledger, Family::Meta, |_, found, key| names(found, Family::Meta, |named| key.starts_with(named)));
    change_at_random(&ledger, Family::Events, |summary, found, _| {
        !found.broken.is_empty() || summary.log.as_ref().is_some_and(|log| log.broken.is_some())
    });
}

fn cairn(arguments: &[&str], data: &Path) -> (i32, String) {
    let (code, out, err) = run_text(&[arguments, &["--data-dir", data.to_str().unwrap()]].concat());
    (code, out + &err)
}

/// Changes every kind of row, as an operator's mistake or a faulty disk might.
fn damage(data: &Path) {
    let ledger = Ledger::open(data);
    let all = |family| ledger.rows(family);
    let remove = |family, at: usize| ledger.write(family, &[(all(family)[at].0.clone(), None)]);
    let flip = |family, row: usize, at: usize| {
        let (key, mut value) = all(family)[row].clone();
        value[at] ^= 1;
        ledger.write(family, &[(key, Some(value))]);
    };
    for family in [Family::ClientIds, Family::Times, Family::Chain, Family::Agents, Family::Index, Family::Tiles] {
        remove(family, 1);
    }
    flip(Family::ClientIds, 4, 9);
    flip(Family::Times, 5, 7);
    flip(Family::Chain, 3, 9);
    // The id of an agent, and the time of its last event.
    let last = all(Family::Agents)[2].1.len() - 1;
    flip(Family::Agents, 2, last);
    flip(Family::Agents, 3, 55);
    flip(Family::Tiles, 0, 40);
    let runs: Vec<usize> = (0..all(Family::Log).len()).filter(|at| all(Family::Log)[*at].0[0] == b'l').collect();
    remove(Family::Log, runs[1]);
    let step = all(Family::Meta).into_iter().find(|(key, _)| key.starts_with(b"clock-step")).unwrap().0;
    ledger.write(Family::Meta, &[(step, None), (b"agents\0\x01".to_vec(), Some(vec![0; 8]))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn repair_derives_rows_again_and_records_it() {
    let data = ledger().await;
    damage(data.path());
    let (code, output) = cairn(&["verify", "--all"], data.path());
    for family in ["client_ids", "times", "chain", "agents", "index", "log", "tiles", "meta"] {
        assert!(code == 1 && output.contains(&format!("{family}: row ")), "{family}: {output}");
    }
    let (code, shown) = cairn(&["repair", "--dry-run"], data.path());
    assert!(code == 0 && shown.contains("rows to repair: stop the server"), "{shown}");
    assert_eq!(cairn(&["verify", "--all"], data.path()), (1, output), "--dry-run changes nothing");
    let (code, repaired) = cairn(&["repair", "--apply"], data.path());
    assert!(code == 0 && repaired.contains("rows repaired"), "{repaired}");
    assert!(shown.lines().filter(|line| line.contains(": row ")).all(|row| repaired.contains(row)), "{repaired}");
    let (code, output) = cairn(&["verify", "--all"], data.path());
    assert!(code == 0 && output.contains("1200 events verified: all valid"), "{output}");
    assert_eq!(cairn(&["repair", "--apply"], data.path()), (0, "no row to repair\n".to_owned()));
    let (_, status) = cairn(&["status"], data.path());
    assert!(status.contains("repairs:          ") && status.contains(" derived again"), "{status}");
    // The server continues every chain, recognizes ids that clients sent, and indexes again.
    let mut config = config(data.path());
    config.shards = SHARDS;
    config.log.origin = Some("the/log".to_owned());
    let server = TestServer::start(&config).await;
    for n in 0..20 {
        assert_eq!(server.send("/v1/events", &event(0, n)).await.status, if n % 2 == 0 { 200 } else { 201 });
    }
    eventually("the index has all events", async || server.list("session_id=session-1&limit=1000").await.len() == 240)
        .await;
    let verdict = server.get("/v1/verify?index=true").await;
    assert_eq!(
        (verdict.status, &verdict.json()["valid"], &verdict.json()["wrong_rows"]),
        (StatusCode::OK, &json!(true), &json!(0))
    );
    server.stop().await.unwrap();
    assert_eq!(cairn(&["verify", "--all"], data.path()).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_repaired_if_events_are_missing() {
    let data = ledger().await;
    {
        let ledger = Ledger::open(data.path());
        let last = ledger.rows(Family::Events).pop().unwrap();
        let id = ledger.rows(Family::ClientIds)[3].0.clone();
        ledger.write(Family::Events, &[(last.0, None)]);
        ledger.write(Family::ClientIds, &[(id, None)]);
    }
    let before = cairn(&["verify", "--all"], data.path());
    let (code, output) = cairn(&["repair", "--apply"], data.path());
    assert!(code == 1 && output.contains("because the events are not whole"), "{output}");
    assert_eq!(cairn(&["verify", "--all"], data.path()), before);
}

/// A head that is longer than its chain, and an agent without events: as if events had been removed before they were leaves.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_repaired_if_a_head_shows_that_events_are_missing() {
    for without_events in [false, true] {
        let data = ledger().await;
        {
            let ledger = Ledger::open(data.path());
            let (mut key, row) = ledger.rows(Family::Agents)[2].clone();
            let mut agent = Agent::decode(&row).unwrap();
            (agent.sequence, agent.hash.0[0], agent.run.count) =
                (agent.sequence.next(), !agent.hash.0[0], agent.run.count + 1);
            if without_events {
                agent.agent_id = "gone".into();
                key = AgentKey::of("gone").0.to_vec();
            }
            ledger.write(Family::Agents, &[(key, Some(agent.encode()))]);
            let id = ledger.rows(Family::ClientIds)[3].0.clone();
            ledger.write(Family::ClientIds, &[(id, None)]);
        }
        let before = cairn(&["verify", "--all"], data.path());
        let (code, output) = cairn(&["repair", "--apply"], data.path());
        assert!(code == 1 && output.contains("because the events are not whole"), "{output}");
        assert_eq!(cairn(&["verify", "--all"], data.path()), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_leads_to_another_event_or_agent_is_refused_before_it_is_used() {
    let data = ledger().await;
    let wrong = event(0, 0)["id"].as_str().unwrap().to_owned();
    {
        let ledger = Ledger::open(data.path());
        let other = ledger.rows(Family::ClientIds)[7].1.clone();
        let key = wrong.parse::<Uuid>().unwrap().as_bytes().to_vec();
        ledger.write(Family::ClientIds, &[(key, Some(other))]);
    }
    let mut config = config(data.path());
    config.shards = SHARDS;
    config.log.origin = Some("the/log".to_owned());
    let server = TestServer::start(&config).await;
    let found = server.get(&format!("/v1/events/{wrong}")).await;
    assert!(found.status == 503 && found.error().contains("`client_ids` is wrong"), "{}", found.text);
    // Neither stored twice nor taken for another event.
    assert_eq!(server.send("/v1/events", &event(0, 0)).await.status, 503);
    server.stop().await.unwrap();
    {
        let store = open(data.path());
        let key = AgentKey::of("agent-3").0;
        let mut row = store.get(Family::Agents, &key).unwrap().unwrap().to_vec();
        *row.last_mut().unwrap() ^= 1;
        let mut batch = store.batch(0);
        store.put(&mut batch, Family::Agents, &key, &row).unwrap();
        store.write(batch).unwrap();
    }
    // The last events of each shard and their agents are checked at start.
    let error = TestServer::start_with(&config, |store| store).await.err().unwrap().to_string();
    assert!(error.contains("`agents` is wrong: stop the server and run `cairn repair"), "{error}");
    assert_eq!(cairn(&["repair", "--apply"], data.path()).0, 0);
    let server = TestServer::start(&config).await;
    assert_eq!(server.send("/v1/events?wait=checkpoint", &json!({"agent_id": "agent-3"})).await.status, 201);
    assert_eq!(server.send("/v1/events", &event(0, 0)).await.status, 200);
    server.stop().await.unwrap();
    assert_eq!(cairn(&["verify", "--all"], data.path()).0, 0);
}
