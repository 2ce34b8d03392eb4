//! An oracle for crash tests: it records which events a server acknowledged, and checks afterwards that all of them are
//! stored, once and unaltered.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Process, read_chain, reference_chain, run_text};

/// What servers acknowledged: events and checkpoints.
#[derive(Default)]
pub struct Oracle {
    /// Acknowledged events by id, as they were answered.
    events: HashMap<String, Value>,
    /// Ids of acknowledged events whose answer does not contain the event.
    ids: HashSet<String>,
    /// Events with an id of the client that were sent and not answered.
    unanswered: Vec<Value>,
    /// Files with the checkpoints that were shown, oldest first.
    checkpoints: Vec<PathBuf>,
    folder: Option<TempDir>,
}

/// The answers that a sender received.
#[derive(Default)]
pub struct SendResults {
    events: Vec<Value>,
    ids: Vec<String>,
    unanswered: Vec<Value>,
}

impl SendResults {
    /// The events of the JSON body of an answer.
    pub fn of(answer: Value) -> SendResults {
        SendResults { events: stored(answer), ..SendResults::default() }
    }

    /// Adds an acknowledged event.
    pub fn add(&mut self, event: Value) {
        self.events.push(event);
    }

    /// Whether every event with an id of the client was answered.
    pub fn all_answered(&self) -> bool {
        self.unanswered.is_empty()
    }
}

const AGENTS: u64 = 7;

/// Sends events in all formats until a request fails or `count` requests are sent.
pub async fn send(url: String, seed: u64, count: usize) -> SendResults {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut results = SendResults::default();
    for _ in 0..count {
        let id =
            |random: &mut fastrand::Rng| uuid::Builder::from_random_bytes(random.u128(..).to_be_bytes()).into_uuid();
        let event = |random: &mut fastrand::Rng| {
            let agent = format!("agent-{}", random.u64(..AGENTS));
            let output = "x".repeat(random.usize(..600));
            let event =
                json!({"agent_id": agent, "session_id": "s", "action_output": output, "duration_ms": random.u32(..)});
            if random.bool() { event } else { with(event, "id", id(random).to_string()) }
        };
        let (path, body) = match random.u8(..10) {
            0..6 => ("/v1/events", event(&mut random)),
            6..8 => ("/v1/batch", (0..random.usize(1..20)).map(|_| event(&mut random)).collect()),
            8 => ("/api/v1/capture-event", json!({"event_id": id(&mut random).to_string(), "args": "x", "latency": 3})),
            _ => ("/v1/traces", spans(&mut random)),
        };
        let sent =
            client.post(format!("{url}{path}")).header("content-type", "application/json").body(body.to_string());
        let answer = match sent.send().await {
            // A truncated answer counts as none.
            Ok(answer) => (answer.status().as_u16(), answer.text().await.ok()),
            Err(_) => (0, None),
        };
        match answer {
            (201, Some(text)) => results.events.extend(stored(serde_json::from_str(&text).unwrap())),
            (200, Some(_)) if path == "/v1/traces" => results.ids.extend(ids_of_spans(&body)),
            (200, Some(_)) => results.ids.extend(body["event_id"].as_str().map(str::to_owned)),
            (0, _) | (_, None) => {
                results.unanswered.extend(Some(body).filter(|body| body.get("id").is_some()));
                break;
            }
            // Refused, and not sent again. The pause is the subject: it paces the sender while the server refuses, as
            // Retry-After does.
            (503, _) => tokio::time::sleep(Duration::from_millis(20)).await,
            (207, Some(text)) => results.events.extend(stored(serde_json::from_str(&text).unwrap())),
            (status, text) => panic!("{path}: {status} {text:?}"),
        }
    }
    results
}

fn with(mut event: Value, key: &str, value: String) -> Value {
    event[key] = Value::from(value);
    event
}

/// The stored events in the body of an answer.
fn stored(answer: Value) -> Vec<Value> {
    match answer {
        Value::Array(entries) => {
            entries.into_iter().filter_map(|mut it| it.get_mut("event").map(Value::take)).collect()
        }
        event => vec![event],
    }
}

