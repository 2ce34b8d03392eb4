//! All faults together: an upstream that fails every third request and is away twice, and a server that is killed three
//! times.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::relay::agnost_mapping::{event_body, session_body, session_id};
use crate::support::harness::{Process, eventually, read_chain};
use crate::support::upstream::{AcceptedRequest, EVENT, ORG, Reply, SESSION, Upstream};

const EVENTS: usize = 20_000;
const AGENTS: usize = 50;
const SESSIONS_PER_AGENT: usize = 4;
const BATCH: usize = 100;
const CONCURRENCY: usize = 8;
const KILLS: [usize; 3] = [3_000, 8_000, 15_000];
const OUTAGES: [usize; 2] = [5_000, 12_000];

/// Event number `n`. Half of the sessions have a UUID as id.
fn event(n: usize) -> Value {
    let (agent, session) = (n % AGENTS, n / AGENTS % SESSIONS_PER_AGENT);
    let session = match session % 2 {
        0 => Uuid::from_u128((agent * 10 + session) as u128 | 0x4000_8000 << 64).to_string(),
        _ => format!("session {session}"),
    };
    let kind = ["TOOL_CALL", "LLM_CALL", "AGENT_TURN"][n % 3];
    json!({
        "id": Uuid::from_u128(n as u128 | 0x4000_8000 << 64).to_string(),
        "agent_id": format!("agent-{agent}"),
        "session_id": session,
        "action_type": kind,
        "action_name": format!("action {}", n % 11),
        "action_input": {"n": n},
        "action_output": "x".repeat(n % 300),
        "action_status": if n.is_multiple_of(7) { "error" } else { "success" },
        "error_message": "why",
        "duration_ms": n,
        "labels": {"env": "test", "n": n},
    })
}

/// Fails a third of the requests, each with a random kind of failure.
fn fails_often(seed: u64) -> impl FnMut(&str, &Value) -> Reply + Send {
    let mut random = fastrand::Rng::with_seed(seed);
    move |_, _| match random.u32(..3000) {
        0..300 => Reply::Status(500, None),
        300..500 => Reply::Status(429, Some("0".to_owned())),
        500..600 => Reply::Status(503, None),
        600..800 => Reply::Reset,
        800..997 => Reply::AcceptAndReset,
        997..1000 => Reply::Hang,
        _ => Reply::Accept,
    }
}

fn start(data: &Path, upstream: &Upstream) -> Process {
    let url = upstream.url();
    let environment = [
        ("CAIRN_RELAY__AGNOST__ORG_ID", ORG),
        ("CAIRN_RELAY__AGNOST__ENDPOINT", url.as_str()),
        ("CAIRN_RELAY__AGNOST__TIMEOUT", "2s"),
        ("CAIRN_RELAY__AGNOST__RETRY__INITIAL", "10ms"),
        ("CAIRN_RELAY__AGNOST__RETRY__MAX", "100ms"),
    ];
    Process::start(data, &environment)
}

