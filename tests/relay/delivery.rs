//! The relay without failures: every event is sent once, in order and filtered, and its progress is visible.

use std::sync::Arc;
use std::time::Duration;

use cairn::relay::DestinationConfig;
use cairn::relay::config::Start;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::harness::{Process, TestServer, config, eventually, metric, run_text};
use crate::support::upstream::{EVENT, ORG, Reply, Upstream};

/// A destination for the upstream of a test, with short waits between retries.
pub fn destination(upstream: &Upstream) -> DestinationConfig {
    let mut config =
        DestinationConfig { endpoint: Some(upstream.url()), org_id: Some(ORG.to_owned()), ..Default::default() };
    config.retry.initial = Duration::from_millis(10);
    config.retry.max = Duration::from_millis(100);
    config
}

/// Starts a server that relays to the upstream of a test.
pub async fn start(data: &TempDir, upstream: &Upstream) -> TestServer {
    start_with(data, destination(upstream)).await
}

/// Starts a server that relays to a destination.
pub async fn start_with(data: &TempDir, destination: DestinationConfig) -> TestServer {
    let mut config = config(data.path());
    config.relay.agnost = Some(destination);
    TestServer::start(&config).await
}

/// The status of the only destination, from `GET /v1/relay`.
pub async fn status(server: &TestServer) -> Value {
    server.get("/v1/relay").await.json()["destinations"][0].clone()
}

