//! The relay and its surroundings: failing sessions next to others, changed settings, proxies, and a shutdown.

use std::time::Duration;

use cairn::relay::DestinationConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::relay::delivery::{destination, start, start_with, status, wait_until_drained};
use crate::support::harness::{Process, TestServer, config, eventually, run_text};
use crate::support::upstream::{EVENT, ORG, Reply, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn many_failing_sessions_delay_no_other_session() {
    for failure in [Reply::Status(500, None), Reply::Status(503, Some("3600".to_owned())), Reply::Hang] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        let reply = failure.clone();
        upstream.reply_with(move |_, body| match body["metadata"]["agent_id"] == "bad" {
            true => reply.clone(),
            false => Reply::Accept,
        });
        let timeout = Duration::from_millis(500);
        let server = start_with(&data, DestinationConfig { timeout, ..destination(&upstream) }).await;
        let of = |session: String| json!({"agent_id": "a", "session_id": session});
        let batch: Vec<Value> = (0..30).map(|n| json!({"agent_id": "bad", "session_id": format!("s{n}")})).collect();
        assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
        eventually("failures", async || !status(&server).await["last_error"].is_null()).await;
        let started = std::time::Instant::now();
        for round in 1..=10 {
            let batch: Vec<Value> = (0..40).map(|n| of(format!("{}", n % 20))).collect();
            assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
            eventually("the events of the other sessions", async || upstream.event_count() == 40 * round).await;
        }
        let took = started.elapsed();
        println!("{failure:?}: {took:?}");
        assert!(took < Duration::from_secs(20), "{failure:?}: {took:?}");
        assert_eq!(status(&server).await["backlog"], 30);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_several_destinations_a_command_has_to_name_one() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut config = config(data.path());
    config.relay.agnost = Some(destination(&upstream));
    config.relay.destinations = vec![DestinationConfig { name: "other".to_owned(), ..destination(&upstream) }];
    let server = TestServer::start(&config).await;
    let list = |more: &[&str]| {
        let arguments = [&["dead-letter", "list", "--server", &server.url], more].concat();
        tokio::task::block_in_place(|| run_text(&arguments))
    };
    let (code, _, stderr) = list(&[]);
    assert!(code == 2 && stderr.contains("--destination is required") && stderr.contains("other"), "{stderr}");
    assert_eq!(list(&["--destination", "other"]).0, 0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrected_organization_id_does_not_change_the_order_of_events() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Status(401, None));
    let wrong = "00000000-0000-4000-8000-000000000000".to_owned();
    let server = start_with(&data, DestinationConfig { org_id: Some(wrong), ..destination(&upstream) }).await;
    for n in 0..40 {
        server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": n})).await;
    }
    eventually("a refusal", async || !status(&server).await["last_error"].is_null()).await;
    server.stop().await.unwrap();
    upstream.reply_with(|_, _| Reply::Accept);
    let server = start(&data, &upstream).await;
    for n in 40..50 {
        server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": n})).await;
    }
    wait_until_drained(&server).await;
    let args: Vec<String> = upstream.events().iter().map(|event| event.text("args").to_owned()).collect();
    assert_eq!(args, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(upstream.accepted().iter().all(|request| request.org == ORG));
    assert_eq!(upstream.accepted().iter().filter(|request| request.path != EVENT).count(), 1);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_filter_also_applies_to_the_backlog() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Status(500, None));
    let server = start(&data, &upstream).await;
    for agent in ["public", "private", "public", "private"] {
        server.store(&json!({"agent_id": agent, "session_id": agent})).await;
    }
    eventually("a failure", async || status(&server).await["last_error"].is_object()).await;
    server.stop().await.unwrap();
    upstream.reply_with(|_, _| Reply::Accept);
    let mut config = destination(&upstream);
    config.filter.agent_ids.push("public".to_owned());
    let server = start_with(&data, config).await;
    wait_until_drained(&server).await;
    assert_eq!(upstream.event_count(), 2);
    assert!(upstream.accepted().iter().all(|request| !request.body.to_string().contains("private")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_arrives_during_the_shutdown_counts() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let late = |path: &str, _: &Value| {
        if path == EVENT { Reply::AcceptAfter(Duration::from_millis(400)) } else { Reply::Accept }
    };
    upstream.reply_with(late);
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a"})).await;
    eventually("a request", async || upstream.event_count() == 1).await;
    server.stop().await.unwrap();
    let server = start(&data, &upstream).await;
    wait_until_drained(&server).await;
    assert_eq!((status(&server).await["sent"].clone(), upstream.event_count()), (json!(1), 1), "not sent again");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_is_used_for_the_relay_and_not_by_the_command_line() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let proxy = upstream.url();
    let environment = [
        ("CAIRN_RELAY__AGNOST__ORG_ID", ORG),
        ("CAIRN_RELAY__AGNOST__ENDPOINT", "http://api.invalid"),
        ("HTTP_PROXY", &proxy),
        ("http_proxy", &proxy),
    ];
    let server = Process::start(data.path(), &environment);
    // The host name does not exist, so only the proxy can deliver the event.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let event = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(event.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
    eventually("the event", async || upstream.event_count() == 1).await;
    let mut status = crate::support::harness::cairn();
    status
        .args(["relay", "status", "--server", &server.url])
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("http_proxy", "http://127.0.0.1:9");
    assert!(status.output().unwrap().status.success(), "the command line uses no proxy");
}
