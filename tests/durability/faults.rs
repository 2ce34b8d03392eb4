//! Commits that fail: every acknowledged event is stored, no event with an id is stored twice, no chain forks, and the
//! server resumes or ends, depending on the kind of fault.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cairn::ledger::shard::commit::Commit;
use cairn::ledger::store::CommitError;
use cairn::ledger::store::{Batch, Store};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{TestServer, config, metric, read_chain, reference_chain, run_text};

/// A [`Commit`] that delays, blocks or fails commits as its plan says.
struct FaultyCommit {
    store: Arc<Store>,
    plan: Arc<FaultPlan>,
}

/// Which commits fail, and how. Random numbers are derived from the seed in `state`.
#[derive(Default)]
struct FaultPlan {
    state: AtomicU64,
    /// The percentage of commits that fail.
    failing_percent: AtomicU64,
    /// Commits fail with the error that ends the process, not with a full disk.
    is_fatal: AtomicBool,
    /// The delay before each commit.
    delay_ms: AtomicU64,
    /// Commits block while this is set.
    is_blocked: AtomicBool,
    /// The number of commits that were started.
    started: AtomicU64,
    /// The number of failed commits whose rows were stored, and of those whose rows were not.
    failed_stored: AtomicU64,
    failed_lost: AtomicU64,
}

impl FaultPlan {
    fn random(&self, below: u64) -> u64 {
        let mut rng = fastrand::Rng::with_seed(self.state.fetch_add(1, Ordering::Relaxed));
        rng.u64(..below)
    }
}

impl Commit for FaultyCommit {
    fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.plan.started.fetch_add(1, Ordering::Relaxed);
        // The delay is the subject: a slow disk.
        std::thread::sleep(Duration::from_millis(self.plan.delay_ms.load(Ordering::Relaxed)));
        while self.plan.is_blocked.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        if self.plan.random(100) >= self.plan.failing_percent.load(Ordering::Relaxed) {
            return self.store.commit(batch);
        }
        // The outcome of a failed write is unknown: half of them are stored nevertheless.
        if self.plan.random(2) == 0 {
            self.store.commit(batch)?;
            self.plan.failed_stored.fetch_add(1, Ordering::Relaxed);
        } else {
            self.plan.failed_lost.fetch_add(1, Ordering::Relaxed);
        }
        Err(match self.plan.is_fatal.load(Ordering::Relaxed) {
            true => CommitError::Failed("IO error: injected by a test".to_owned()),
            false => CommitError::NoSpace("No space left on device (injected by a test)".to_owned()),
        })
    }
}

async fn start(data: &TempDir, shards: u16, plan: &Arc<FaultPlan>) -> TestServer {
    let mut config = config(data.path());
    config.shards = shards;
    let plan = Arc::clone(plan);
    TestServer::start_with(&config, |store| Arc::new(FaultyCommit { store, plan })).await.unwrap()
}

