//! Steps of the system clock: the time of receipt is what the clock shows, the order of events does not depend on it, and
//! lists and packages of an interval contain exactly its events.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cairn_proof::chain::time;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, Process, TestServer, config, eventually, metric, next_page, run_text};

const SECOND_MS: u64 = 1000;
const HOUR_MS: u64 = 3600 * SECOND_MS;
const YEAR_MS: u64 = 365 * 24 * HOUR_MS;
const START_MS: u64 = 1_800_000_000_000;
/// Enough that each of two shards has some: `agent-5` is not in the shard of the others.
const AGENTS: usize = 6;

/// A server with a clock that the test sets.
struct Clocked {
    data: TempDir,
    shards: u16,
    now_ms: Arc<AtomicU64>,
    server: TestServer,
    /// The stored events and the times at which they were sent, in this order.
    sent: Vec<(u64, Value)>,
}

impl Clocked {
    async fn start(shards: u16) -> Clocked {
        let (data, now_ms) = (TempDir::new().unwrap(), Arc::new(AtomicU64::new(START_MS)));
        let server = Clocked::serve(&data, shards, &now_ms).await;
        Clocked { data, shards, now_ms, server, sent: Vec::new() }
    }

    async fn serve(data: &TempDir, shards: u16, now_ms: &Arc<AtomicU64>) -> TestServer {
        let mut config = config(data.path());
        config.shards = shards;
        let now_ms = Arc::clone(now_ms);
        TestServer::start_at(&config, |store| store, Arc::new(move || now_ms.load(Ordering::Relaxed))).await.unwrap()
    }

    async fn restart(self) -> Clocked {
        let Clocked { data, shards, now_ms, server, sent } = self;
        server.stop().await.unwrap();
        let server = Clocked::serve(&data, shards, &now_ms).await;
        Clocked { data, shards, now_ms, server, sent }
    }

    /// Sends an event of each agent while the clock shows `ms`, and checks its time of receipt.
    async fn send_at(&mut self, ms: u64) {
        self.now_ms.store(ms, Ordering::Relaxed);
        for agent in 0..AGENTS {
            let event = self.server.store(&json!({"agent_id": format!("agent-{agent}")})).await;
            assert_eq!(event["received_at"], text(ms));
            self.sent.push((ms, event));
        }
    }

    /// Checks lists, ids and chains.
    async fn check(&self) {
        for (_, event) in &self.sent {
            let id = event["id"].as_str().unwrap();
            assert_eq!(self.server.get(&format!("/v1/events/{id}")).await.json()["hash"], event["hash"]);
        }
        for agent in 0..AGENTS {
            let events = self.server.list(&format!("agent_id=agent-{agent}&order=asc")).await;
            let ids: Vec<&str> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
            assert!(ids.is_sorted(), "{ids:?}");
            let sequences = events.iter().map(|event| event["sequence"].as_u64().unwrap());
            assert!(sequences.eq(1..=events.len() as u64));
        }
        let mut times: Vec<u64> = self.sent.iter().flat_map(|(ms, _)| [ms - 1, *ms, ms + 1]).collect();
        times.sort_unstable();
        times.dedup();
        for since in std::iter::once(None).chain(times.iter().step_by(2).copied().map(Some)) {
            for until in std::iter::once(None).chain(times.iter().step_by(3).copied().map(Some)) {
                self.check_interval(since, until).await;
            }
        }
    }

