//! Old events are dropped whole; the rest verifies, and so does everything that was kept of the dropped ones.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cairn::config::Config;
use cairn::ledger::RetentionConsumer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::erasure::canaries::{canary, files_with};
use crate::erasure::requests::{KEY, client_with_key, config as config_with_key, start};
use crate::log::checkpoints::{verifier_keys, wait_until_signed};
use crate::relay::delivery::destination;
use crate::support::forger::{serialize, verify};
use crate::support::harness::{TestServer, eventually, eventually_within, metric, reference, run_text};
use crate::support::upstream::{Reply, Upstream};

/// How long to wait for retention: it rests for up to a minute.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// A configuration that drops events of this age, of a ledger with three shards.
pub fn config(data: &TempDir, max_age: Duration) -> Config {
    let mut config = config_with_key(data);
    config.retention.events.max_age = max_age;
    config.shards = 3;
    config
}

/// Stores `count` events of five agents in two sessions.
pub async fn store(server: &TestServer, count: usize, text: &str) -> Vec<Value> {
    let event = |n: usize| {
        json!({"agent_id": format!("a{}", n % 5), "session_id": format!("s{}", n % 2), "action_output": format!("{text} {n}"),
            "id": uuid::Uuid::new_v4().to_string()})
    };
    let mut stored = Vec::new();
    for first in (0..count).step_by(500) {
        let batch: Vec<Value> = (first..count.min(first + 500)).map(event).collect();
        let answer = server.send("/v1/batch", &batch.clone().into()).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        stored.extend(batch);
    }
    stored
}

/// The number of events that were dropped.
pub async fn dropped(server: &TestServer) -> u64 {
    server.get("/v1/stats").await.json()["events_dropped"].as_u64().unwrap()
}

/// Verifies a ledger, also against the checkpoint in a file. Returns the exit status and the output.
pub fn verify_all(ledger: &Path, checkpoint: Option<&Path>) -> (i32, String) {
    let mut arguments = vec!["verify", "--all", "--data-dir", ledger.to_str().unwrap()];
    arguments.extend(checkpoint.iter().flat_map(|path| ["--checkpoint", path.to_str().unwrap()]));
    let (status, out, errors) = run_text(&arguments);
    (status, out + &errors)
}

