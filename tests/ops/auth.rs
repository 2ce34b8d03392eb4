//! Authentication and rate limits: API keys and their scopes, key files, and the event rate of each client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cairn::auth::{AuthConfig, Keys};
use serde_json::json;
use tempfile::TempDir;

use crate::support::harness::{Answer, TestServer, config, eventually, metric};

/// Sends a request with an event as its body, and a key if there is one.
async fn call(server: &TestServer, key: Option<&str>, method: &str, path: &str) -> Answer {
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let request = server.client.request(method, format!("{}{path}", server.url));
    let request = request.header("content-type", "application/json").body(json!({"agent_id": "a"}).to_string());
    let request =
        key.into_iter().fold(request, |request, key| request.header("authorization", format!("Bearer {key}")));
    Answer::of(request.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_every_call_needs_one_and_no_answer_or_metric_contains_a_key() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("keys");
    std::fs::write(&file, "from-the-file\n").unwrap();
    let mut config = config(&data.path().join("ledger"));
    config.auth.api_keys = vec!["from-the-config".to_owned()];
    config.auth.api_keys_file = Some(file);
    let server = TestServer::start(&config).await;
    let call = async |key: Option<&str>, path: &str| {
        let url = format!("{}{}", server.url, path.trim_start_matches("POST "));
        let post = || {
            let body = json!({"agent_id": "a"}).to_string();
            server.client.post(&url).header("content-type", "application/json").body(body)
        };
        let request = if path.starts_with("POST") { post() } else { server.client.get(&url) };
        let request = key.into_iter().fold(request, |request, key| request.header("authorization", key));
        Answer::of(request.send().await.unwrap()).await
    };
    let posts = ["POST /v1/events", "POST /v1/batch", "POST /v1/events?wait=checkpoint", "POST /nowhere"];
    for path in ["/v1/stats", "/v1/events", "/nowhere"].into_iter().chain(posts) {
        for key in [None, Some("Bearer wrong"), Some("Basic from-the-config"), Some("Bearer ")] {
            let answer = call(key, path).await;
            assert_eq!((answer.status.as_u16(), answer.headers["www-authenticate"].as_bytes()), (401, &b"Bearer"[..]));
            assert!(!answer.text.contains("from-the"), "{}", answer.text);
        }
    }
    assert_eq!(call(Some("Bearer from-the-config"), "/v1/stats").await.status, 200);
    assert_eq!(call(Some("bearer from-the-file"), "/v1/stats").await.status, 200);
    assert_eq!(call(Some("Bearer from-the-file"), "POST /v1/events").await.status, 201);
    assert!(!server.metrics().await.contains("from-the"));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_permits_exactly_the_calls_of_its_scopes() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.auth.api_keys = ["ingester ingest", "reader read", "both"].map(str::to_owned).into();
    let server = TestServer::start(&config).await;
    // Calls with the status that they are answered with if the key permits them.
    let ingest_calls = [
        ("POST", "/v1/events", 201),
        ("POST", "/v1/events?wait=checkpoint", 201),
        ("POST", "/v1/batch", 400),
        ("POST", "/api/v1/capture-event", 200),
        ("POST", "/api/v1/capture-session", 200),
        ("POST", "/v1/traces", 200),
        ("POST", "/v1/logs", 200),
    ];
    let read_calls = [
        ("GET", "/v1/events", 200),
        ("GET", "/v1/agents", 200),
        ("GET", "/v1/stats", 200),
        ("GET", "/v1/verify?agent_id=a", 200),
        ("GET", "/v1/relay", 200),
        ("GET", "/v1/relay/agnost/dead-letters", 404),
        ("GET", "/v1/merkle/root", 200),
        ("GET", "/v1/export?agent_id=a", 200),
        ("GET", "/log/checkpoint", 200),
    ];
    let repair_calls =
        [("POST", "/v1/relay/agnost/dead-letters/retry", 404), ("DELETE", "/v1/relay/agnost/dead-letters", 404)];
    let others = [
        ("GET", "/nowhere", [404, 404, 404]),
        ("POST", "/v1/stats", [405, 405, 405]),
        ("PUT", "/v1/events", [405, 405, 405]),
    ];
    for (calls, by_ingest_key, by_read_key) in
        [(&ingest_calls[..], true, false), (&read_calls, false, true), (&repair_calls, false, false)]
    {
        for (method, path, status) in calls {
            for (key, is_permitted) in [("ingester", by_ingest_key), ("reader", by_read_key), ("both", true)] {
                let answer = call(&server, Some(key), method, path).await;
                let expected = if is_permitted { *status } else { 403 };
                assert_eq!(answer.status, expected, "{key} {method} {path}: {}", answer.text);
                let is_explained = answer.text.contains("this key permits") && !answer.text.contains(key);
                assert!(is_permitted || is_explained, "{}", answer.text);
            }
            assert_eq!(call(&server, None, method, path).await.status, 401, "{method} {path}");
        }
    }
    for (method, path, statuses) in others {
        for (key, status) in ["ingester", "reader", "both"].into_iter().zip(statuses) {
            assert_eq!(call(&server, Some(key), method, path).await.status, status, "{key} {method} {path}");
        }
        assert_eq!(call(&server, None, method, path).await.status, 401, "{method} {path}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_file_is_reloaded_and_an_invalid_one_changes_nothing() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("keys");
    std::fs::write(&file, "one\n").unwrap();
    let mut config = config(&data.path().join("ledger"));
    config.auth.api_keys_file = Some(file.clone());
    let server = TestServer::start(&config).await;
    let status = async |key| call(&server, Some(key), "GET", "/v1/stats").await.status.as_u16();
    assert_eq!((status("one").await, status("two").await), (200, 401));
    std::fs::write(&file, "two read\n").unwrap();
    eventually("the new key", async || status("two").await == 200).await;
    assert_eq!(status("one").await, 401);
    std::fs::write(&file, "two write\n").unwrap();
    server.reload_changed_files();
    assert_eq!((status("two").await, status("write").await), (200, 401));
    std::fs::write(&file, "").unwrap();
    eventually("the removal of the key", async || status("two").await == 401).await;
    server.stop().await.unwrap();
}

#[test]
fn the_time_of_a_key_lookup_does_not_depend_on_the_key() {
    const KEYS: usize = 20_000;
    let api_keys = (0..KEYS).map(|number| format!("key-{number}")).collect();
    let keys = Keys::load(&AuthConfig { api_keys, ..AuthConfig::default() }).unwrap().unwrap();
    let looked_up = ["key-0".to_owned(), format!("key-{}", KEYS - 1), "nobody".to_owned()];
    let mut shortest_lookups = BTreeMap::new();
    // The shortest of many lookups: other load on the machine only makes a lookup longer.
    for _ in 0..50 {
        for key in &looked_up {
            let started = Instant::now();
            std::hint::black_box(keys.find(std::hint::black_box(key)));
            let took = started.elapsed();
            shortest_lookups.entry(key).and_modify(|it: &mut Duration| *it = took.min(*it)).or_insert(took);
        }
    }
    let (shortest, longest) = (shortest_lookups.values().min().unwrap(), shortest_lookups.values().max().unwrap());
    assert!(*longest < *shortest * 2, "{shortest_lookups:?}");
    // The comparison of the hashes has to be constant-time, too, which cannot be measured here.
    let source = std::fs::read_to_string(crate::support::harness::repository("src/auth/keys.rs")).unwrap();
    let find = source.split("pub fn find").nth(1).unwrap().split("\n    }\n").next().unwrap();
    assert!(find.contains(".ct_eq(") && !find.contains("=="), "{find}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_loopback_addresses_are_one_client() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.events_per_second = Some(1.try_into().unwrap());
    let server = TestServer::start(&config).await;
    let mut statuses = Vec::new();
    for last in 1..10 {
        let address = std::net::Ipv4Addr::new(127, 0, 0, last);
        let client = reqwest::Client::builder().local_address(std::net::IpAddr::from(address)).build().unwrap();
        let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
        statuses.push(request.body(json!({"agent_id": "a"}).to_string()).send().await.unwrap().status().as_u16());
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_may_send_its_rate_of_events_and_a_refusal_contains_retry_after() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.auth.api_keys = vec!["one".to_owned(), "two".to_owned()];
    config.limits.events_per_second = Some(5.try_into().unwrap());
    let server = TestServer::start(&config).await;
    let post = async |key: &str| call(&server, Some(key), "POST", "/v1/events").await;
    let mut accepted = 0;
    let refused = loop {
        let answer = post("one").await;
        if answer.status != 201 {
            break answer;
        }
        accepted += 1;
        assert!(accepted < 50, "no event is refused");
    };
    assert!(accepted >= 5, "the events of one second may arrive at once: {accepted}");
    assert_eq!((refused.status.as_u16(), refused.headers["retry-after"].as_bytes()), (429, &b"1"[..]));
    assert!(refused.error().contains("limits.events_per_second"), "{}", refused.text);
    assert_eq!(post("two").await.status, 201, "another client is not affected");
    // A batch is admitted as a whole; the next one has to wait for its events.
    let events: Vec<_> = (0..100).map(|_| json!({"agent_id": "a"})).collect();
    let batch = async || {
        let request = server.post("/v1/batch", json!(events).to_string()).header("authorization", "Bearer two");
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(batch().await.status, 201);
    let refused = batch().await;
    let wait: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(refused.status == 429 && (15..=20).contains(&wait), "{wait}");
    // An export of one span counts as one event.
    let data = TempDir::new().unwrap();
    let mut other = crate::support::harness::config(data.path());
    other.limits.events_per_second = Some(20.try_into().unwrap());
    let spans = TestServer::start(&other).await;
    let span = json!({"traceId": "01".repeat(16), "spanId": "02".repeat(8), "name": "s"});
    let body = json!({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]});
    for _ in 0..20 {
        assert_eq!(spans.send("/v1/traces", &body).await.status, 200);
    }
    spans.stop().await.unwrap();
    // The limit applies to every call that stores events.
    for path in ["/v1/traces", "/v1/logs", "/api/v1/capture-event", "/api/v1/capture-session", "/v1/batch"] {
        let answer = call(&server, Some("two"), "POST", path).await;
        assert!(answer.status == 429 && answer.headers.contains_key("retry-after"), "{path}: {}", answer.text);
    }
    // Reads are not limited.
    assert_eq!(call(&server, Some("two"), "GET", "/v1/stats").await.status, 200);
    let metrics = server.metrics().await;
    let refused = metric(&metrics, r#"cairn_ingest_refused_events_total{reason="rate_limited"}"#);
    assert!(refused.is_some_and(|count| count >= 7.0), "{refused:?}");
    server.stop().await.unwrap();
}