    /// Checks that a list of an interval has exactly its events, in either order and with pages of any length.
    async fn check_interval(&self, since: Option<u64>, until: Option<u64>) {
        let is_inside = |ms: u64| since.is_none_or(|since| ms >= since) && until.is_none_or(|until| ms < until);
        let hash = |event: &Value| event["hash"].as_str().unwrap().to_owned();
        let mut query = String::new();
        since.iter().for_each(|&ms| query += &format!("&since={}", text(ms)));
        until.iter().for_each(|&ms| query += &format!("&until={}", text(ms)));
        for agent in [None, Some("agent-1")] {
            let is_of_agent = |event: &Value| agent.is_none_or(|agent| event["agent_id"] == agent);
            let selected = self.sent.iter().filter(|(ms, event)| is_inside(*ms) && is_of_agent(event));
            let expected: Vec<String> = selected.map(|(_, event)| hash(event)).collect();
            let of_agent = agent.map(|agent| format!("&agent_id={agent}")).unwrap_or_default();
            for (order, limit) in [("asc", 2), ("desc", 3), ("asc", 100)] {
                let listed = self.pages(&format!("order={order}&limit={limit}{query}{of_agent}")).await;
                let mut listed: Vec<String> = listed.iter().map(hash).collect();
                if order == "desc" {
                    listed.reverse();
                }
                if self.shards == 1 || agent.is_some() {
                    assert_eq!(listed, expected, "{order} {limit} {query} {agent:?}");
                } else {
                    // Between shards the order is that of their times.
                    listed.sort_unstable();
                    let mut expected = expected.clone();
                    expected.sort_unstable();
                    assert_eq!(listed, expected, "{order} {limit} {query}");
                }
            }
        }
    }

    /// The events of all pages of a list.
    async fn pages(&self, query: &str) -> Vec<Value> {
        let (mut events, mut next) = (Vec::new(), Some(format!("/v1/events?{query}")));
        while let Some(page) = next {
            let response = reqwest::get(format!("{}{page}", self.server.url)).await.unwrap();
            assert_eq!(response.status(), 200, "{page}");
            next = next_page(response.headers());
            events.extend(Answer::of(response).await.json().as_array().unwrap().iter().cloned());
        }
        events
    }

    async fn steps(&self) -> (f64, f64) {
        let metrics = self.server.metrics().await;
        let steps = |direction: &str| {
            metric(&metrics, &format!("cairn_clock_steps_total{{direction=\"{direction}\"}}")).unwrap_or_default()
        };
        (steps("forward"), steps("back"))
    }

    fn status(&self) -> (Value, String) {
        let data_dir = self.data.path().to_str().unwrap();
        let (_, json, _) = run_text(&["status", "--json", "--data-dir", data_dir]);
        let (_, text, _) = run_text(&["status", "--data-dir", data_dir]);
        (serde_json::from_str(&json).unwrap(), text)
    }
}

