//! The relay when all goes well: every event, once, in order, filtered as asked, and where it is can be seen.

use std::sync::Arc;
use std::time::Duration;

use cairn::relay::DestinationConfig;
use cairn::relay::config::Start;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::harness::{Process, Running, config, eventually, metric, run_text};
use crate::support::upstream::{EVENT, Fate, ORG, Upstream};

/// A destination at a test's upstream, which it tries again soon.
pub fn destination(upstream: &Upstream) -> DestinationConfig {
    let mut config = DestinationConfig { endpoint: upstream.url(), org_id: Some(ORG.to_owned()), ..Default::default() };
    config.retry.initial = Duration::from_millis(10);
    config.retry.max = Duration::from_millis(100);
    config
}

/// A server that relays to a test's upstream.
pub async fn start(data: &TempDir, upstream: &Upstream) -> Running {
    start_with(data, destination(upstream)).await
}

/// A server that relays as a destination says.
pub async fn start_with(data: &TempDir, destination: DestinationConfig) -> Running {
    let mut config = config(data.path());
    config.relay.agnost = Some(destination);
    Running::start(&config).await
}

/// What `GET /v1/relay` says of the only destination.
pub async fn status(server: &Running) -> Value {
    server.get("/v1/relay").await.json()["destinations"][0].clone()
}

