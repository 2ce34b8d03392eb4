//! Request smuggling and cross-site requests: no body becomes a request, no text of a request becomes a header, and no
//! page of another site can read or send.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::harness::{TestServer, config};

/// Sends bytes over a new connection; returns everything that the server answers until it closes the connection or is
/// silent for 300 ms.
async fn exchange(server: &TestServer, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut response = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut buffer)).await {
        response.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&response).into_owned()
}

const HEAD: &str = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
const FIRST: &str = r#"{"agent_id":"first"}"#;

/// A request in a place where it must be part of a body.
fn hidden() -> String {
    let body = r#"{"agent_id":"hidden"}"#;
    format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_with_an_ambiguous_length_never_hides_a_request() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let (hidden, length) = (hidden(), FIRST.len());
    let chunked = format!("{length:x}\r\n{FIRST}\r\n0\r\n\r\n");
    let both = length + hidden.len();
    let refused = [
        ("two lengths", format!("{HEAD}content-length: {length}\r\ncontent-length: {both}\r\n\r\n{FIRST}{hidden}")),
        ("two lengths in one header", format!("{HEAD}content-length: {length}, {both}\r\n\r\n{FIRST}{hidden}")),
        ("a length with a sign", format!("{HEAD}content-length: +{length}\r\n\r\n{FIRST}{hidden}")),
        ("a negative length", format!("{HEAD}content-length: -1\r\n\r\n{FIRST}{hidden}")),
        ("a length in hex", format!("{HEAD}content-length: 0x14\r\n\r\n{FIRST}{hidden}")),
        ("a length beyond 64 bits", format!("{HEAD}content-length: 18446744073709551636\r\n\r\n{FIRST}{hidden}")),
        ("an unknown coding", format!("{HEAD}transfer-encoding: xchunked\r\n\r\n{chunked}{hidden}")),
        ("a coding after chunked", format!("{HEAD}transfer-encoding: chunked, gzip\r\n\r\n{chunked}{hidden}")),
        ("a space before the colon", format!("{HEAD}content-length : {length}\r\n\r\n{FIRST}{hidden}")),
        ("a folded line", format!("{HEAD}content-length:\r\n {length}\r\n\r\n{FIRST}{hidden}")),
        (
            "a chunk size beyond 64 bits",
            format!("{HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{FIRST}{hidden}"),
        ),
        ("a negative chunk size", format!("{HEAD}transfer-encoding: chunked\r\n\r\n-1\r\n{FIRST}{hidden}")),
        ("a chunk without its end", format!("{HEAD}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{FIRST}{hidden}")),
        ("a carriage return in a header", format!("{HEAD}x-a: b\rcontent-length: 5\r\n\r\n{FIRST}{hidden}")),
        ("a NUL in a header", format!("{HEAD}x-a: b\0\r\ncontent-length: {length}\r\n\r\n{FIRST}{hidden}")),
        ("no version", format!("GET /v1/stats\r\n\r\n{hidden}")),
        ("an unknown version", format!("GET /v1/stats HTTP/1.2\r\nhost: localhost\r\n\r\n{hidden}")),
        (
            "too many headers",
            format!("{HEAD}{}content-length: {length}\r\n\r\n{FIRST}{hidden}", "a: b\r\n".repeat(200)),
        ),
        (
            "a long header",
            format!("{HEAD}a: {}\r\ncontent-length: {length}\r\n\r\n{FIRST}{hidden}", "b".repeat(70_000)),
        ),
        ("a long target", format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n{hidden}", "b".repeat(70_000))),
    ];
    for (what, request) in refused {
        let response = exchange(&server, request.as_bytes()).await;
        let answers = response.matches("HTTP/1.1 ").count();
        assert!(answers <= 1 && !response.contains("HTTP/1.1 2"), "{what}: {response}");
        assert!(server.list("agent_id=hidden").await.is_empty(), "{what}: {response}");
    }
    assert!(server.list("").await.is_empty());

    // RFC 9112, section 6.1: with both headers the chunked coding counts, and the connection is closed.
    let response = exchange(
        &server,
        format!("{HEAD}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{hidden}").as_bytes(),
    )
    .await;
    assert!(response.matches("HTTP/1.1 ").count() <= 1, "{response}");
    assert!(server.list("agent_id=hidden").await.is_empty(), "{response}");
    // Two equal lengths are one length.
    let response = exchange(
        &server,
        format!("{HEAD}content-length: {length}\r\ncontent-length: {length}\r\n\r\n{FIRST}").as_bytes(),
    )
    .await;
    assert!(response.matches("HTTP/1.1 ").count() == 1, "{response}");
    // After a body that is refused unread, the rest of the connection is not parsed.
    let response = exchange(&server, format!("{HEAD}content-length: 99999999999\r\n\r\n{hidden}").as_bytes()).await;
    assert!(response.starts_with("HTTP/1.1 413") && response.matches("HTTP/1.1 ").count() == 1, "{response}");
    assert!(server.list("agent_id=hidden").await.is_empty());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_not_resolved_and_text_of_a_request_never_becomes_a_header() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for n in 0..3 {
        server.store(&json!({"agent_id": "a\"b", "action_input": n, "labels": {"k": "x\u{1}y"}})).await;
    }
    for path in [
        "/v1/../v1/stats",
        "/v1/%2e%2e/v1/stats",
        "/v1/events/..%2f..%2fetc%2fpasswd",
        "/log/tile/entries/../../../etc/passwd",
        "/log/tile/0/..%2f000",
        "/v1/relay/..%2fx/dead-letters",
        "/%00",
    ] {
        let response = exchange(&server, format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
        let status = response.split(' ').nth(1).unwrap_or("closed").to_owned();
        assert!(["400", "404"].contains(&status.as_str()), "{path}: {response}");
    }
    for query in
        ["agent_id=x%0d%0ainjected:%201", "label.a%0d%0ainjected:%201=1", "agent_id=a%22b&limit=1&label.k=x%01y"]
    {
        let response =
            exchange(&server, format!("GET /v1/events?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await;
        assert!(!response.to_ascii_lowercase().contains("\r\ninjected"), "{response}");
        assert!(response.starts_with("HTTP/1.1 200") || response.starts_with("HTTP/1.1 400"), "{response}");
    }
    // The `Link` header contains the parameters of the request.
    let response =
        exchange(&server, b"GET /v1/events?agent_id=a%22b&limit=1&label.k=x%01y HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .await;
    let link = response.lines().find(|line| line.starts_with("link: ")).unwrap_or_else(|| panic!("{response}"));
    assert!(link.contains("agent_id=a%22b") && link.contains("label.k=x%01y"), "{link}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_can_neither_send_nor_read() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for (method, path) in
        [("OPTIONS", "/v1/events"), ("GET", "/v1/events"), ("POST", "/v1/events"), ("OPTIONS", "/nowhere")]
    {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\norigin: https://elsewhere.example\r\n\
             access-control-request-method: POST\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
        );
        let response = exchange(&server, request.as_bytes()).await.to_ascii_lowercase();
        assert!(response.starts_with("http/1.1 ") && !response.contains("access-control-"), "{response}");
    }
    // Content types that a page of another site can send without a preflight request are refused.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        for path in
            ["/v1/events", "/v1/batch", "/api/v1/capture-event", "/api/v1/capture-session", "/v1/traces", "/v1/logs"]
        {
            let request = server.client.post(format!("{}{path}", server.url)).header("content-type", kind);
            assert_eq!(request.body(FIRST).send().await.unwrap().status(), 415, "{kind} {path}");
        }
    }
    assert!(server.list("").await.is_empty());
    server.stop().await.unwrap();
}