/// Sends a batch until every event is stored, as a client that sets ids does.
async fn store(client: &Client, url: &tokio::sync::watch::Receiver<String>, batch: &Value) {
    loop {
        let url = url.borrow().clone();
        let request = client.post(format!("{url}/v1/batch")).header("content-type", "application/json");
        if let Ok(answer) = request.body(batch.to_string()).send().await
            && answer.status() == 201
        {
            return;
        }
        // The pause is the subject: a client that waits before it sends again.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The status of the only destination.
async fn relay_status(client: &Client, server: &Process) -> Value {
    let answer = client.get(format!("{}/v1/relay", server.url)).send().await.unwrap().text().await.unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["destinations"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn despite_faults_kills_and_outages_every_event_arrives_in_order_after_its_session() {
    let data = TempDir::new().unwrap();
    let seed = crate::durability::faults::seed();
    let mut upstream = Upstream::start_with(fails_often(seed)).await;
    let client = Client::new();
    let mut server = start(data.path(), &upstream);
    let (here, url) = tokio::sync::watch::channel(server.url.clone());
    let sender = {
        let client = client.clone();
        tokio::spawn(async move {
            for first in (0..EVENTS).step_by(BATCH) {
                let batch: Vec<Value> = (first..first + BATCH).map(event).collect();
                store(&client, &url, &batch.into()).await;
            }
        })
    };
    let mut steps: Vec<(usize, bool)> = KILLS.map(|at| (at, true)).into_iter().collect();
    steps.extend(OUTAGES.map(|at| (at, false)));
    steps.sort_unstable();
    for (at, is_kill) in steps {
        eventually("progress", async || upstream.event_count() >= at).await;
        if is_kill {
            server.kill();
            server = start(data.path(), &upstream);
            here.send_replace(server.url.clone());
        } else {
            upstream.down().await;
            eventually("an open circuit", async || relay_status(&client, &server).await["circuit"] == "open").await;
            upstream.up().await;
        }
    }
    sender.await.unwrap();
    for share in 1..=4 {
        // The time limit of `eventually` applies to each quarter of the events.
        let left = (EVENTS * (4 - share) / 4) as u64;
        let is_less = |backlog: &Value| backlog.as_u64().is_some_and(|backlog| backlog <= left);
        eventually("the backlog shrinks", async || is_less(&relay_status(&client, &server).await["backlog"])).await;
    }
    assert_eq!(relay_status(&client, &server).await["dead_letters"], 0);
    upstream.assert_no_violations();
    let mut stored = HashMap::new();
    for agent in 0..AGENTS {
        for event in read_chain(&client, &server.url, &format!("agent-{agent}")).await {
            stored.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
    }
    assert_eq!(stored.len(), EVENTS);
    for sent in (0..EVENTS).map(event) {
        let stored_event = &stored[sent["id"].as_str().unwrap()];
        assert!(
            sent.as_object().unwrap().iter().all(|(name, value)| stored_event[name] == *value),
            "{sent} is stored as {stored_event}"
        );
    }
    check_deliveries(&stored, &upstream.accepted());
}

/// Asserts that every stored event was relayed, in the order of its session and after its announcement, with few
/// repetitions.
fn check_deliveries(stored: &HashMap<String, Value>, accepted: &[AcceptedRequest]) {
    let mut arrivals: HashMap<&str, usize> = HashMap::new();
    // The events of each announced session, in the order of their first arrival.
    let mut sessions: HashMap<&str, Vec<u64>> = HashMap::new();
    let (mut answered, mut announcements) = (HashMap::<&str, usize>::new(), HashMap::<&str, usize>::new());
    let first_of = |session: &str| {
        let of_session = stored.values().filter(|event| session_id(event) == session);
        of_session.min_by_key(|event| event["duration_ms"].as_u64()).unwrap()
    };
    for request in accepted {
        let session = request.text("session_id");
        match request.path.as_str() {
            SESSION => {
                assert_eq!(request.body, session_body(first_of(session)));
                sessions.entry(session).or_default();
                *announcements.entry(session).or_default() += usize::from(request.is_answered);
            }
            EVENT => {
                let id = request.text("event_id");
                let event = stored.get(id).unwrap_or_else(|| panic!("{id} was invented"));
                assert_eq!(request.body, event_body(event));
                assert_eq!(request.org, ORG);
                let order = sessions.get_mut(session).expect("an event came before its session");
                let count = arrivals.entry(id).or_default();
                if *count == 0 {
                    order.push(event["duration_ms"].as_u64().unwrap());
                }
                *count += 1;
                *answered.entry(id).or_default() += usize::from(request.is_answered);
            }
            path => panic!("{path}"),
        }
    }
    assert_eq!(arrivals.len(), EVENTS, "every event arrives");
    assert_eq!(sessions.len(), AGENTS * SESSIONS_PER_AGENT);
    for order in sessions.values() {
        assert!(order.is_sorted(), "out of order: {order:?}");
    }
    // An answered request is repeated only if it was in flight at a kill or at an outage.
    let repetitions =
        |counts: HashMap<&str, usize>| counts.into_values().map(|count| count.saturating_sub(1)).sum::<usize>();
    let duplicates = repetitions(answered) + repetitions(announcements);
    println!("{duplicates} duplicates, {} requests accepted", accepted.len());
    assert!(duplicates <= CONCURRENCY * (KILLS.len() + OUTAGES.len()), "{duplicates} duplicates");
}