/// Waits until nothing waits.
pub async fn drained(server: &Running) {
    eventually("an empty backlog", async || status(server).await["backlog"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_go_side_by_side_and_each_in_its_order() {
    // It takes its time, so that requests that may go side by side do.
    let late = |_: &str, _: &Value| Fate::Late(Duration::from_millis(5));
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start_with(late).await);
    let server = start(&data, &upstream).await;
    let batch: Vec<Value> = (0..600)
        .map(|n| json!({"agent_id": format!("a{}", n % 7), "session_id": format!("s{}", n % 5), "action_input": n}))
        .collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    drained(&server).await;
    let events = upstream.events();
    assert_eq!(events.len(), 600);
    let mut last = std::collections::HashMap::new();
    for event in &events {
        let n: u64 = event.text("args").parse().unwrap();
        let before = last.insert(event.text("session_id").to_owned(), n);
        assert!(before.is_none_or(|before| before < n), "{before:?} then {n}");
    }
    assert_eq!(last.len(), 35);
    let most = upstream.memory.most_in_flight.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=8).contains(&most), "{most} at once");
    upstream.assert_no_violations();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_it_goes_on_where_it_stopped_and_sessions_stay_announced() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    for round in 0..3 {
        let server = start(&data, &upstream).await;
        for n in 0..10 {
            server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": round * 10 + n})).await;
        }
        drained(&server).await;
        assert_eq!(status(&server).await["sent"], (round + 1) * 10, "over all restarts");
        server.stop().await.unwrap();
    }
    let taken = upstream.taken();
    assert_eq!(taken.iter().filter(|taken| taken.path == EVENT).count(), 30);
    assert_eq!(taken.len(), 31, "one session");
    // Whom it was told is part of what is remembered: somebody else is told anew.
    let other = Upstream::start().await;
    let server = start(&data, &other).await;
    server.store(&json!({"agent_id": "a", "session_id": "s"})).await;
    drained(&server).await;
    assert_eq!(other.taken().iter().map(|taken| taken.path == EVENT).collect::<Vec<_>>(), [false, true]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_destination_starts_where_it_is_told_and_keeps_to_it() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = Running::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a", "action_input": "before"})).await;
    server.stop().await.unwrap();
    let now = |name: &str| DestinationConfig { from: Start::Now, name: name.to_owned(), ..destination(&upstream) };
    // Started and stopped without an event: the place is kept all the same.
    start_with(&data, now("late")).await.stop().await.unwrap();
    let server = Running::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a", "action_input": "between"})).await;
    server.stop().await.unwrap();
    let server = start_with(&data, now("late")).await;
    server.store(&json!({"agent_id": "a", "action_input": "after"})).await;
    drained(&server).await;
    let args =
        |upstream: &Upstream| upstream.events().iter().map(|event| event.text("args").to_owned()).collect::<Vec<_>>();
    assert_eq!(args(&upstream), ["between", "after"]);
    server.stop().await.unwrap();
    let everything = Upstream::start().await;
    let server = start(&data, &everything).await;
    drained(&server).await;
    assert_eq!(args(&everything), ["before", "between", "after"]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn several_destinations_each_get_what_their_filter_lets_pass() {
    let data = TempDir::new().unwrap();
    let upstreams = [Upstream::start().await, Upstream::start().await, Upstream::start().await];
    let filters = [
        json!({"agent_ids": ["a", "b"]}),
        json!({"action_types": ["TOOL_CALL"], "labels": {"env": "prod"}}),
        json!({"labels": {"n": 1.0, "ok": true}}),
    ];
    let mut config = config(data.path());
    config.shards = 3;
    for (index, (upstream, filter)) in upstreams.iter().zip(filters).enumerate() {
        let filter = serde_json::from_value(filter).unwrap();
        config.relay.destinations.push(DestinationConfig {
            name: format!("d{index}"),
            filter,
            ..destination(upstream)
        });
    }
    let server = Running::start(&config).await;
    let events = [
        json!({"agent_id": "a", "action_input": "0", "labels": {"n": 1, "ok": true}}),
        json!({"agent_id": "b", "action_input": "1", "action_type": "TOOL_CALL"}),
        json!({"agent_id": "c", "action_input": "2", "action_type": "TOOL_CALL", "labels": {"env": "prod", "n": 1, "ok": "true"}}),
        json!({"agent_id": "d", "action_input": "3", "labels": {"env": "prod"}}),
        json!({"agent_id": "a", "action_input": "4", "action_type": "TOOL_CALL", "labels": {"env": "dev"}}),
    ];
    for event in &events {
        server.store(event).await;
    }
    eventually("empty backlogs", async || {
        let relay = server.get("/v1/relay").await.json();
        relay["destinations"].as_array().unwrap().iter().all(|destination| destination["backlog"] == 0)
    })
    .await;
    for (upstream, expected) in upstreams.iter().zip([vec!["0", "1", "4"], vec!["2"], vec!["0", "2"]]) {
        let mut args: Vec<String> = upstream.events().iter().map(|event| event.text("args").to_owned()).collect();
        args.sort();
        assert_eq!(args, expected);
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn where_it_is_can_be_seen_in_the_api_the_metrics_and_on_the_command_line() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start(&data, &upstream).await;
    let stored = server.store(&json!({"agent_id": "a"})).await;
    drained(&server).await;
    upstream.decide(|_, _| Fate::Status(503, None));
    let unsent = server.store(&json!({"agent_id": "a"})).await;
    server.store(&json!({"agent_id": "b"})).await;
    eventually("an open circuit", async || status(&server).await["circuit"] == "open").await;
    let seen = status(&server).await;
    assert_eq!((&seen["sent"], &seen["backlog"], &seen["dead_letters"]), (&json!(1), &json!(2), &json!(0)));
    assert_eq!(
        (&seen["name"], &seen["type"], &seen["endpoint"]),
        (&json!("agnost"), &json!("agnost"), &json!(upstream.url()))
    );
    assert_eq!(seen["oldest_unsent"], unsent["received_at"]);
    assert!(seen["last_error"]["message"].as_str().unwrap().contains("503"), "{seen}");
    assert!(seen["last_error"]["at"].as_str() >= stored["received_at"].as_str());
    let text = server.metrics().await;
    let value =
        |name: &str, labels: &str| metric(&text, &format!("cairn_relay_{name}{{destination=\"agnost\"{labels}}}"));
    assert_eq!(value("sent_events_total", ""), Some(1.0));
    assert_eq!(value("backlog_events", ""), Some(2.0));
    assert!(value("failures_total", ",reason=\"server_error\"").unwrap() >= 5.0);
    assert_eq!(value("dead_letters_total", ""), Some(0.0));
    let oldest = value("oldest_unsent_timestamp_seconds", "").unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(oldest < now && oldest > now - 60.0);
    assert_eq!(value("request_duration_seconds_count", ",code=\"200\""), Some(2.0), "a session and an event");
    assert!(value("request_duration_seconds_bucket", ",code=\"503\",le=\"10\"").unwrap() >= 5.0);
    assert!(metric(&text, "cairn_consumer_lag_events{consumer=\"relay/agnost\"}").is_some());
    let ready = server.client.get(format!("{}/readyz", server.admin_url)).send().await.unwrap();
    assert_eq!(ready.status(), 200, "an upstream's trouble is not the pod's");
    let (code, said, _) = run_text(&["relay", "status", "--server", &server.url]);
    assert_eq!(code, 0);
    for part in ["agnost", &upstream.url(), "circuit        open", "sent           1", "backlog        2", "503"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (code, said, _) = run_text(&["relay", "status", "--json", "--server", &server.url]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&said).unwrap()["destinations"][0]["backlog"].as_u64()),
        (0, Some(2))
    );
    upstream.decide(|_, _| Fate::Take);
    drained(&server).await;
    let seen = status(&server).await;
    assert_eq!((&seen["circuit"], &seen["oldest_unsent"], &seen["sent"]), (&json!("closed"), &Value::Null, &json!(3)));
    server.stop().await.unwrap();
    let data = TempDir::new().unwrap();
    let server = Running::start(&config(data.path())).await;
    assert_eq!(server.get("/v1/relay").await.text, r#"{"destinations":[]}"#);
    assert!(run_text(&["relay", "status", "--server", &server.url]).1.contains("relay.agnost.org_id"));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_alone_is_enough_for_one_destination() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let file = data.path().join("org-id");
    std::fs::write(&file, format!("{ORG}\n")).unwrap();
    let url = upstream.url();
    let environment =
        [("CAIRN_RELAY__AGNOST__ORG_ID_FILE", file.to_str().unwrap()), ("CAIRN_RELAY__AGNOST__ENDPOINT", &url)];
    let server = Process::start(&data.path().join("data"), &environment);
    let client = reqwest::Client::new();
    let event = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(event.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
    eventually("the event", async || upstream.event_count() == 1).await;
    assert_eq!(upstream.events()[0].org, ORG);
    assert!(!server.said().contains(ORG));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_behind_tls_is_spoken_to_in_http_2_and_has_to_be_trusted() {
    let data = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let upstream = Upstream::start_as(|_, _| Fate::Take, Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a"})).await;
    eventually("a failure", async || !status(&server).await["last_error"].is_null()).await;
    let error = status(&server).await["last_error"]["message"].to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    server.stop().await.unwrap();
    let ca_file = data.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let server = start_with(&data, DestinationConfig { ca_file: Some(ca_file), ..destination(&upstream) }).await;
    drained(&server).await;
    assert_eq!(upstream.events()[0].version, hyper::Version::HTTP_2);
    server.stop().await.unwrap();
}

/// Ingest goes on without a pause, over several connections, while the relay follows at the tail.
async fn ingest_without_a_pause(server: &Running, events: u64, sessions: u64) {
    let next = std::sync::atomic::AtomicU64::new(0);
    let senders = (0..4).map(|_| async {
        loop {
            let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if n >= events {
                return;
            }
            server
                .store(&json!({"agent_id": "a", "session_id": format!("s{}", n % sessions), "action_input": n}))
                .await;
        }
    });
    futures_util::future::join_all(senders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_passed_over_by_a_relay_that_follows_closely() {
    for shards in [1, 3] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        let mut config = config(data.path());
        config.shards = shards;
        config.relay.agnost = Some(destination(&upstream));
        let server = Running::start(&config).await;
        ingest_without_a_pause(&server, 20_000, 50).await;
        drained(&server).await;
        assert_eq!(upstream.event_count(), 20_000);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_starts_while_ingest_never_pauses() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start(&data, &upstream).await;
    let ingest = ingest_without_a_pause(&server, 1_000_000, 1);
    let arrived = eventually("an event while others come in", async || upstream.event_count() > 10);
    tokio::select! {
        () = ingest => panic!("it has to go on for longer than this test"),
        () = arrived => {}
    }
    server.stop().await.unwrap();
}
