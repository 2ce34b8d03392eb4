//! What every request meets first, and what every refusal leaves behind: hosts and origins, paths, encodings, answers that
//! clients see, counts and log lines.

use std::io::Write;
use std::time::Duration;

use reqwest::header::HOST;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ingest::otlp::{LOGS, TRACES, protobuf};
use crate::support::harness::{Answer, Process, TestServer, config, eventually, metric};
use crate::support::protobuf::{Message, export, span};

/// Sends bytes over a new connection, and returns everything that is answered until the connection is closed.
async fn raw(address: &str, sent: &[u8], closes_half: bool) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(sent).await.unwrap();
    if closes_half {
        stream.shutdown().await.unwrap();
    }
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("an answer, and the end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_can_neither_read_nor_write_through_a_loopback_address() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.http.allowed_hosts = vec!["cairn.internal".to_owned()];
    let server = TestServer::start(&config).await;
    let event = json!({"agent_id": "a"});
    let write = || server.post("/v1/events", event.to_string());
    for (host, origin, status) in [
        (None, None, 201),
        (Some("localhost"), None, 201),
        (Some("cairn.internal:80"), Some("http://cairn.internal"), 201),
        (Some("evil.example:7600"), None, 403),
        (Some("evil.example:7600"), Some("http://evil.example:7600"), 403),
        (None, Some("http://evil.example"), 403),
        (None, Some("http://localhost:3000"), 403),
        (None, Some("null"), 403),
    ] {
        for mut request in [write(), server.client.get(format!("{}/v1/events", server.url))] {
            if let Some(host) = host {
                request = request.header(HOST, host);
            }
            if let Some(origin) = origin {
                request = request.header("origin", origin);
            }
            let answer = Answer::of(request.send().await.unwrap()).await;
            let expected = if status == 201 { [201, 200] } else { [403, 403] };
            assert!(expected.contains(&answer.status.as_u16()), "{host:?} {origin:?}: {}", answer.text);
            assert!(status == 201 || answer.error().contains("http.allowed_hosts"), "{}", answer.text);
        }
    }
    assert_eq!(server.list("limit=10").await.len(), 3);
    server.stop().await.unwrap();
    // With keys, whoever has none is refused anyway.
    config.auth.api_keys = vec!["k3y".to_owned()];
    let server = TestServer::start(&config).await;
    let request = server.post("/v1/events", event.to_string()).header(HOST, "evil.example");
    assert_eq!(request.header("authorization", "Bearer k3y").send().await.unwrap().status(), 201);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_says_what_to_do_and_is_counted_and_logged() {
    let data = TempDir::new().unwrap();
    let server =
        Process::start(data.path(), &[("CAIRN_LIMITS__BODY_BYTES", "2MiB"), ("CAIRN_LIMITS__EVENT_BYTES", "1MiB")]);
    let client = reqwest::Client::new();
    let post = async |path: &str, content_type: &str, encoding: &str, body: Vec<u8>| {
        let request = client.post(format!("{}{path}", server.url)).header("content-type", content_type);
        Answer::of(request.header("content-encoding", encoding).body(body).send().await.unwrap()).await
    };
    for (path, suggested) in [
        ("/v1/trace", "/v1/traces"),
        ("/otlp/v1/traces", "/v1/traces"),
        ("/v1/event", "/v1/events"),
        ("/traces", "/v1/traces"),
        ("/v1/batches", "/v1/batch"),
    ] {
        let answer = post(path, "application/json", "identity", b"{}".to_vec()).await;
        assert_eq!(answer.status, 404);
        assert!(answer.error().contains(&format!("did you mean {suggested}?")), "{path}: {}", answer.text);
    }
    // Doubled slashes and one at the end are accepted.
    for path in ["/v1/events/", "//v1//events", "/v1/events//"] {
        let answer = post(path, "application/json", "identity", br#"{"agent_id":"a"}"#.to_vec()).await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.text);
    }
    assert_eq!(post("/v1/logs/", "application/json", "identity", b"{}".to_vec()).await.status, 200);
    // gRPC is named in the form of gRPC.
    let answer = post("/google.Echo/Echo", "application/grpc", "identity", vec![0; 5]).await;
    assert_eq!((answer.status.as_u16(), answer.headers["grpc-status"].to_str().unwrap()), (200, "12"));
    assert!(answer.headers["grpc-message"].to_str().unwrap().contains("grpc.health.v1"));
    // Encodings.
    let event = br#"{"agent_id":"deflated"}"#;
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(event).unwrap();
    let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    bare.write_all(event).unwrap();
    for body in [zlib.finish().unwrap(), bare.finish().unwrap()] {
        assert_eq!(post("/v1/events", "application/json", "deflate", body).await.status, 201);
    }
    let answer = post("/v1/events", "application/json", "br", event.to_vec()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.headers["accept-encoding"].to_str().unwrap()),
        (415, "gzip, zstd, deflate")
    );
    // Refused spans are counted each.
    let answer = post(
        TRACES,
        "application/json",
        "identity",
        br#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{},{}]}]}]}"#.to_vec(),
    )
    .await;
    assert_eq!(answer.json()["partialSuccess"]["rejectedSpans"], "3");
    let text = client.get(format!("{}/metrics", server.admin_url)).send().await.unwrap().text().await.unwrap();
    let counted = |labels: &str| metric(&text, &format!("cairn_http_responses_total{{{labels}}}"));
    assert_eq!(counted(r#"code="404",route="other""#), Some(6.0), "with gRPC: {text}");
    assert_eq!(counted(r#"code="415",route="/v1/events""#), Some(1.0));
    assert_eq!(metric(&text, r#"cairn_ingest_refused_events_total{reason="invalid"}"#), Some(4.0));
    eventually("the log lines", async || {
        let log = server.log();
        let has = |parts: [&str; 3]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        has(["request refused", "\"route\":\"other\"", "did you mean"])
            && has(["events refused", "\"route\":\"/v1/events\"", "expected gzip, zstd, deflate"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_reach_clients_that_close_their_half_send_too_much_or_name_no_host() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    let address = server.url.trim_start_matches("http://").to_owned();
    let event = "{\"agent_id\":\"a\"}";
    let head = format!("POST /v1/events HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n");
    let whole = format!("{head}content-length: {}\r\n\r\n{event}", event.len());
    let answer = raw(&address, whole.as_bytes(), true).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let closing = format!(
        "POST /v1/events HTTP/1.1\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{event}",
        event.len()
    );
    let answer = raw(&address, closing.as_bytes(), false).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("Host"), "{answer}");
    // A client that reads only once its whole body is sent, with and without a length in its head.
    let body = vec![b'x'; 21_500_000];
    let with_length = format!("{head}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    let chunked = format!("{head}connection: close\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len());
    for (head, end) in [(with_length, &b""[..]), (chunked, b"\r\n0\r\n\r\n")] {
        let answer = raw(&address, &[head.as_bytes(), &body, end].concat(), false).await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("limits.body_bytes"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_dropped_or_refused_and_langfuse_is_served() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.auth.api_keys = vec!["pk-1:sk-1".to_owned(), "sk-2 ingest".to_owned()];
    let server = TestServer::start(&config).await;
    let send = async |path: &str, user: &str, password: &str, body: Vec<u8>| {
        let request =
            server.client.post(format!("{}{path}", server.url)).header("content-type", "application/x-protobuf");
        Answer::of(request.basic_auth(user, Some(password)).body(body).send().await.unwrap()).await
    };
    let spans = || export("svc", [span(1, "n", &[])]);
    for (user, password, status) in
        [("pk-1", "sk-1", 200), ("pk-9", "sk-2", 200), ("pk-1", "sk-9", 401), ("pk-9", "sk-1", 401), ("pk-1", "", 401)]
    {
        let answer = send("/api/public/otel/v1/traces", user, password, spans()).await;
        assert_eq!(answer.status, status, "{user} {password}");
    }
    let answer = send("/v1/metrics", "", "sk-2", vec![1, 2, 3]).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    let metrics = server.metrics().await;
    assert_eq!(metric(&metrics, "cairn_ingest_discarded_metrics_exports_total"), Some(1.0));
    server.stop().await.unwrap();
    config.auth.api_keys.clear();
    config.ingest.otlp.metrics = cairn::ingest::MetricsExports::Refuse;
    let server = TestServer::start(&config).await;
    let answer = protobuf(&server, "/v1/metrics", Vec::new()).await;
    assert!(answer.status == 404 && answer.text.contains("ingest.otlp.metrics"), "{}", answer.text);
    assert_eq!(protobuf(&server, LOGS, export("svc", [Message::default()])).await.status, 200);
    let found: Value = server.get("/v1/events?limit=5").await.json();
    assert_eq!(found.as_array().unwrap().len(), 2);
    server.stop().await.unwrap();
}
