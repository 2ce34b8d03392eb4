//! HTTP connections: time-outs, pipelining, HTTP/2, methods, content types, the memory limit, malformed requests, and
//! the admin port.

use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::harness::{Answer, TestServer, config, eventually, metric};

async fn connect(server: &TestServer) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap()
}

/// Reads until the server closes the connection; returns the text and the elapsed time.
async fn read_to_end(stream: &mut TcpStream) -> (String, Duration) {
    let started = Instant::now();
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut bytes)).await;
    // A reset ends the connection, too.
    let _ = read.expect("the server should close the connection");
    (String::from_utf8_lossy(&bytes).into_owned(), started.elapsed())
}

const POST: &str = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_slow_bodies_and_idle_connections_are_closed_after_their_time_outs() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.header_timeout = Duration::from_millis(300);
    config.limits.body_timeout = Duration::from_millis(600);
    config.limits.idle_timeout = Duration::from_millis(1500);
    let server = TestServer::start(&config).await;

    let mut slow_head = connect(&server).await;
    slow_head.write_all(b"POST /v1/ev").await.unwrap();
    let (response, took) = read_to_end(&mut slow_head).await;
    assert_eq!(response, "");
    assert!(took > Duration::from_millis(250) && took < Duration::from_millis(1200), "{took:?}");

    let mut slow_body = connect(&server).await;
    slow_body.write_all(format!("{POST}content-length: 100\r\n\r\n{{").as_bytes()).await.unwrap();
    let (response, took) = read_to_end(&mut slow_body).await;
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
    assert!(response.contains("limits.body_timeout"), "{response}");
    assert!(took > Duration::from_millis(500), "{took:?}");

    let mut idle = connect(&server).await;
    let request = format!("{POST}content-length: 16\r\n\r\n{{\"agent_id\":\"a\"}}");
    idle.write_all(request.as_bytes()).await.unwrap();
    // The pause is the subject: the connection is idle for longer than `header_timeout`, and is still served.
    tokio::time::sleep(Duration::from_millis(900)).await;
    idle.write_all(request.as_bytes()).await.unwrap();
    let (response, took) = read_to_end(&mut idle).await;
    assert_eq!(response.matches("HTTP/1.1 201").count(), 2, "{response}");
    assert!(took > Duration::from_millis(1200), "{took:?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_answer_is_disconnected_and_its_memory_released() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.header_timeout = Duration::from_millis(200);
    config.limits.body_timeout = Duration::from_millis(500);
    config.limits.response_bytes = bytesize::ByteSize::mib(64);
    let server = TestServer::start(&config).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        let stored = server.store(&json!({"agent_id": "a", "action_input": "x".repeat(1_000_000)})).await;
        ids.push(stored["id"].as_str().unwrap().to_owned());
    }
    // HTTP/1: requests 12 MB several times and reads nothing.
    let mut not_reading = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&server).await;
        stream.write_all("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(8).as_bytes()).await.unwrap();
        not_reading.push(stream);
    }
    // HTTP/2: streamed and buffered answers, with flow-control windows that are never extended.
    let client = reqwest::Client::builder().http2_prior_knowledge().http2_initial_stream_window_size(1000).build();
    let client = client.unwrap();
    let asks = ids.iter().flat_map(|id| ["/v1/events".to_owned(), format!("/v1/events/{id}")]);
    let asks = asks.map(|path| client.get(format!("{}{path}", server.url)).send());
    let answers: Vec<_> = futures_util::future::join_all(asks).await.into_iter().map(Result::unwrap).collect();
    let inflight = async || metric(&server.metrics().await, "cairn_response_bytes").unwrap();
    assert!(inflight().await > 1e6, "answers count until they are sent");
    crate::support::harness::eventually("all memory released", async || inflight().await == 0.0).await;
    for answer in answers {
        assert!(answer.bytes().await.is_err(), "the connection was closed");
    }
    drop(not_reading);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_refused_while_it_sends_sees_the_answer_and_keeps_its_connection() {
    let data = TempDir::new().unwrap();
    let mut full = config(data.path());
    full.storage.max_bytes = bytesize::ByteSize::b(1);
    let server = TestServer::start(&full).await;
    // The size is measured every second.
    eventually("a full ledger", async || server.send("/v1/events", &json!({"agent_id": "a"})).await.status == 503)
        .await;
    let mut connection = connect(&server).await;
    let body = vec![b' '; 300_000];
    for (content_type, status) in [("application/json", "503 "), ("text/plain", "415 ")].repeat(2) {
        let head = format!(
            "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        // The head alone decides. Many clients send the body with a second call.
        tokio::time::sleep(Duration::from_millis(100)).await;
        connection.write_all(&body).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_and_chunked_requests_are_answered_in_order() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.body_bytes = bytesize::ByteSize::kib(4);
    config.limits.event_bytes = bytesize::ByteSize::kib(4);
    let server = TestServer::start(&config).await;
    let mut stream = connect(&server).await;
    let mut requests = String::new();
    for agent in ["a", "b", "c"] {
        requests += &format!("{POST}content-length: 16\r\n\r\n{{\"agent_id\":\"{agent}\"}}");
    }
    requests += &format!("{POST}transfer-encoding: chunked\r\n\r\n5\r\n{{\"age\r\nb\r\nnt_id\":\"d\"}}\r\n0\r\n\r\n");
    requests += "GET /v1/stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(requests.as_bytes()).await.unwrap();
    let (response, _) = read_to_end(&mut stream).await;
    let positions: Vec<_> = ["a", "b", "c", "d"]
        .iter()
        .map(|agent| response.find(&format!("\"agent_id\":\"{agent}\"")).expect(&response))
        .collect();
    assert!(positions.is_sorted(), "{response}");
    assert!(response.ends_with("\"total_events\":4}"), "{response}");

    // Too large, without a `Content-Length`.
    let mut stream = connect(&server).await;
    let chunk = format!("800\r\n{}\r\n", " ".repeat(0x800));
    stream
        .write_all(format!("{POST}transfer-encoding: chunked\r\n\r\n{chunk}{chunk}{chunk}0\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_does_not_wait_for_the_next_request_and_malformed_requests_are_answered() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let event = format!("{POST}content-length: 16\r\n\r\n{{\"agent_id\":\"a\"}}");
    let cases = [
        // RFC 9112, section 2.2: an empty line before a request is ignored.
        (format!("{event}\r\n"), "HTTP/1.1 201"),
        (format!("{event}POST /v1/ev"), "HTTP/1.1 201"),
        ("GARBAGE\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "HTTP/1.1 400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000)), "HTTP/1.1 4"),
        (format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "a".repeat(70_000)), "HTTP/1.1 431"),
    ];
    for (request, expected) in cases {
        let mut stream = connect(&server).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(2), stream.read_exact(&mut head)).await;
        let shown = &request[request.len().saturating_sub(40)..];
        read.unwrap_or_else(|_| panic!("no answer: {shown}")).unwrap_or_else(|error| panic!("{error}: {shown}"));
        assert!(String::from_utf8_lossy(&head).starts_with(expected), "{} to {shown}", String::from_utf8_lossy(&head));
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openapi_json_describes_every_documented_call() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let answer = server.get("/openapi.json").await;
    let (status, described) = (answer.status.as_u16(), answer.json());
    assert_eq!((status, described["info"]["version"].as_str()), (200, Some(env!("CARGO_PKG_VERSION"))));
    // Every call of the documents is in it.
    let reference = std::fs::read_to_string(crate::support::harness::repository("docs/http-api.md")).unwrap();
    let calls = reference.lines().filter(|line| line.starts_with("| `GET ") || line.starts_with("| `POST "));
    let mut seen = 0;
    for call in calls.flat_map(|line| line.split('`').nth(1)) {
        let path = call.split_once(' ').unwrap().1.split('?').next().unwrap();
        // `/log/tile/...` and `/log/tile/<L>/<N>` stand for every path below.
        let path = path.split(['<', '.']).next().unwrap();
        let paths = described["paths"].as_object().unwrap();
        assert!(paths.keys().any(|known| known.starts_with(path)), "{call}");
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_works() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let sends = (0..50).map(|n| {
        let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
        request.body(json!({"agent_id": "a", "action_input": n}).to_string()).send()
    });
    for response in futures_util::future::join_all(sends).await {
        let response = response.unwrap();
        assert_eq!((response.version(), response.status().as_u16()), (reqwest::Version::HTTP_2, 201));
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_paths_methods_parameters_and_content_types_are_refused() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let send = async |method: &str, path: &str| {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        Answer::of(server.client.request(method, format!("{}{path}", server.url)).send().await.unwrap()).await
    };
    let message = "there is no such path: did you mean /v1/events?; /openapi.json describes all";
    assert_eq!(send("GET", "/v2/events").await.error(), message);
    let answer = send("DELETE", "/v1/events").await;
    assert_eq!(answer.status, 405);
    let allowed = answer.headers["allow"].to_str().unwrap().to_owned();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    for (method, path) in
        [("GET", "/v1/batch"), ("PATCH", "/v1/stats"), ("TRACE", "/v1/events"), ("PUT", "/openapi.json")]
    {
        let answer = send(method, path).await;
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.headers.contains_key("allow") && answer.error().contains("this method"), "{}", answer.text);
    }
    // Invalid text in a path and unknown parameters are not ignored.
    for (method, path) in [
        ("GET", "/v1/events/%FF"),
        ("GET", "/v1/relay/%FF/dead-letters"),
        ("GET", "/v1/relay/a/dead-letters/%FF"),
        ("GET", "/log/tile/%FF"),
        ("GET", "/v1/events/0198c6b2-7d0e-4cc5-a4ef-000000000000?x=1"),
        ("GET", "/v1/events?limit=%2B5"),
        ("GET", "/v1/agents?limit=%2B5"),
        ("DELETE", "/v1/relay/agnost/dead-letters?limit=1"),
        ("POST", "/v1/relay/agnost/dead-letters/retry?limit=1"),
    ] {
        let answer = send(method, path).await;
        assert_eq!((answer.status.as_u16(), answer.error().is_empty()), (400, false), "{method} {path}");
    }

    for (content_type, status) in [
        (None, 415),
        (Some("text/plain"), 415),
        (Some("application/x-www-form-urlencoded"), 415),
        (Some("application/json; charset=utf-8"), 201),
        (Some("Application/JSON"), 201),
    ] {
        let mut request = server.client.post(format!("{}/v1/events", server.url)).body(r#"{"agent_id":"a"}"#);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let answer = Answer::of(request.send().await.unwrap()).await;
        assert_eq!(answer.status, status, "{content_type:?}: {}", answer.text);
        assert_eq!(answer.headers["content-type"], "application/json");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_memory_limit_are_refused_until_memory_is_released() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.body_bytes = bytesize::ByteSize::mib(1);
    config.limits.inflight_bytes = bytesize::ByteSize::mib(1);
    config.queue.max_wait = Duration::from_millis(100);
    let server = TestServer::start(&config).await;
    let large = json!({"agent_id": "a", "action_input": "x".repeat(200_000)});
    // One client holds most of the memory with a body that does not end.
    let mut holder = connect(&server).await;
    holder.write_all(format!("{POST}content-length: 1000000\r\n\r\n").as_bytes()).await.unwrap();
    holder.write_all(&vec![b' '; 900_000]).await.unwrap();
    crate::support::harness::eventually("the memory of the unfinished body", async || {
        metric(&server.metrics().await, "cairn_inflight_bytes").is_some_and(|bytes| bytes > 800_000.0)
    })
    .await;
    let answer = server.send("/v1/events", &large).await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("limits.inflight_bytes"), "{}", answer.error());
    server.store(&json!({"agent_id": "a"})).await;
    drop(holder);
    crate::support::harness::eventually("the release of its memory", async || {
        server.send("/v1/events", &large).await.status == 201
    })
    .await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_serves_health_readiness_and_every_metric_with_its_help() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a"})).await;
    server.send("/v1/events", &json!({})).await;
    for probe in ["/healthz", "/readyz"] {
        let response = server.client.get(format!("{}{probe}", server.admin_url)).send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    let text = server.metrics().await;
    let expected = [
        ("cairn_ingest_requests_total{route=\"/v1/events\",code=\"201\"}", 1.0),
        ("cairn_ingest_requests_total{route=\"/v1/events\",code=\"400\"}", 1.0),
        ("cairn_ingest_accepted_events_total", 1.0),
        ("cairn_ingest_refused_events_total{reason=\"invalid\"}", 1.0),
        ("cairn_ingest_bytes_total", 18.0),
        ("cairn_commits_total{outcome=\"ok\"}", 1.0),
        ("cairn_queue_capacity_events{shard=\"0\"}", 10_000.0),
        ("cairn_agents", 1.0),
        ("cairn_ready", 1.0),
        ("cairn_commit_events_bucket{le=\"1\"}", 1.0),
        ("cairn_ingest_request_duration_seconds_count{route=\"/v1/events\"}", 2.0),
        ("cairn_queue_wait_seconds_count", 1.0),
    ];
    for (name, value) in expected {
        assert_eq!(metric(&text, name), Some(value), "{name} in\n{text}");
    }
    for name in
        ["queue_events", "queue_bytes", "store_bytes", "store_limit_bytes", "disk_free_bytes", "consumer_lag_events"]
    {
        assert!(text.contains(&format!("\ncairn_{name}")), "{name} is missing");
    }
    assert!(metric(&text, "process_resident_memory_bytes").unwrap() > 1e6);
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} has no help text");
    }
    server.stop().await.unwrap();
}