fn text(ms: u64) -> String {
    String::from_utf8(time::format_ms(ms).to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_one_event_two_hours_ahead_the_following_events_have_the_true_time() {
    for shards in [1, 2] {
        let mut clocked = Clocked::start(shards).await;
        for ms in [START_MS, START_MS + 5, START_MS + 2 * HOUR_MS, START_MS + 9, START_MS + 9, START_MS + 14] {
            clocked.send_at(ms).await;
        }
        clocked.check().await;
        let (forward, back) = clocked.steps().await;
        assert_eq!((forward, back), (f64::from(shards), f64::from(shards)), "each shard finds each step");
        let (status, text) = clocked.status();
        assert_eq!(status["clock_steps"]["count"], 2 * shards, "{status}");
        assert!(text.contains("clock steps:"), "{text}");
        clocked.server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_run_ten_years_ahead_a_restart_with_the_true_time_stores_the_true_time() {
    let mut clocked = Clocked::start(1).await;
    clocked.send_at(START_MS).await;
    clocked = clocked.restart().await;
    clocked.send_at(START_MS + 10 * YEAR_MS).await;
    assert_eq!(clocked.steps().await, (0.0, 0.0), "the server may have been stopped for ten years");
    clocked = clocked.restart().await;
    clocked.send_at(START_MS + HOUR_MS).await;
    clocked.send_at(START_MS + HOUR_MS + 20).await;
    assert_eq!(clocked.steps().await, (0.0, 1.0));
    clocked = clocked.restart().await;
    clocked.send_at(START_MS + 2 * HOUR_MS).await;
    clocked.check().await;
    let (status, text) = clocked.status();
    assert_eq!(status["clock_steps"]["count"], 1, "{status}");
    assert_eq!(status["clock_steps"]["last_at"], self::text(START_MS + HOUR_MS), "{status}");
    let seconds = (10 * YEAR_MS - HOUR_MS) / SECOND_MS;
    assert!(text.contains(&format!("1, the last by -{seconds} s to ")), "{text}");
    clocked.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_by_a_year_or_again_and_again_is_followed() {
    let mut clocked = Clocked::start(1).await;
    clocked.send_at(START_MS).await;
    clocked.send_at(START_MS - YEAR_MS).await;
    clocked.send_at(START_MS - YEAR_MS + 3).await;
    for hours in 1..4 {
        clocked.send_at(START_MS - YEAR_MS - hours * HOUR_MS).await;
    }
    clocked = clocked.restart().await;
    clocked.send_at(START_MS + 7).await;
    clocked.check().await;
    clocked.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_is_logged() {
    let mut clocked = Clocked::start(1).await;
    // Later than the real clock, which the second server has.
    clocked.send_at(START_MS + 10 * YEAR_MS).await;
    clocked.server.stop().await.unwrap();
    let server = Process::start(clocked.data.path(), &[]);
    let client = reqwest::Client::new();
    let send = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(send.body(json!({"agent_id": "a"}).to_string()).send().await.unwrap().status(), 201);
    let is_step =
        |entry: &Value| entry["message"].as_str().is_some_and(|text| text.starts_with("the system clock was set:"));
    let step = || server.log().lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).find(is_step);
    eventually("the log line", async || step().is_some()).await;
    let step = step().unwrap();
    assert_eq!((&step["level"], &step["shard"], &step["position"]), (&json!("WARN"), &json!(0), &json!(AGENTS)));
    assert!(step["by_seconds"].as_f64().unwrap() < -(5.0 * YEAR_MS as f64 / 1000.0), "{step}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smeared_leap_second_is_not_a_step() {
    let mut clocked = Clocked::start(1).await;
    // At the end of a smear the clock advances more slowly: some readings are equal, none is earlier.
    for tick in 0..9 {
        clocked.send_at(START_MS + tick * 2 / 3).await;
    }
    assert_eq!(clocked.steps().await, (0.0, 0.0));
    clocked.check().await;
    clocked.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_of_an_interval_has_its_events_or_is_refused_because_of_a_gap() {
    let mut clocked = Clocked::start(1).await;
    for ms in [START_MS, START_MS + 2 * HOUR_MS, START_MS + 5, START_MS - 2 * HOUR_MS] {
        clocked.send_at(ms).await;
    }
    eventually("the checkpoint", async || {
        clocked.server.get("/v1/export?agent_id=agent-0").await.json()["events"]
            .as_array()
            .is_some_and(|e| e.len() == 4)
    })
    .await;
    let export = async |query: String| clocked.server.get(&format!("/v1/export?agent_id=agent-0{query}")).await;
    let package = |body: String| {
        let file = clocked.data.path().join("package.json");
        std::fs::write(&file, body).unwrap();
        run_text(&["verify-export", file.to_str().unwrap()])
    };
    for (query, sequences) in [
        (String::new(), vec![1, 2, 3, 4]),
        (format!("&since={}", text(START_MS + 1)), vec![2, 3]),
        (format!("&since={}&until={}", text(START_MS + 1), text(START_MS + HOUR_MS)), vec![3]),
        (format!("&since={}&until={}", text(0), text(START_MS - HOUR_MS)), vec![4]),
        (format!("&since={}", text(START_MS + HOUR_MS)), vec![2]),
        (format!("&since={}&until={}", text(START_MS), text(START_MS + 3)), vec![1]),
    ] {
        let answer = export(query.clone()).await;
        assert_eq!(answer.status, 200, "{query}");
        let events = answer.json()["events"].as_array().unwrap().clone();
        let found: Vec<u64> = events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect();
        assert_eq!(found, sequences, "{query}");
        let (_, out, err) = package(answer.text);
        assert!(out.contains("chain       holds") && !out.contains("BROKEN"), "{query}: {out}{err}");
    }
    // Without event 2; and, although the interval has no beginning, without event 1.
    for query in [format!("&until={}", text(START_MS + HOUR_MS)), format!("&until={}", text(START_MS - HOUR_MS))] {
        let refused = export(query).await;
        assert_eq!(refused.status, 409);
        assert!(refused.error().contains("because the clock was set back"), "{}", refused.error());
    }
    clocked.server.stop().await.unwrap();
}
