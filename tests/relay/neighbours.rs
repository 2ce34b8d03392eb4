//! The relay and what is around it: bad sessions beside good ones, settings that change, proxies, a shutdown.

use std::time::Duration;

use cairn::relay::DestinationConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::relay::delivery::{destination, drained, start, start_with, status};
use crate::support::harness::{Process, Running, config, eventually, run_text};
use crate::support::upstream::{EVENT, Fate, ORG, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn many_bad_sessions_hold_up_no_good_one() {
    for bad in [Fate::Status(500, None), Fate::Status(503, Some("3600".to_owned())), Fate::Hang] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        let fate = bad.clone();
        upstream.decide(move |_, body| match body["metadata"]["agent_id"] == "bad" {
            true => fate.clone(),
            false => Fate::Take,
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
            eventually("the good ones", async || upstream.event_count() == 40 * round).await;
        }
        let took = started.elapsed();
        println!("{bad:?}: {took:?}");
        assert!(took < Duration::from_secs(20), "{bad:?}: {took:?}");
        assert_eq!(status(&server).await["backlog"], 30);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_destinations_a_command_has_to_name_one() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut config = config(data.path());
    config.relay.agnost = Some(destination(&upstream));
    config.relay.destinations = vec![DestinationConfig { name: "other".to_owned(), ..destination(&upstream) }];
    let server = Running::start(&config).await;
    let list = |more: &[&str]| {
        let arguments = [&["dead-letter", "list", "--server", &server.url], more].concat();
        tokio::task::block_in_place(|| run_text(&arguments))
    };
    let (code, _, said) = list(&[]);
    assert!(code == 2 && said.contains("--destination is needed") && said.contains("other"), "{said}");
    assert_eq!(list(&["--destination", "other"]).0, 0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_that_is_corrected_changes_no_order() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|_, _| Fate::Status(401, None));
    let wrong = "00000000-0000-4000-8000-000000000000".to_owned();
    let server = start_with(&data, DestinationConfig { org_id: Some(wrong), ..destination(&upstream) }).await;
    for n in 0..40 {
        server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": n})).await;
    }
    eventually("a refusal", async || !status(&server).await["last_error"].is_null()).await;
    server.stop().await.unwrap();
    upstream.decide(|_, _| Fate::Take);
    let server = start(&data, &upstream).await;
    for n in 40..50 {
        server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": n})).await;
    }
    drained(&server).await;
    let args: Vec<String> = upstream.events().iter().map(|event| event.text("args").to_owned()).collect();
    assert_eq!(args, (0..50).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(upstream.taken().iter().all(|taken| taken.org == ORG));
    assert_eq!(upstream.taken().iter().filter(|taken| taken.path != EVENT).count(), 1);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_that_is_tightened_counts_for_what_waits_already() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|_, _| Fate::Status(500, None));
    let server = start(&data, &upstream).await;
    for agent in ["public", "private", "public", "private"] {
        server.store(&json!({"agent_id": agent, "session_id": agent})).await;
    }
    eventually("a failure", async || status(&server).await["last_error"].is_object()).await;
    server.stop().await.unwrap();
    upstream.decide(|_, _| Fate::Take);
    let mut config = destination(&upstream);
    config.filter.agent_ids.push("public".to_owned());
    let server = start_with(&data, config).await;
    drained(&server).await;
    assert_eq!(upstream.event_count(), 2);
    assert!(upstream.taken().iter().all(|taken| !taken.body.to_string().contains("private")));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_while_the_server_shuts_down_counts() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let late = |path: &str, _: &Value| if path == EVENT { Fate::Late(Duration::from_millis(400)) } else { Fate::Take };
    upstream.decide(late);
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a"})).await;
    eventually("a request", async || upstream.event_count() == 1).await;
    server.stop().await.unwrap();
    let server = start(&data, &upstream).await;
    drained(&server).await;
    assert_eq!((status(&server).await["sent"].clone(), upstream.event_count()), (json!(1), 1), "not sent again");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_of_the_environment_is_used() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let proxy = upstream.url();
    let environment = [
        ("CAIRN_RELAY__AGNOST__ORG_ID", ORG),
        ("CAIRN_RELAY__AGNOST__ENDPOINT", "http://api.invalid"),
        ("HTTP_PROXY", &proxy),
        ("http_proxy", &proxy),
    ];
    let server = Process::start(data.path(), &environment);
    // The name does not exist: only the proxy can have brought it here.
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let event = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(event.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
    eventually("the event", async || upstream.event_count() == 1).await;
    let mut status = crate::support::harness::cairn();
    status
        .args(["relay", "status", "--server", &server.url])
        .env("HTTP_PROXY", "http://127.0.0.1:9")
        .env("http_proxy", "http://127.0.0.1:9");
    assert!(status.output().unwrap().status.success(), "what we ask ourselves goes through no proxy");
}