fn spans(random: &mut fastrand::Rng) -> Value {
    let trace = format!("{:032x}", random.u128(1..));
    let span = |_| json!({"traceId": trace, "spanId": format!("{:016x}", random.u64(1..)), "name": "s"});
    let spans: Vec<Value> = (0..3).map(span).collect();
    json!({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
}

/// The event ids of spans: UUIDv5 in the namespace of `docs/otlp.md`.
fn ids_of_spans(body: &Value) -> Vec<String> {
    let namespace = uuid::uuid!("156d8089-5891-4f39-828a-95600e6f5574");
    let spans = body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let name = |span: &Value| format!("{}{}", text(&span["traceId"]), text(&span["spanId"]));
    spans.iter().map(|span| uuid::Uuid::new_v5(&namespace, name(span).as_bytes()).to_string()).collect()
}

impl Oracle {
    /// Records the answers that a sender received.
    pub fn record(&mut self, results: SendResults) {
        for event in results.events {
            let id = event["id"].as_str().unwrap().to_owned();
            assert!(self.events.insert(id, event).is_none(), "the server assigned an id twice");
        }
        self.ids.extend(results.ids);
        self.unanswered.extend(results.unanswered);
    }

    /// The number of acknowledged events.
    pub fn len(&self) -> usize {
        self.events.len() + self.ids.len()
    }

    /// Records the current checkpoint of a server, if it has one.
    pub async fn fetch_checkpoint(&mut self, url: &str) {
        let answer = reqwest::get(format!("{url}/log/checkpoint")).await;
        if let Ok(answer) = answer
            && answer.status() == 200
            && let Ok(note) = answer.text().await
        {
            self.add_checkpoint(&note);
        }
    }

    /// Records a checkpoint.
    pub fn add_checkpoint(&mut self, note: &str) {
        let folder = self.folder.get_or_insert_with(|| TempDir::new().unwrap());
        let path = folder.path().join(self.checkpoints.len().to_string());
        std::fs::write(&path, note).unwrap();
        self.checkpoints.push(path);
    }

    /// Retries the events that were not answered, as clients do, and records the answers.
    pub async fn resend_unanswered(&mut self, url: &str) {
        let client = reqwest::Client::new();
        for event in std::mem::take(&mut self.unanswered) {
            let request = client.post(format!("{url}/v1/events")).header("content-type", "application/json");
            let answer = request.body(event.to_string()).send().await.unwrap();
            // 200: it was stored, and its answer was lost. 201: it is stored now.
            assert!(matches!(answer.status().as_u16(), 200 | 201), "{}", answer.status());
            let event: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            self.events.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
    }

    /// Asserts that every acknowledged event is stored once and unaltered, and that the chains have no gaps.
    pub async fn check(&self, url: &str) {
        let client = reqwest::Client::new();
        let mut missing: BTreeSet<&String> = self.events.keys().chain(&self.ids).collect();
        let mut seen = HashSet::new();
        for agent in agents(&client, url).await {
            let chain = read_chain(&client, url, &agent).await;
            for (index, event) in chain.iter().enumerate() {
                assert_eq!(event["sequence"], index + 1, "a gap in the chain of {agent}");
                let id = event["id"].as_str().unwrap();
                assert!(seen.insert(id.to_owned()), "{id} is stored twice");
                assert!(self.events.get(id).is_none_or(|acknowledged| acknowledged == event), "altered: {event}");
                missing.remove(&id.to_owned());
            }
        }
        assert!(missing.is_empty(), "acknowledged, but not stored: {missing:?}");
    }

    /// Asserts that `cairn verify --all` succeeds, also against recorded checkpoints.
    pub fn verify(&self, data: &Path) {
        let data = data.to_str().unwrap();
        let checkpoints = self.checkpoints.iter().map(|path| vec!["--checkpoint", path.to_str().unwrap()]);
        // The last two and some earlier ones: each checkpoint commits to all events before it.
        let some = checkpoints.rev().enumerate().filter(|(at, _)| *at < 2 || at.is_power_of_two()).map(|(_, it)| it);
        for more in some.chain([Vec::new()]) {
            let (code, stdout, err) = run_text(&[&["verify", "--all", "--data-dir", data], &more[..]].concat());
            assert_eq!(code, 0, "{stdout}{err}");
        }
    }

    /// Asserts that the independent reference accepts every chain.
    pub async fn check_with_reference(&self, server: &Process) {
        let client = reqwest::Client::new();
        for agent in agents(&client, &server.url).await {
            let chain = read_chain(&client, &server.url, &agent).await;
            let stdout = reference_chain(&chain).unwrap();
            assert!(stdout.starts_with(&format!("{} events", chain.len())), "{stdout}");
        }
    }
}

async fn agents(client: &reqwest::Client, url: &str) -> Vec<String> {
    let text = client.get(format!("{url}/v1/agents?limit=1000")).send().await.unwrap().text().await.unwrap();
    let agents: Vec<BTreeMap<String, Value>> = serde_json::from_str(&text).unwrap();
    agents.iter().map(|agent| agent["agent_id"].as_str().unwrap().to_owned()).collect()
}
