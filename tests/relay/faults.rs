//! The relay when the upstream fails: retries, dead letters, the circuit, and shutdowns.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cairn::relay::DestinationConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::relay::delivery::{destination, start, start_with, status, wait_until_drained};
use crate::support::harness::{Process, eventually, run_text};
use crate::support::upstream::{EVENT, ORG, Reply, Upstream};

/// Whether a request contains the event with this input.
pub fn is_event(path: &str, body: &Value, args: &str) -> bool {
    path == EVENT && body["args"] == args
}

#[tokio::test(flavor = "multi_thread")]
async fn every_temporary_failure_is_retried_until_the_event_is_accepted() {
    let replies = [
        Reply::Status(500, None),
        Reply::Status(503, Some("0".to_owned())),
        Reply::Status(599, None),
        Reply::Status(408, None),
        Reply::Status(429, Some("0".to_owned())),
        Reply::Status(401, None),
        Reply::Status(403, None),
        Reply::Status(302, None),
        Reply::Hang,
        Reply::Reset,
        Reply::AcceptAndReset,
    ];
    for reply in replies {
        let data = TempDir::new().unwrap();
        let mut left = 3;
        let failure = reply.clone();
        let upstream = Upstream::start_with(move |_, _| match left {
            0 => Reply::Accept,
            _ => {
                left -= 1;
                failure.clone()
            }
        })
        .await;
        let config = DestinationConfig { timeout: Duration::from_millis(150), ..destination(&upstream) };
        let server = start_with(&data, config).await;
        let stored = server.store(&json!({"agent_id": "a"})).await;
        wait_until_drained(&server).await;
        let events = upstream.events();
        assert!(!events.is_empty() && events.iter().all(|event| event.body["event_id"] == stored["id"]), "{reply:?}");
        assert_eq!(status(&server).await["dead_letters"], 0, "{reply:?}");
        upstream.assert_no_violations();
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    for is_date in [false, true] {
        let data = TempDir::new().unwrap();
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        let upstream = Upstream::start_with(move |path, _| {
            if path != EVENT {
                return Reply::Accept;
            }
            let mut times = seen.lock().unwrap();
            times.push(Instant::now());
            if times.len() > 1 {
                return Reply::Accept;
            }
            // An HTTP date has whole seconds, so this one is at least two seconds away.
            let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3));
            Reply::Status(429, Some(if is_date { date } else { "2".to_owned() }))
        })
        .await;
        let server = start(&data, &upstream).await;
        server.store(&json!({"agent_id": "a"})).await;
        wait_until_drained(&server).await;
        let times = times.lock().unwrap().clone();
        let waited = times[1] - times[0];
        assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_session_delays_no_other_session_however_many_events_it_has() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let bad = |path: &str, body: &Value| is_event(path, body, "bad");
    upstream.reply_with(move |path, body| if bad(path, body) { Reply::Status(500, None) } else { Reply::Accept });
    let mut server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a", "session_id": "stuck", "action_input": "bad"})).await;
    // Far more events than the relay keeps in memory per session, interleaved with those of other sessions.
    let mut expected = 0;
    for round in 0..4 {
        let stuck =
            (0..300).map(|n| json!({"agent_id": "a", "session_id": "stuck", "action_input": format!("{round}-{n}")}));
        let others =
            (0..300).map(|n| json!({"agent_id": "a", "session_id": format!("s{}", n % 20), "action_input": "other"}));
        let batch: Vec<Value> = stuck.zip(others).flat_map(|(stuck, other)| [stuck, other]).collect();
        assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
        expected += 300;
        eventually("the events of the other sessions", async || upstream.event_count() == expected).await;
        assert!(upstream.events().iter().all(|event| event.body["args"] == "other"));
        assert_eq!(status(&server).await["backlog"], 1 + 300 * (round + 1));
        // The backlog on disk survives a restart.
        server.stop().await.unwrap();
        server = start(&data, &upstream).await;
    }
    upstream.reply_with(|_, _| Reply::Accept);
    wait_until_drained(&server).await;
    let args = upstream.events()[expected..].iter().map(|event| event.text("args").to_owned()).collect::<Vec<_>>();
    let all = (0..4).flat_map(|round| (0..300).map(move |n| format!("{round}-{n}")));
    assert_eq!(args, ["bad".to_owned()].into_iter().chain(all).collect::<Vec<_>>());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_circuit_is_open_one_request_at_a_time_is_tried() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Status(500, None));
    let server = start(&data, &upstream).await;
    let batch: Vec<Value> = (0..200).map(|n| json!({"agent_id": format!("a{n}")})).collect();
    server.send("/v1/batch", &batch.into()).await;
    eventually("an open circuit", async || status(&server).await["circuit"] == "open").await;
    eventually("the end of the earlier requests", async || status(&server).await["in_flight"].as_u64() <= Some(1))
        .await;
    upstream.state.max_in_flight.store(0, Ordering::SeqCst);
    let before = upstream.state.bodies.lock().unwrap().len();
    eventually("probes", async || upstream.state.bodies.lock().unwrap().len() >= before + 10).await;
    assert_eq!(upstream.state.max_in_flight.load(Ordering::SeqCst), 1);
    assert_eq!(status(&server).await["circuit"], "open");
    upstream.reply_with(|_, _| Reply::Accept);
    wait_until_drained(&server).await;
    assert_eq!(upstream.event_count(), 200);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanently_refused_event_becomes_a_dead_letter_and_can_be_retried() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream
        .reply_with(|path, body| if is_event(path, body, "bad") { Reply::Status(400, None) } else { Reply::Accept });
    let server = start(&data, &upstream).await;
    let mut bad = Vec::new();
    for n in 0..3 {
        bad.push(server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": "bad"})).await);
        server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": n})).await;
    }
    wait_until_drained(&server).await;
    assert_eq!(upstream.event_count(), 3);
    assert_eq!(status(&server).await["dead_letters"], 3);
    let letters = server.get("/v1/relay/agnost/dead-letters").await.json();
    assert_eq!(
        (letters.as_array().unwrap().len(), &letters[0]["status"], &letters[0]["refused"]),
        (3, &json!(400), &json!("event"))
    );
    assert!(letters[0]["answer"].as_str().unwrap().contains("injected failure for [REDACTED]"));
    let page = server.get("/v1/relay/agnost/dead-letters?limit=2").await;
    let next = crate::support::harness::next_page(&page.headers).unwrap();
    assert_eq!((page.json().as_array().unwrap().len(), server.get(&next).await.json()), (2, json!([letters[2]])));
    let ids: Vec<&str> = bad.iter().map(|event| event["id"].as_str().unwrap()).collect();

    let cli = |arguments: &[&str]| run_text(&[&["dead-letter"], arguments, &["--server", &server.url]].concat());
    let (code, stdout, _) = cli(&["list"]);
    assert!(code == 0 && stdout.lines().count() == 3 && ids.iter().all(|id| stdout.contains(id)), "{stdout}");
    let (code, stdout, _) = cli(&["show", ids[1]]);
    assert_eq!((code, &serde_json::from_str::<Value>(&stdout).unwrap()["event"]), (0, &bad[1]));
    assert_eq!(cli(&["drop", ids[1]]).1, "1 dead letter dropped\n");
    // The upstream still refuses it: it becomes a dead letter again.
    assert_eq!(cli(&["retry", ids[0]]).1, "1 dead letter retried\n");
    eventually("the dead letter", async || {
        let seen = status(&server).await;
        seen["backlog"] == 0 && seen["dead_letters"] == 2
    })
    .await;
    assert_eq!(upstream.event_count(), 3);
    let (code, _, stderr) = cli(&["retry", ids[1]]);
    assert!(code == 3 && stderr.contains("is not a dead letter"), "{stderr}");
    assert_eq!(cli(&["retry"]).0, 2);
    assert_eq!(cli(&["list", "--destination", "other"]).0, 3);

    upstream.reply_with(|_, _| Reply::Accept);
    assert_eq!(cli(&["retry", "--all"]).1, "2 dead letters retried\n");
    eventually("both events", async || upstream.event_count() == 5).await;
    wait_until_drained(&server).await;
    let last: Vec<String> = upstream.events()[3..].iter().map(|event| event.text("event_id").to_owned()).collect();
    assert_eq!(last, [ids[0], ids[2]]);
    assert_eq!((status(&server).await["dead_letters"].clone(), cli(&["list"]).1), (json!(0), String::new()));
    server.stop().await.unwrap();
    let server = start(&data, &upstream).await;
    // The relay may still be loading its state.
    eventually("the counters from before the restart", async || {
        let seen = status(&server).await;
        (&seen["sent"], &seen["backlog"]) == (&json!(5), &json!(0))
    })
    .await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_session_is_refused_becomes_a_dead_letter_and_is_not_sent_before_the_session() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.reply_with(|path, _| if path == EVENT { Reply::Accept } else { Reply::Status(422, None) });
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a", "action_input": "1"})).await;
    server.store(&json!({"agent_id": "a", "action_input": "2"})).await;
    wait_until_drained(&server).await;
    assert_eq!((status(&server).await["dead_letters"].clone(), upstream.accepted().len()), (json!(2), 0));
    let letters = server.get("/v1/relay/agnost/dead-letters").await.json();
    assert_eq!((&letters[0]["refused"], &letters[0]["status"]), (&json!("session"), &json!(422)));
    upstream.reply_with(|_, _| Reply::Accept);
    let retried = server.post("/v1/relay/agnost/dead-letters/retry", "").send().await.unwrap();
    assert_eq!(retried.text().await.unwrap(), r#"{"left":0,"retried":2}"#);
    wait_until_drained(&server).await;
    let accepted: Vec<String> = upstream.accepted().iter().map(|request| request.body["args"].to_string()).collect();
    assert_eq!(accepted, ["null", "\"1\"", "\"2\""]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_upstream_refuses_the_organization_the_log_names_the_key_to_change_once() {
    for status_code in [401, 403] {
        let (data, upstream) =
            (TempDir::new().unwrap(), Upstream::start_with(move |_, _| Reply::Status(status_code, None)).await);
        let url = upstream.url();
        let environment = [
            ("CAIRN_RELAY__AGNOST__ORG_ID", ORG),
            ("CAIRN_RELAY__AGNOST__ENDPOINT", &url),
            ("CAIRN_RELAY__AGNOST__RETRY__INITIAL", "10ms"),
            ("CAIRN_RELAY__AGNOST__RETRY__MAX", "20ms"),
        ];
        let server = Process::start(data.path(), &environment);
        let client = reqwest::Client::new();
        let event = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
        assert_eq!(event.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
        eventually("several tries", async || upstream.state.bodies.lock().unwrap().len() > 7).await;
        let log = server.log();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> =
            lines.filter(|line| line["message"].as_str().unwrap().contains("correct relay.agnost.org_id")).collect();
        assert_eq!(lines.len(), 1, "logged once, not for every retry: {log}");
        assert!(lines[0]["error"].as_str().unwrap().contains("injected failure for [REDACTED]"), "{lines:?}");
        assert!(!log.contains(ORG), "the organization id may be a secret: {log}");
        upstream.reply_with(|_, _| Reply::Accept);
        eventually("the event", async || upstream.event_count() == 1).await;
    }
}
