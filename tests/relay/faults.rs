//! The relay when the upstream fails: what is tried again and when, what is a dead letter, and who is held up.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cairn::relay::DestinationConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::relay::delivery::{destination, drained, start, start_with, status};
use crate::support::harness::{Process, Running, eventually, run_text};
use crate::support::upstream::{EVENT, Fate, ORG, Upstream};

/// Whether a request is about the event with this input.
fn is_event(path: &str, body: &Value, args: &str) -> bool {
    path == EVENT && body["args"] == args
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_may_pass_is_tried_again_until_it_does() {
    let fates = [
        Fate::Status(500, None),
        Fate::Status(503, Some("0".to_owned())),
        Fate::Status(599, None),
        Fate::Status(408, None),
        Fate::Status(429, Some("0".to_owned())),
        Fate::Status(401, None),
        Fate::Status(403, None),
        Fate::Status(302, None),
        Fate::Hang,
        Fate::Reset,
        Fate::LoseAnswer,
    ];
    for fate in fates {
        let data = TempDir::new().unwrap();
        let mut left = 3;
        let ordered = fate.clone();
        let upstream = Upstream::start_with(move |_, _| match left {
            0 => Fate::Take,
            _ => {
                left -= 1;
                ordered.clone()
            }
        })
        .await;
        let config = DestinationConfig { timeout: Duration::from_millis(150), ..destination(&upstream) };
        let server = start_with(&data, config).await;
        let stored = server.store(&json!({"agent_id": "a"})).await;
        drained(&server).await;
        let events = upstream.events();
        assert!(!events.is_empty() && events.iter().all(|event| event.body["event_id"] == stored["id"]), "{fate:?}");
        assert_eq!(status(&server).await["dead_letters"], 0, "{fate:?}");
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
                return Fate::Take;
            }
            let mut times = seen.lock().unwrap();
            times.push(Instant::now());
            if times.len() > 1 {
                return Fate::Take;
            }
            // A date has whole seconds: the third one from now is at least two away.
            let date = httpdate::fmt_http_date(std::time::SystemTime::now() + Duration::from_secs(3));
            Fate::Status(429, Some(if is_date { date } else { "2".to_owned() }))
        })
        .await;
        let server = start(&data, &upstream).await;
        server.store(&json!({"agent_id": "a"})).await;
        drained(&server).await;
        let times = times.lock().unwrap().clone();
        let waited = times[1] - times[0];
        assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&waited), "{waited:?}");
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_stuck_holds_up_only_itself_however_much_it_says() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let bad = |path: &str, body: &Value| is_event(path, body, "bad");
    upstream.decide(move |path, body| if bad(path, body) { Fate::Status(500, None) } else { Fate::Take });
    let mut server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a", "session_id": "stuck", "action_input": "bad"})).await;
    // Far more than is kept in memory of a session, before and between those of the others.
    let mut expected = 0;
    for round in 0..4 {
        let stuck =
            (0..300).map(|n| json!({"agent_id": "a", "session_id": "stuck", "action_input": format!("{round}-{n}")}));
        let others =
            (0..300).map(|n| json!({"agent_id": "a", "session_id": format!("s{}", n % 20), "action_input": "other"}));
        let batch: Vec<Value> = stuck.zip(others).flat_map(|(stuck, other)| [stuck, other]).collect();
        assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
        expected += 300;
        eventually("the others", async || upstream.event_count() == expected).await;
        assert!(upstream.events().iter().all(|event| event.body["args"] == "other"));
        assert_eq!(status(&server).await["backlog"], 1 + 300 * (round + 1));
        // What waits on disk is there after a restart, too.
        server.stop().await.unwrap();
        server = start(&data, &upstream).await;
    }
    upstream.decide(|_, _| Fate::Take);
    drained(&server).await;
    let args = upstream.events()[expected..].iter().map(|event| event.text("args").to_owned()).collect::<Vec<_>>();
    let all = (0..4).flat_map(|round| (0..300).map(move |n| format!("{round}-{n}")));
    assert_eq!(args, ["bad".to_owned()].into_iter().chain(all).collect::<Vec<_>>());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_upstream_is_away_one_request_at_a_time_is_tried() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|_, _| Fate::Status(500, None));
    let server = start(&data, &upstream).await;
    let batch: Vec<Value> = (0..200).map(|n| json!({"agent_id": format!("a{n}")})).collect();
    server.send("/v1/batch", &batch.into()).await;
    eventually("an open circuit", async || status(&server).await["circuit"] == "open").await;
    eventually("the last of those before it", async || status(&server).await["in_flight"].as_u64() <= Some(1)).await;
    upstream.memory.most_in_flight.store(0, Ordering::SeqCst);
    let before = upstream.memory.seen.lock().unwrap().len();
    eventually("probes", async || upstream.memory.seen.lock().unwrap().len() >= before + 10).await;
    assert_eq!(upstream.memory.most_in_flight.load(Ordering::SeqCst), 1);
    assert_eq!(status(&server).await["circuit"], "open");
    upstream.decide(|_, _| Fate::Take);
    drained(&server).await;
    assert_eq!(upstream.event_count(), 200);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_will_never_take_is_a_dead_letter_and_can_be_sent_again() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|path, body| if is_event(path, body, "bad") { Fate::Status(400, None) } else { Fate::Take });
    let server = start(&data, &upstream).await;
    let mut bad = Vec::new();
    for n in 0..3 {
        bad.push(server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": "bad"})).await);
        server.store(&json!({"agent_id": "a", "session_id": "s", "action_input": n})).await;
    }
    drained(&server).await;
    assert_eq!(upstream.event_count(), 3);
    assert_eq!(status(&server).await["dead_letters"], 3);
    let letters = server.get("/v1/relay/agnost/dead-letters").await.json();
    assert_eq!(
        (letters.as_array().unwrap().len(), &letters[0]["status"], &letters[0]["refused"]),
        (3, &json!(400), &json!("event"))
    );
    assert!(letters[0]["answer"].as_str().unwrap().contains("to order, [REDACTED]"));
    let page = server.get("/v1/relay/agnost/dead-letters?limit=2").await;
    let next = crate::support::harness::next_page(&page.headers).unwrap();
    assert_eq!((page.json().as_array().unwrap().len(), server.get(&next).await.json()), (2, json!([letters[2]])));
    let ids: Vec<&str> = bad.iter().map(|event| event["id"].as_str().unwrap()).collect();

    let cli = |arguments: &[&str]| run_text(&[&["dead-letter"], arguments, &["--server", &server.url]].concat());
    let (code, said, _) = cli(&["list"]);
    assert!(code == 0 && said.lines().count() == 3 && ids.iter().all(|id| said.contains(id)), "{said}");
    let (code, said, _) = cli(&["show", ids[1]]);
    assert_eq!((code, &serde_json::from_str::<Value>(&said).unwrap()["event"]), (0, &bad[1]));
    assert_eq!(cli(&["drop", ids[1]]).1, "1 dead letter dropped\n");
    // Not mended yet: it comes back.
    assert_eq!(cli(&["retry", ids[0]]).1, "1 dead letter retried\n");
    eventually("it came back", async || {
        let seen = status(&server).await;
        seen["backlog"] == 0 && seen["dead_letters"] == 2
    })
    .await;
    assert_eq!(upstream.event_count(), 3);
    let (code, _, said) = cli(&["retry", ids[1]]);
    assert!(code == 3 && said.contains("is no dead letter"), "{said}");
    assert_eq!(cli(&["retry"]).0, 2);
    assert_eq!(cli(&["list", "--destination", "other"]).0, 3);

    upstream.decide(|_, _| Fate::Take);
    assert_eq!(cli(&["retry", "--all"]).1, "2 dead letters retried\n");
    eventually("both", async || upstream.event_count() == 5).await;
    drained(&server).await;
    let last: Vec<String> = upstream.events()[3..].iter().map(|event| event.text("event_id").to_owned()).collect();
    assert_eq!(last, [ids[0], ids[2]]);
    assert_eq!((status(&server).await["dead_letters"].clone(), cli(&["list"]).1), (json!(0), String::new()));
    server.stop().await.unwrap();
    let server = start(&data, &upstream).await;
    // The relay may still be reading what it knows.
    eventually("what it was before", async || {
        let seen = status(&server).await;
        (&seen["sent"], &seen["backlog"]) == (&json!(5), &json!(0))
    })
    .await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_session_is_refused_is_a_dead_letter_too_and_never_goes_before_it() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|path, _| if path == EVENT { Fate::Take } else { Fate::Status(422, None) });
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "a", "action_input": "1"})).await;
    server.store(&json!({"agent_id": "a", "action_input": "2"})).await;
    drained(&server).await;
    assert_eq!((status(&server).await["dead_letters"].clone(), upstream.taken().len()), (json!(2), 0));
    let letters = server.get("/v1/relay/agnost/dead-letters").await.json();
    assert_eq!((&letters[0]["refused"], &letters[0]["status"]), (&json!("session"), &json!(422)));
    upstream.decide(|_, _| Fate::Take);
    let retried = server.post("/v1/relay/agnost/dead-letters/retry", "").send().await.unwrap();
    assert_eq!(retried.text().await.unwrap(), r#"{"left":0,"retried":2}"#);
    drained(&server).await;
    let taken: Vec<String> = upstream.taken().iter().map(|taken| taken.body["args"].to_string()).collect();
    assert_eq!(taken, ["null", "\"1\"", "\"2\""]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_does_not_know_us_is_for_the_operator_who_learns_the_key() {
    for status_code in [401, 403] {
        let (data, upstream) =
            (TempDir::new().unwrap(), Upstream::start_with(move |_, _| Fate::Status(status_code, None)).await);
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
        eventually("several tries", async || upstream.memory.seen.lock().unwrap().len() > 7).await;
        let said = server.said();
        let lines = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> =
            lines.filter(|line| line["message"].as_str().unwrap().contains("change relay.agnost.org_id")).collect();
        assert_eq!(lines.len(), 1, "once, not every time: {said}");
        assert!(lines[0]["error"].as_str().unwrap().contains("to order, [REDACTED]"), "{lines:?}");
        assert!(!said.contains(ORG), "it may be a secret: {said}");
        upstream.decide(|_, _| Fate::Take);
        eventually("the event", async || upstream.event_count() == 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_lets_requests_end_within_its_grace_and_forgets_no_event() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|_, _| Fate::Hang);
    let mut config = crate::support::harness::config(data.path());
    config.relay.agnost = Some(destination(&upstream));
    config.shutdown.grace = Duration::from_millis(300);
    let server = Running::start(&config).await;
    server.store(&json!({"agent_id": "a"})).await;
    eventually("a request", async || status(&server).await["in_flight"] == 1).await;
    let started = Instant::now();
    server.stop().await.unwrap();
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    upstream.decide(|_, _| Fate::Take);
    let server = Running::start(&config).await;
    drained(&server).await;
    assert_eq!(upstream.event_count(), 1);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_sends_what_waits_while_the_upstream_takes_it() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|_, _| Fate::Late(Duration::from_millis(10)));
    let server = start(&data, &upstream).await;
    // One session: one request after the other.
    let events: Vec<_> =
        (0..100).map(|number| json!({"agent_id": "a", "session_id": "s", "action_input": number})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    assert!(upstream.event_count() < 100, "they should wait");
    server.stop().await.unwrap();
    assert_eq!(upstream.event_count(), 100, "the disk may go with the process");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_does_not_wait_for_an_upstream_that_is_away() {
    for fate in [Fate::Status(503, None), Fate::Reset] {
        let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
        upstream.decide(move |_, _| fate.clone());
        let server = start(&data, &upstream).await;
        server.store(&json!({"agent_id": "a"})).await;
        eventually("a failure", async || !status(&server).await["last_error"].is_null()).await;
        let started = Instant::now();
        server.stop().await.unwrap();
        let took = started.elapsed();
        assert!(took < Duration::from_secs(4), "{took:?}, of a grace of 20 s");
        upstream.decide(|_, _| Fate::Take);
        let server = start(&data, &upstream).await;
        drained(&server).await;
        assert_eq!(upstream.event_count(), 1);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_tries_once_more_what_waits_for_its_next_try() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    upstream.decide(|_, _| Fate::Status(503, None));
    // Waits that are longer than the time for the end.
    let mut config = destination(&upstream);
    (config.retry.initial, config.retry.max) = (Duration::from_secs(60), Duration::from_secs(60));
    let server = start_with(&data, config).await;
    let events: Vec<_> = (0..20).map(|number| json!({"agent_id": format!("agent-{number}")})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    eventually("an open circuit", async || status(&server).await["circuit"] == "open").await;
    upstream.decide(|_, _| Fate::Take);
    server.stop().await.unwrap();
    assert_eq!(upstream.event_count(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_or_a_session_that_is_stuck_does_not_end_a_shutdown_early() {
    let (data, upstream) = (TempDir::new().unwrap(), Upstream::start().await);
    let mut seen = 0;
    upstream.decide(move |path, body| {
        seen += usize::from(path == EVENT);
        match () {
            () if is_event(path, body, "stuck") => Fate::Status(429, Some("3600".to_owned())),
            () if seen == 30 => Fate::Status(429, Some("1".to_owned())),
            () => Fate::Late(Duration::from_millis(5)),
        }
    });
    let server = start(&data, &upstream).await;
    server.store(&json!({"agent_id": "stuck", "action_input": "stuck"})).await;
    eventually("a failure", async || !status(&server).await["last_error"].is_null()).await;
    let events: Vec<_> =
        (0..100).map(|number| json!({"agent_id": "a", "session_id": "s", "action_input": number})).collect();
    assert_eq!(server.send("/v1/batch", &Value::from(events)).await.status, 201);
    let started = Instant::now();
    server.stop().await.unwrap();
    assert_eq!(upstream.event_count(), 100);
    assert!(started.elapsed() < Duration::from_secs(10), "what has to wait for an hour is not waited for");
}