/// Waits until the backlog of the only destination is empty.
pub async fn wait_until_drained(server: &TestServer) {
    eventually("an empty backlog", async || status(server).await["backlog"] == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_sent_concurrently_and_each_in_its_order() {
    // Delayed answers, so that requests of different sessions overlap.
    let late = |_: &str, _: &Value| Reply::AcceptAfter(Duration::from_millis(5));
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start_with(late).await);
    let server = start(&data, &upstream).await;
    let batch: Vec<Value> = (0..600)
        .map(|n| json!({"agent_id": format!("a{}", n % 7), "session_id": format!("s{}", n % 5), "action_input": n}))
        .collect();
    assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    wait_until_drained(&server).await;
    let events = upstream.events();
    assert_eq!(events.len(), 600);
    let mut last = std::collections::HashMap::new();
    for event in &events {
        let n: u64 = event.text("args").parse().unwrap();
        let before = last.insert(event.text("session_id").to_owned(), n);
        assert!(before.is_none_or(|before| before < n), "{before:?} then {n}");
    }
    assert_eq!(last.len(), 35);
    let max = upstream.state.max_in_flight.load(std::sync::atomic::Ordering::SeqCst);
    assert!((2..=8).contains(&max), "{max} concurrent requests");
    upstream.assert_no_violations();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_relay_continues_where_it_stopped_and_announces_no_session_again() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    for round in 0..3 {
        let server = start(&data, &upstream).await;
        for n in 0..10 {
            server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": round * 10 + n})).await;
        }
        wait_until_drained(&server).await;
        assert_eq!(status(&server).await["sent"], (round + 1) * 10, "counted across restarts");
        server.stop().await.unwrap();
    }
    let accepted = upstream.accepted();
    assert_eq!(accepted.iter().filter(|request| request.path == EVENT).count(), 30);
    assert_eq!(accepted.len(), 31, "one session");
    // The announcement is stored per endpoint: at another upstream the session is announced again.
    let other = Upstream::start().await;
    let server = start(&data, &other).await;
    server.store(&json!({"agent_id": "a", "session_id": "s"})).await;
    wait_until_drained(&server).await;
    assert_eq!(other.accepted().iter().map(|request| request.path == EVENT).collect::<Vec<_>>(), [false, true]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_destination_starts_at_the_configured_position_and_keeps_its_cursor() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = TestServer::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a", "action_input": "before"})).await;
    server.stop().await.unwrap();
    let now = |name: &str| DestinationConfig { from: Start::Now, name: name.to_owned(), ..destination(&upstream) };
    // Started and stopped without an event: the cursor is stored nevertheless.
    start_with(&data, now("late")).await.stop().await.unwrap();
    let server = TestServer::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a", "action_input": "between"})).await;
    server.stop().await.unwrap();
    let server = start_with(&data, now("late")).await;
    server.store(&json!({"agent_id": "a", "action_input": "after"})).await;
    wait_until_drained(&server).await;
    let args =
        |upstream: &Upstream| upstream.events().iter().map(|event| event.text("args").to_owned()).collect::<Vec<_>>();
    assert_eq!(args(&upstream), ["between", "after"]);
    server.stop().await.unwrap();
    let everything = Upstream::start().await;
    let server = start(&data, &everything).await;
    wait_until_drained(&server).await;
    assert_eq!(args(&everything), ["before", "between", "after"]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_destination_receives_the_events_that_its_filter_selects() {
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
    let server = TestServer::start(&config).await;
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
async fn the_progress_is_shown_by_the_api_the_metrics_and_the_command_line() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start(&data, &upstream).await;
    let stored = server.store(&json!({"agent_id": "a"})).await;
    wait_until_drained(&server).await;
    upstream.reply_with(|_, _| Reply::Status(503, None));
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
    assert_eq!(ready.status(), 200, "a failing upstream does not affect readiness");
    let (code, stdout, _) = run_text(&["relay", "status", "--server", &server.url]);
    assert_eq!(code, 0);
    for part in ["agnost", &upstream.url(), "circuit        open", "sent           1", "backlog        2", "503"] {
        assert!(stdout.contains(part), "{part} in {stdout}");
    }
    let (code, stdout, _) = run_text(&["relay", "status", "--json", "--server", &server.url]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&stdout).unwrap()["destinations"][0]["backlog"].as_u64()),
        (0, Some(2))
    );
    upstream.reply_with(|_, _| Reply::Accept);
    wait_until_drained(&server).await;
    let seen = status(&server).await;
    assert_eq!((&seen["circuit"], &seen["oldest_unsent"], &seen["sent"]), (&json!("closed"), &Value::Null, &json!(3)));
    server.stop().await.unwrap();
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    assert_eq!(server.get("/v1/relay").await.text, r#"{"destinations":[]}"#);
    assert!(run_text(&["relay", "status", "--server", &server.url]).1.contains("relay.agnost.org_id"));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_destination_can_be_configured_by_environment_variables_alone() {
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
    assert!(!server.log().contains(ORG));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_with_tls_receives_http_2_and_its_certificate_has_to_be_trusted() {
    let data = TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let upstream = Upstream::start_as(|_, _| Reply::Accept, Some(TlsAcceptor::from(Arc::new(tls)))).await;
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a"})).await;
    eventually("a failure", async || !status(&server).await["last_error"].is_null()).await;
    let error = status(&server).await["last_error"]["message"].to_string();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    server.stop().await.unwrap();
    let ca_file = data.path().join("ca.pem");
    std::fs::write(&ca_file, made.cert.pem()).unwrap();
    let server = start_with(&data, DestinationConfig { ca_file: Some(ca_file), ..destination(&upstream) }).await;
    wait_until_drained(&server).await;
    assert_eq!(upstream.events()[0].version, hyper::Version::HTTP_2);
    server.stop().await.unwrap();
}

/// Stores `events` events over four connections without a pause, while the relay follows at the end of the ledger.
async fn ingest_without_a_pause(server: &TestServer, events: u64, sessions: u64) {
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
async fn a_relay_that_follows_at_the_end_of_the_ledger_skips_no_event() {
    for shards in [1, 3] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        let mut config = config(data.path());
        config.shards = shards;
        config.relay.agnost = Some(destination(&upstream));
        let server = TestServer::start(&config).await;
        ingest_without_a_pause(&server, 20_000, 50).await;
        wait_until_drained(&server).await;
        assert_eq!(upstream.event_count(), 20_000);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_starts_while_events_are_stored_without_a_pause() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let server = start(&data, &upstream).await;
    let ingest = ingest_without_a_pause(&server, 1_000_000, 1);
    let arrived = eventually("relayed events during the load", async || upstream.event_count() > 10);
    tokio::select! {
        () = ingest => panic!("the load ended before the relay started"),
        () = arrived => {}
    }
    server.stop().await.unwrap();
}