/// The seed of a test: `TEST_SEED`, or a random one. It is printed, so that a run can be repeated.
pub fn seed() -> u64 {
    let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("TEST_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_fail_at_random_lose_no_acknowledged_event_and_store_none_twice() {
    for shards in [1, 3] {
        let data = TempDir::new().unwrap();
        let plan = Arc::new(FaultPlan { state: AtomicU64::new(seed()), ..FaultPlan::default() });
        plan.failing_percent.store(50, Ordering::Relaxed);
        let server = start(&data, shards, &plan).await;
        let workers = (0..8).map(|worker| {
            let server = &server;
            async move {
                // The acknowledged events by id.
                let mut stored: HashMap<String, Value> = HashMap::new();
                for n in 0..40 {
                    let with_id = |at: u64| {
                        let id = format!("0198c6b2-7d0e-4cc5-{worker:04x}-{:012x}", n * 10 + at);
                        json!({"id": id, "agent_id": format!("a{}", (worker + n + at) % 5), "action_input": at})
                    };
                    let batch: Vec<Value> = (0..3).map(with_id).collect();
                    // Retries as a client does, until every event is acknowledged.
                    loop {
                        let answer = server.send("/v1/batch", &batch.clone().into()).await;
                        let entries = answer.json();
                        for entry in entries.as_array().unwrap() {
                            if let Some(event) = entry.get("event") {
                                let id = event["id"].as_str().unwrap().to_owned();
                                let before = stored.insert(id, event.clone());
                                assert!(before.is_none_or(|before| before == *event), "two answers for one event");
                            } else {
                                assert_eq!(entry["retryable"], true, "{entry}");
                            }
                        }
                        if answer.status == 201 {
                            break;
                        }
                        assert_eq!(
                            (answer.status.as_u16(), answer.headers["retry-after"].as_bytes()),
                            (207, &b"1"[..])
                        );
                    }
                }
                stored
            }
        });
        let acknowledged: HashMap<String, Value> =
            futures_util::future::join_all(workers).await.into_iter().flatten().collect();
        assert_eq!(acknowledged.len(), 8 * 40 * 3);
        let (stored, lost) = (&plan.failed_stored, &plan.failed_lost);
        assert!(stored.load(Ordering::Relaxed) > 2 && lost.load(Ordering::Relaxed) > 2, "both kinds of failure");
        let mut ids = HashSet::new();
        for agent in 0..5 {
            let chain = read_chain(&server.client, &server.url, &format!("a{agent}")).await;
            reference_chain(&chain).unwrap();
            for event in chain {
                let id = event["id"].as_str().unwrap().to_owned();
                assert_eq!(acknowledged.get(&id), Some(&event));
                assert!(ids.insert(id), "stored twice");
            }
        }
        assert_eq!(ids.len(), acknowledged.len());
        let failed = metric(&server.metrics().await, "cairn_commits_total{outcome=\"failed\"}").unwrap();
        // A shard without events also tests whether writing works again; those attempts do not count as commits.
        assert!(failed > 0.0 && failed as u64 <= stored.load(Ordering::Relaxed) + lost.load(Ordering::Relaxed));
        server.stop().await.unwrap();
        let (code, output, _) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
        assert_eq!(code, 0, "{output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_events_are_refused_and_the_server_resumes_by_itself() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    let server = start(&data, 1, &plan).await;
    server.store(&json!({"agent_id": "a"})).await;
    plan.failing_percent.store(100, Ordering::Relaxed);
    for _ in 0..5 {
        let answer = server.send("/v1/events", &json!({"agent_id": "a"})).await;
        assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].as_bytes()), (503, &b"1"[..]));
        assert!(answer.error().contains("unknown whether the event is stored"), "{}", answer.error());
    }
    let ready = server.client.get(format!("{}/readyz", server.admin_url)).send().await.unwrap();
    assert_eq!(ready.status(), 503);
    plan.failing_percent.store(0, Ordering::Relaxed);
    // No event is sent: the shard itself finds out that writing works again.
    crate::support::harness::eventually("readiness", async || {
        server.client.get(format!("{}/readyz", server.admin_url)).send().await.unwrap().status() == 200
    })
    .await;
    let stored = plan.failed_stored.load(Ordering::Relaxed);
    let next = server.store(&json!({"agent_id": "a"})).await;
    assert!(
        (2..=2 + stored).contains(&next["sequence"].as_u64().unwrap()),
        "the chain continues after the last event on disk"
    );
    reference_chain(&read_chain(&server.client, &server.url, "a").await).unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_other_failed_write_the_server_ends_and_a_restart_recovers() {
    let data = TempDir::new().unwrap();
    for round in 0..6 {
        let plan = Arc::new(FaultPlan { state: AtomicU64::new(round), ..FaultPlan::default() });
        let server = start(&data, 1, &plan).await;
        let first = server.store(&json!({"agent_id": "a"})).await;
        plan.is_fatal.store(true, Ordering::Relaxed);
        plan.failing_percent.store(100, Ordering::Relaxed);
        let id = format!("0198c6b2-7d0e-4cc5-a4ef-{round:012}");
        let event = json!({"id": id, "agent_id": "a"});
        let answer = server.send("/v1/events", &event).await;
        assert_eq!(answer.status, 503);
        let error = server.wait_for_exit().await.unwrap_err();
        assert!(error.to_string().contains("injected by a test"), "{error}");

        let server = TestServer::start(&config(data.path())).await;
        let again = server.send("/v1/events", &event).await;
        let was_stored = plan.failed_stored.load(Ordering::Relaxed) == 1;
        assert_eq!(again.status, if was_stored { 200 } else { 201 });
        assert_eq!(again.json()["sequence"], json!(first["sequence"].as_u64().unwrap() + 1));
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_max_wait_a_full_queue_refuses_events_with_retry_after_and_does_not_store_them() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    plan.delay_ms.store(400, Ordering::Relaxed);
    let mut config = config(data.path());
    config.queue.events = 2;
    config.queue.max_wait = Duration::from_millis(50);
    let faulty = Arc::clone(&plan);
    let server = TestServer::start_with(&config, |store| Arc::new(FaultyCommit { store, plan: faulty })).await.unwrap();
    let sends = (0..12).map(|n| {
        let event = json!({"agent_id": "a", "action_input": n});
        let server = &server;
        async move { server.send("/v1/events", &event).await }
    });
    let answers = futures_util::future::join_all(sends).await;
    let (stored, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 201);
    assert!(!refused.is_empty() && !stored.is_empty());
    for answer in refused {
        assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].as_bytes()), (503, &b"1"[..]));
        assert!(answer.error().contains("queue.events"), "{}", answer.error());
    }
    // Concurrent batches: each event that finds no room is refused on its own.
    let batch: Vec<Value> = (0..6).map(|n| json!({"agent_id": "a", "action_input": n})).collect();
    let batch = Value::from(batch);
    let sends = (0..4).map(|_| server.send("/v1/batch", &batch));
    let answers = futures_util::future::join_all(sends).await;
    let entries: Vec<Value> = answers.iter().flat_map(|answer| answer.json().as_array().unwrap().clone()).collect();
    let (in_batch, refused): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.get("event").is_some());
    assert!(!refused.is_empty() && refused.iter().all(|entry| entry["retryable"] == true), "{refused:?}");
    assert!(answers.iter().any(|answer| answer.status == 207 && answer.headers["retry-after"] == "1"));
    let chain = read_chain(&server.client, &server.url, "a").await;
    assert_eq!(chain.len(), stored.len() + in_batch.len());
    let metrics = server.metrics().await;
    assert!(metric(&metrics, "cairn_ingest_refused_events_total{reason=\"busy\"}").unwrap() >= 1.0);
    plan.delay_ms.store(0, Ordering::Relaxed);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_that_fill_the_queue_do_not_make_single_events_of_others_be_refused() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    plan.delay_ms.store(200, Ordering::Relaxed);
    let mut config = config(data.path());
    config.queue.events = 160;
    config.queue.max_wait = Duration::from_millis(300);
    let faulty = Arc::clone(&plan);
    let server = TestServer::start_with(&config, |store| Arc::new(FaultyCommit { store, plan: faulty })).await.unwrap();
    let batch = json!((0..40).map(|n| json!({"agent_id": "a", "action_input": n})).collect::<Vec<_>>());
    let until = Instant::now() + Duration::from_secs(3);
    let batches = (0..20).map(|_| async {
        let mut refused = 0;
        while Instant::now() < until {
            refused += u64::from(server.send("/v1/batch", &batch).await.status != 201);
        }
        refused
    });
    let singles = async {
        let mut stored = 0;
        while Instant::now() < until {
            let answer = server.send("/v1/events", &json!({"agent_id": "b"})).await;
            assert_eq!(answer.status, 201, "{}", answer.text);
            stored += 1;
        }
        stored
    };
    let (refused, stored) = tokio::join!(futures_util::future::join_all(batches), singles);
    assert!(refused.iter().sum::<u64>() > 0, "the queue was not full");
    assert!(stored > 3, "{stored}");
    plan.delay_ms.store(0, Ordering::Relaxed);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_not_refused_because_its_first_events_fill_the_queue() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    plan.delay_ms.store(120, Ordering::Relaxed);
    let mut config = config(data.path());
    config.queue.events = 8;
    config.queue.max_wait = Duration::from_millis(20);
    let faulty = Arc::clone(&plan);
    let server = TestServer::start_with(&config, |store| Arc::new(FaultyCommit { store, plan: faulty })).await.unwrap();
    let batch: Vec<Value> = (0..40).map(|n| json!({"agent_id": "a", "action_input": n})).collect();
    let answer = server.send("/v1/batch", &batch.into()).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_in_the_queue_of_a_shard_that_ends_is_answered() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    plan.is_fatal.store(true, Ordering::Relaxed);
    plan.failing_percent.store(100, Ordering::Relaxed);
    let server = start(&data, 1, &plan).await;
    plan.is_blocked.store(true, Ordering::Relaxed);
    let commits = plan.started.load(Ordering::Relaxed);
    let send = |n: u64| {
        let (event, server) = (json!({"agent_id": "a", "action_input": n}), &server);
        async move { server.send("/v1/events", &event).await }
    };
    // The first event is in the commit that fails, the others are in the queue behind it.
    let others = async {
        let is_started = async || plan.started.load(Ordering::Relaxed) > commits;
        crate::support::harness::eventually("the commit of the first event", is_started).await;
        futures_util::future::join_all((1..10).map(&send)).await
    };
    let fail = async {
        crate::support::harness::eventually("all events in the queue", async || {
            metric(&server.metrics().await, "cairn_queue_events{shard=\"0\"}") == Some(10.0)
        })
        .await;
        plan.is_blocked.store(false, Ordering::Relaxed);
    };
    let answers = async { tokio::join!(send(0), others, fail) };
    let answers = tokio::time::timeout(Duration::from_secs(5), answers).await;
    let (first, others, ()) = answers.expect("every event is answered");
    assert_eq!(others.len(), 9);
    for answer in others.iter().chain([&first]) {
        assert_eq!(answer.status, 503, "{}", answer.text);
    }
    server.wait_for_exit().await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_stored_although_its_client_disconnects_after_admission() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    plan.delay_ms.store(300, Ordering::Relaxed);
    let server = start(&data, 1, &plan).await;
    let request = server.post("/v1/events", json!({"agent_id": "a"}).to_string()).timeout(Duration::from_millis(100));
    assert!(request.send().await.unwrap_err().is_timeout());
    crate::support::harness::eventually("the event", async || server.list("agent_id=a").await.len() == 1).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_the_requests_in_flight() {
    let data = TempDir::new().unwrap();
    let plan = Arc::new(FaultPlan::default());
    plan.delay_ms.store(300, Ordering::Relaxed);
    let server = start(&data, 1, &plan).await;
    let (client, url) = (server.client.clone(), server.url.clone());
    let sending = tokio::spawn(async move {
        let body = json!({"agent_id": "a"}).to_string();
        client.post(format!("{url}/v1/events")).header("content-type", "application/json").body(body).send().await
    });
    crate::support::harness::eventually("the event in the queue", async || {
        metric(&server.metrics().await, "cairn_queue_events{shard=\"0\"}") == Some(1.0)
    })
    .await;
    server.stop().await.unwrap();
    assert_eq!(sending.await.unwrap().unwrap().status(), 201);
    let server = TestServer::start(&config(data.path())).await;
    assert_eq!(server.list("agent_id=a").await.len(), 1);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_ledger_or_disk_refuses_new_events_and_still_serves_reads() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    let server = TestServer::start(&config).await;
    server.store(&json!({"agent_id": "a"})).await;
    server.stop().await.unwrap();
    type Change = fn(&mut cairn::config::Config);
    let cases: [(&str, Change); 2] = [
        ("storage.max_bytes", |config| config.storage.max_bytes = bytesize::ByteSize::b(1)),
        ("storage.min_free_bytes", |config| config.storage.min_free_bytes = bytesize::ByteSize::eib(1)),
    ];
    for (key, change) in cases {
        let before = config.clone();
        change(&mut config);
        let server = TestServer::start(&config).await;
        let answer = server.send("/v1/events", &json!({"agent_id": "a"})).await;
        assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].as_bytes()), (503, &b"1"[..]));
        assert!(answer.error().contains(key), "{}", answer.error());
        assert_eq!(server.list("agent_id=a").await.len(), 1);
        let ready = server.client.get(format!("{}/readyz", server.admin_url)).send().await.unwrap();
        assert!(ready.text().await.unwrap().contains(key));
        server.stop().await.unwrap();
        config = before;
    }
}
