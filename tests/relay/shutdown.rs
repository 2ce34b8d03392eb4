//! What the relay does at a shutdown, because the disk may be lost with the process.

use std::time::{Duration, Instant};

use cairn::relay::DestinationConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::relay::delivery::{destination, start, start_with, status, wait_until_drained};
use crate::relay::faults::is_event;
use crate::support::harness::{Process, TestServer, eventually};
use crate::support::upstream::{EVENT, ORG, Reply, Upstream};

/// Starts a server that does not give up its upstream before the end of the grace.
async fn start_patient(data: &TempDir, destination: DestinationConfig) -> TestServer {
    let mut config = crate::support::harness::config(data.path());
    config.relay.agnost = Some(destination);
    config.shutdown.relay_time = config.shutdown.grace;
    TestServer::start(&config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_requests_in_flight_during_its_grace_and_loses_no_event() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Hang);
    let mut config = crate::support::harness::config(data.path());
    config.relay.agnost = Some(destination(&upstream));
    config.shutdown.grace = Duration::from_millis(300);
    let server = TestServer::start(&config).await;
    server.store(&json!({"agent_id": "a"})).await;
    eventually("a request", async || status(&server).await["in_flight"] == 1).await;
    let started = Instant::now();
    server.stop().await.unwrap();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    upstream.reply_with(|_, _| Reply::Accept);
    let server = TestServer::start(&config).await;
    wait_until_drained(&server).await;
    assert_eq!(upstream.event_count(), 1);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_sends_the_backlog_while_the_upstream_accepts_it() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::AcceptAfter(Duration::from_millis(10)));
    let server = start_patient(&data, destination(&upstream)).await;
    // One session, so that the events are sent one after the other.
    let events: Vec<_> =
        (0..100).map(|number| json!({"agent_id": "a", "session_id": "s", "action_input": number})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    assert!(upstream.event_count() < 100, "some events are in the backlog");
    server.stop().await.unwrap();
    assert_eq!(upstream.event_count(), 100, "the disk may be deleted with the pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_gives_up_an_upstream_that_accepts_nothing_for_the_configured_time() {
    for failure in [Reply::Status(503, None), Reply::Reset] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        upstream.reply_with(move |_, _| failure.clone());
        let mut config = crate::support::harness::config(data.path());
        config.relay.agnost = Some(destination(&upstream));
        config.shutdown.relay_time = Duration::from_millis(1500);
        let server = TestServer::start(&config).await;
        server.store(&json!({"agent_id": "a"})).await;
        eventually("a failure", async || !status(&server).await["last_error"].is_null()).await;
        let started = Instant::now();
        server.stop().await.unwrap();
        let took = started.elapsed();
        assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(5), "{took:?}, of a grace of 20 s");
        upstream.reply_with(|_, _| Reply::Accept);
        let server = start(&data, &upstream).await;
        wait_until_drained(&server).await;
        assert_eq!(upstream.event_count(), 1);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_an_upstream_that_comes_back() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Status(503, None));
    // Waits between retries that are longer than the grace of the shutdown.
    let mut config = destination(&upstream);
    (config.retry.initial, config.retry.max) = (Duration::from_secs(60), Duration::from_secs(60));
    let server = start_patient(&data, config).await;
    let events: Vec<_> = (0..238).map(|number| json!({"agent_id": format!("agent-{}", number % 40)})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    eventually("an open circuit", async || status(&server).await["circuit"] == "open").await;
    let back = tokio::spawn(async move {
        // The pause is the subject: an upstream that restarts.
        tokio::time::sleep(Duration::from_secs(5)).await;
        upstream.reply_with(|_, _| Reply::Accept);
        upstream
    });
    server.stop().await.unwrap();
    assert_eq!(back.await.unwrap().event_count(), 238, "the disk may be deleted with the pod");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_relayed_is_reported_and_may_be_an_exit_status() {
    for (is_failure, status) in [("false", 0), ("true", 4)] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        upstream.reply_with(|_, _| Reply::Status(503, None));
        let environment = [
            ("CAIRN_RELAY__AGNOST__ORG_ID", ORG),
            ("CAIRN_RELAY__AGNOST__ENDPOINT", &upstream.url()),
            ("CAIRN_SHUTDOWN__RELAY_TIME", "300ms"),
            ("CAIRN_SHUTDOWN__FAIL_IF_UNSENT", is_failure),
        ];
        let mut server = Process::start(data.path(), &environment);
        let request = reqwest::Client::new().post(format!("{}/v1/batch", server.url));
        let request = request.header("content-type", "application/json").body(r#"[{"agent_id":"a"},{"agent_id":"b"}]"#);
        assert_eq!(request.send().await.unwrap().status(), 201);
        assert!(std::process::Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
        assert_eq!(server.child.wait().unwrap().code(), Some(status));
        let logged = || {
            server.log().lines().any(|line| line.contains("events were not relayed") && line.contains("\"unsent\":2"))
        };
        eventually("the number in the log", async || logged()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_retries_every_waiting_event_once_before_its_next_retry_is_due() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Status(503, None));
    // Waits between retries that are longer than the grace of the shutdown.
    let mut config = destination(&upstream);
    (config.retry.initial, config.retry.max) = (Duration::from_secs(60), Duration::from_secs(60));
    let server = start_with(&data, config).await;
    let events: Vec<_> = (0..20).map(|number| json!({"agent_id": format!("agent-{number}")})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    eventually("an open circuit", async || status(&server).await["circuit"] == "open").await;
    upstream.reply_with(|_, _| Reply::Accept);
    server.stop().await.unwrap();
    assert_eq!(upstream.event_count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_failure_or_a_stuck_session_does_not_end_a_shutdown_early() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut seen = 0;
    upstream.reply_with(move |path, body| {
        seen += usize::from(path == EVENT);
        match () {
            () if is_event(path, body, "stuck") => Reply::Status(429, Some("3600".to_owned())),
            () if seen == 30 => Reply::Status(429, Some("1".to_owned())),
            () => Reply::AcceptAfter(Duration::from_millis(5)),
        }
    });
    let mut config = crate::support::harness::config(data.path());
    config.relay.agnost = Some(destination(&upstream));
    config.shutdown.relay_time = Duration::from_secs(3);
    let server = TestServer::start(&config).await;
    server.store(&json!({"agent_id": "stuck", "action_input": "stuck"})).await;
    eventually("a failure", async || !status(&server).await["last_error"].is_null()).await;
    let events: Vec<_> =
        (0..100).map(|number| json!({"agent_id": "a", "session_id": "s", "action_input": number})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    let started = Instant::now();
    server.stop().await.unwrap();
    assert_eq!(upstream.event_count(), 100);
    assert!(started.elapsed() < Duration::from_secs(10), "the shutdown does not wait for the Retry-After of one hour");
}