/// Waits until a tree of this size is signed, and exports an agent.
async fn package(server: &TestServer, agent: &str, size: u64) -> Value {
    let path = format!("/v1/export?agent_id={agent}");
    eventually("a package with everything", async || {
        let answer = server.get(&path).await;
        answer.status == 200 && answer.json()["tree_size"].as_u64().unwrap() >= size
    })
    .await;
    server.get(&path).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_after_a_drop_verifies_and_so_does_what_was_kept_elsewhere() {
    let data = TempDir::new().unwrap();
    let ledger = data.path().join("ledger");
    let mut config = config(&data, Duration::from_secs(2));
    let server = start(&config).await;
    let canary = canary();
    let old = store(&server, 2000, &canary).await;
    let before = package(&server, "a1", 2000).await;
    let key = verifier_keys(&ledger).remove(0);
    let kept = |name: &str, text: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let checkpoint = kept("before.checkpoint", before["checkpoint"].as_str().unwrap());
    let (api_key, state) = (kept("key", KEY), data.path().join("state"));
    let follow = |url: &str, more: &[&str]| {
        let arguments = ["verify", "--log", url, "--key", &key, "--api-key-file", api_key.to_str().unwrap()];
        tokio::task::block_in_place(|| run_text(&[&arguments[..], more].concat()))
    };
    let (status, out, errors) = follow(&server.url, &["--state", state.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}{errors}");
    assert!(!files_with(&ledger, &canary, &[]).is_empty(), "the search finds what is there");
    eventually_within(PATIENCE, "most of the old events are dropped", async || dropped(&server).await >= 1792).await;
    server.stop().await.unwrap();
    // Nothing more is dropped, so that what follows has a fixed end.
    config.retention.events.max_age = Duration::ZERO;
    let server = start(&config).await;
    let new = store(&server, 1000, "new").await;
    let dropped = dropped(&server).await;

    let id = old[0]["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/events/{id}")).await.status, 404);
    let again = server.send("/v1/events", &json!({"agent_id": "b", "id": id})).await;
    assert_eq!(again.status, 201, "an id is forgotten with its event: {}", again.text);
    let retried = server.send("/v1/events", &new[0]).await;
    assert_eq!(retried.status, 200, "others are known: {}", retried.text);
    for query in ["agent_id=a1&limit=1000", "session_id=s1&limit=1000", "limit=1000&order=asc"] {
        let listed = server.list(query).await;
        let ids: Vec<&str> = listed.iter().map(|event| event["id"].as_str().unwrap()).collect();
        assert!(!ids.is_empty() && !ids.contains(&old[1]["id"].as_str().unwrap()), "{query}");
    }
    let verdict = server.get("/v1/verify?agent_id=a1").await.json();
    assert!(verdict["valid"] == true && verdict["events_dropped"].as_u64().unwrap() > 300, "{verdict}");
    assert_eq!(server.get("/v1/verify?index=true").await.json()["valid"], true);
    let stats = server.get("/v1/stats").await.json();
    let total = stats["total_events"].as_u64().unwrap();
    wait_until_signed(&server, total).await;

    let root = server.get("/v1/merkle/root").await.json();
    assert_eq!(root["minimum_index"], dropped, "{root}");
    let size = &before["tree_size"];
    assert_eq!(server.get(&format!("/v1/consistency?from={size}")).await.status, 200);
    assert_eq!(server.get("/log/tile/entries/000").await.status, 404);
    let last = format!("/log/tile/entries/{:03}", dropped / 256);
    assert_eq!(server.client.get(format!("{}{last}", server.url)).send().await.unwrap().status(), 200);
    let (status, out, errors) =
        follow(&server.url, &["--checkpoint", checkpoint.to_str().unwrap(), "--agent-id", "a1"]);
    assert!(status == 0 && out.contains(&format!("the leaves before leaf {dropped} were dropped")), "{out}{errors}");
    let (status, out, errors) = follow(&server.url, &["--state", state.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}{errors}");

    let after = package(&server, "a1", total).await;
    assert_eq!((&after["version"], after["first_sequence"].as_u64() > Some(300)), (&json!("1.2"), true));
    for (package, layer) in [(&before, Value::Null), (&after, json!(true))] {
        let (is_valid, verdict) = verify(&serialize(package), &[&key]);
        assert!(is_valid && verdict["layers"]["retention"]["holds"] == layer, "{verdict}");
        reference("package", &package.to_string()).unwrap();
    }
    forge(&after, &key);
    eventually_within(PATIENCE, "no byte of them is left in files of events", async || {
        // Other files are replaced with the write-ahead log.
        files_with(&ledger, &format!("{canary} 0\""), &[]).iter().all(|file| !file.ends_with(".sst"))
    })
    .await;

    server.stop().await.unwrap();
    let (status, out) = verify_all(&ledger, Some(&checkpoint));
    assert!(status == 0 && out.contains("dropped by retention"), "{out}");
    // A ledger continues where it was, and a new log begins with the events that are left.
    let server = start(&config).await;
    store(&server, 100, "later").await;
    server.stop().await.unwrap();
    let (status, out, errors) = run_text(&["key", "new-log", "--data-dir", ledger.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}{errors}");
    let server = start(&config).await;
    store(&server, 100, "of the new log").await;
    let stats = server.get("/v1/stats").await.json();
    package(&server, "a2", stats["total_events"].as_u64().unwrap() - dropped).await;
    server.stop().await.unwrap();
    let (status, out) = verify_all(&ledger, None);
    assert_eq!(status, 0, "{out}");
}

/// Changes a package that retention has cut, in ways that must be found.
fn forge(package: &Value, key: &str) {
    type Change = fn(&mut Value);
    let forgeries: [(&str, Change); 6] = [
        ("without the proof", |package| {
            package.as_object_mut().unwrap().remove("retention");
        }),
        ("without the record", |package| package["recorder"] = json!([])),
        ("another agent's proof", |package| package["retention"]["index"] = json!(0)),
        ("another record", |package| package["retention"]["record"] = json!(1)),
        ("one event less", |package| {
            let first = package["events"].as_array_mut().unwrap().remove(0);
            package["merkle_proofs"].as_array_mut().unwrap().remove(0);
            package["first_sequence"] = json!(first["sequence"].as_u64().unwrap() + 1);
            package["anchor_prev_hash"] = first["hash"].clone();
        }),
        ("an earlier version", |package| package["version"] = json!("1.1")),
    ];
    for (what, change) in forgeries {
        let mut forged = package.clone();
        change(&mut forged);
        if forged == *package {
            continue;
        }
        let (is_valid, verdict) = verify(&serialize(&forged), &[key]);
        assert!(!is_valid && verdict["verdict"] == "broken", "{what}: {verdict}");
        assert!(reference("package", &forged.to_string()).is_err(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_events_and_all_after_them_stay_until_the_hold_is_lifted() {
    let data = TempDir::new().unwrap();
    let server = start(&config(&data, Duration::from_secs(1))).await;
    // Under a checkpoint, so that its leaf is before those of the other shards.
    let held = json!({"agent_id": "held", "action_output": "evidence"});
    let held = server.send("/v1/events?wait=checkpoint", &held).await.json();
    let hold = server.send("/v1/holds", &json!({"agent_id": "held", "reason": "a case"})).await.json();
    store(&server, 1000, "x").await;
    let by_hold = r#"cairn_retention_blocked{by="hold"}"#;
    eventually("it is blocked", async || metric(&server.metrics().await, by_hold) == Some(1.0)).await;
    assert_eq!(server.get(&format!("/v1/events/{}", held["id"].as_str().unwrap())).await.status, 200);
    assert_eq!(dropped(&server).await, 0);
    let path = format!("{}/v1/holds/{}?reason=over", server.url, hold["id"].as_str().unwrap());
    assert_eq!(server.client.delete(path).send().await.unwrap().status(), 200);
    eventually_within(PATIENCE, "it is dropped", async || dropped(&server).await >= 768).await;
    assert_eq!(metric(&server.metrics().await, by_hold), Some(0.0));
    server.stop().await.unwrap();
    let (status, out) = verify_all(&data.path().join("ledger"), None);
    assert_eq!(status, 0, "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_dropped_only_after_every_destination_has_it() {
    let data = TempDir::new().unwrap();
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let upstream = Upstream::start_with(move |_, _| match up.load(Ordering::Relaxed) {
        true => Reply::Accept,
        false => Reply::Status(503, None),
    })
    .await;
    let mut config = config(&data, Duration::from_secs(1));
    config.relay.agnost = Some(destination(&upstream));
    config.retention.after = vec![RetentionConsumer::Relay];
    let server = start(&config).await;
    store(&server, 1000, "x").await;
    let by_relay = r#"cairn_retention_blocked{by="relay"}"#;
    eventually("it is blocked", async || metric(&server.metrics().await, by_relay) == Some(1.0)).await;
    assert_eq!(dropped(&server).await, 0);
    is_up.store(true, Ordering::Relaxed);
    eventually_within(PATIENCE, "it is dropped", async || dropped(&server).await >= 768).await;
    eventually("everything is relayed", async || upstream.events().len() == 1000).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_dropped_before_it_was_relayed_is_counted() {
    let data = TempDir::new().unwrap();
    let upstream = Upstream::start_with(|_, _| Reply::Status(503, None)).await;
    let mut config = config(&data, Duration::ZERO);
    config.relay.agnost = Some(destination(&upstream));
    let server = start(&config).await;
    store(&server, 3000, "x").await;
    server.stop().await.unwrap();
    // While the destination is not configured.
    config.relay.agnost = None;
    config.retention.events.max_age = Duration::from_millis(100);
    let server = start(&config).await;
    eventually_within(PATIENCE, "they are dropped", async || dropped(&server).await >= 2560).await;
    server.stop().await.unwrap();
    // The upstream is back, and gets what is left.
    let upstream = Upstream::start().await;
    config.relay.agnost = Some(destination(&upstream));
    config.retention.events.max_age = Duration::ZERO;
    let server = start(&config).await;
    let failures = r#"cairn_relay_failures_total{destination="agnost",reason="dropped"}"#;
    eventually("the backlog is sent", async || server.get("/v1/relay").await.json()["destinations"][0]["backlog"] == 0)
        .await;
    let (relayed, lost) = (upstream.events().len() as f64, metric(&server.metrics().await, failures).unwrap_or(0.0));
    // Those of the recorder are not relayed, and counted if they were dropped before that was known.
    assert!(relayed > 0.0 && (3000.0..3020.0).contains(&(relayed + lost)), "{relayed} relayed, {lost} lost");
    let damaged = r#"cairn_relay_failures_total{destination="agnost",reason="damaged"}"#;
    assert_eq!(metric(&server.metrics().await, damaged).unwrap_or(0.0), 0.0);
    server.stop().await.unwrap();
}

#[test]
fn dropping_by_size_needs_a_consumer_or_consent() {
    let validate = |settings: &[(&str, &str)]| {
        let mut command = crate::support::harness::cairn();
        command.args(["config", "validate"]).envs(settings.iter().copied());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let max_bytes = ("CAIRN_RETENTION__EVENTS__MAX_BYTES", "200MiB");
    let (is_valid, errors) = validate(&[max_bytes]);
    assert!(!is_valid && errors.contains("retention.unrelayed: true"), "{errors}");
    assert_eq!(validate(&[max_bytes, ("CAIRN_RETENTION__UNRELAYED", "true")]), (true, String::new()));
    let (is_valid, errors) = validate(&[max_bytes, ("CAIRN_RETENTION__AFTER", "[relay]")]);
    assert!(!is_valid && errors.contains("a destination of the relay"), "{errors}");
    let (is_valid, errors) =
        validate(&[max_bytes, ("CAIRN_RETENTION__UNRELAYED", "true"), ("CAIRN_STORAGE__MAX_BYTES", "200MiB")]);
    assert!(!is_valid && errors.contains("less than storage.max_bytes"), "{errors}");
    let (is_valid, errors) =
        validate(&[("CAIRN_RETENTION__EVENTS__MAX_BYTES", "32MiB"), ("CAIRN_RETENTION__UNRELAYED", "true")]);
    assert!(!is_valid && errors.contains("at least 128"), "{errors}");
}

/// A client with the key of these tests.
pub fn client() -> reqwest::Client {
    client_with_key(KEY)
}
