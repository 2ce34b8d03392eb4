//! Requests in odd shapes: no body becomes a request, no word of a request becomes a header, no page of another site reads.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::harness::{Running, config};

/// What is answered to bytes, until the server closes or says nothing more.
async fn say(server: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(length @ 1..)) = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut buffer)).await {
        said.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

const HEAD: &str = "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
const FIRST: &str = r#"{"agent_id":"first"}"#;

/// A request that must never be one.
fn hidden() -> String {
    let body = r#"{"agent_id":"hidden"}"#;
    format!("{HEAD}content-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_length_is_told_in_two_ways_never_hides_a_request() {
    let data = TempDir::new().unwrap();
    let server = Running::start(&config(data.path())).await;
    let (hidden, length) = (hidden(), FIRST.len());
    let chunked = format!("{length:x}\r\n{FIRST}\r\n0\r\n\r\n");
    let both = length + hidden.len();
    let refused = [
        ("two lengths", format!("{HEAD}content-length: {length}\r\ncontent-length: {both}\r\n\r\n{FIRST}{hidden}")),
        ("two lengths in one", format!("{HEAD}content-length: {length}, {both}\r\n\r\n{FIRST}{hidden}")),
        ("a length with a sign", format!("{HEAD}content-length: +{length}\r\n\r\n{FIRST}{hidden}")),
        ("a length below zero", format!("{HEAD}content-length: -1\r\n\r\n{FIRST}{hidden}")),
        ("a length in hex", format!("{HEAD}content-length: 0x14\r\n\r\n{FIRST}{hidden}")),
        ("a length beyond all", format!("{HEAD}content-length: 18446744073709551636\r\n\r\n{FIRST}{hidden}")),
        ("an unknown coding", format!("{HEAD}transfer-encoding: xchunked\r\n\r\n{chunked}{hidden}")),
        ("chunks that are not last", format!("{HEAD}transfer-encoding: chunked, gzip\r\n\r\n{chunked}{hidden}")),
        ("a space before the colon", format!("{HEAD}content-length : {length}\r\n\r\n{FIRST}{hidden}")),
        ("a folded line", format!("{HEAD}content-length:\r\n {length}\r\n\r\n{FIRST}{hidden}")),
        ("a chunk beyond all", format!("{HEAD}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{FIRST}{hidden}")),
        ("a chunk below zero", format!("{HEAD}transfer-encoding: chunked\r\n\r\n-1\r\n{FIRST}{hidden}")),
        ("a chunk without its end", format!("{HEAD}transfer-encoding: chunked\r\n\r\n{length:x}\r\n{FIRST}{hidden}")),
        ("a return in a header", format!("{HEAD}x-a: b\rcontent-length: 5\r\n\r\n{FIRST}{hidden}")),
        ("a zero in a header", format!("{HEAD}x-a: b\0\r\ncontent-length: {length}\r\n\r\n{FIRST}{hidden}")),
        ("no version", format!("GET /v1/stats\r\n\r\n{hidden}")),
        ("an unknown version", format!("GET /v1/stats HTTP/1.2\r\nhost: x\r\n\r\n{hidden}")),
        (
            "too many headers",
            format!("{HEAD}{}content-length: {length}\r\n\r\n{FIRST}{hidden}", "a: b\r\n".repeat(200)),
        ),
        (
            "a long header",
            format!("{HEAD}a: {}\r\ncontent-length: {length}\r\n\r\n{FIRST}{hidden}", "b".repeat(70_000)),
        ),
        ("a long target", format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n{hidden}", "b".repeat(70_000))),
    ];
    for (what, request) in refused {
        let said = say(&server, request.as_bytes()).await;
        let answers = said.matches("HTTP/1.1 ").count();
        assert!(answers <= 1 && !said.contains("HTTP/1.1 2"), "{what}: {said}");
        assert!(server.list("agent_id=hidden").await.is_empty(), "{what}: {said}");
    }
    assert!(server.list("").await.is_empty());

    // RFC 9112, section 6.1: with both, the chunks count, and nobody speaks on this connection any more.
    let said = say(
        &server,
        format!("{HEAD}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{hidden}").as_bytes(),
    )
    .await;
    assert!(said.matches("HTTP/1.1 ").count() <= 1, "{said}");
    assert!(server.list("agent_id=hidden").await.is_empty(), "{said}");
    // The same length twice is one length.
    let said =
        say(&server, format!("{HEAD}content-length: {length}\r\ncontent-length: {length}\r\n\r\n{FIRST}").as_bytes())
            .await;
    assert!(said.matches("HTTP/1.1 ").count() == 1, "{said}");
    // A body that is refused unread takes what comes behind it along.
    let said = say(&server, format!("{HEAD}content-length: 99999999999\r\n\r\n{hidden}").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.matches("HTTP/1.1 ").count() == 1, "{said}");
    assert!(server.list("agent_id=hidden").await.is_empty());
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_what_they_are_and_words_of_a_request_never_become_headers() {
    let data = TempDir::new().unwrap();
    let server = Running::start(&config(data.path())).await;
    for n in 0..3 {
        server.store(&json!({"agent_id": "a\"b", "action_input": n, "labels": {"k": "x\u{1}y"}})).await;
    }
    for path in [
        "/v1/../v1/stats",
        "/v1/%2e%2e/v1/stats",
        "//v1/stats",
        "/v1/stats/",
        "/v1//stats",
        "/v1/events/..%2f..%2fetc%2fpasswd",
        "/log/tile/entries/../../../etc/passwd",
        "/log/tile/0/..%2f000",
        "/v1/relay/..%2fx/dead-letters",
        "/%00",
    ] {
        let said = say(&server, format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        let status = said.split(' ').nth(1).unwrap_or("closed").to_owned();
        assert!(["400", "404"].contains(&status.as_str()), "{path}: {said}");
    }
    for query in
        ["agent_id=x%0d%0ainjected:%201", "label.a%0d%0ainjected:%201=1", "agent_id=a%22b&limit=1&label.k=x%01y"]
    {
        let said = say(&server, format!("GET /v1/events?{query} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
        assert!(!said.to_ascii_lowercase().contains("\r\ninjected"), "{said}");
        assert!(said.starts_with("HTTP/1.1 200") || said.starts_with("HTTP/1.1 400"), "{said}");
    }
    // The next page is named in a header, with what was asked in it.
    let said = say(&server, b"GET /v1/events?agent_id=a%22b&limit=1&label.k=x%01y HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let link = said.lines().find(|line| line.starts_with("link: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(link.contains("agent_id=a%22b") && link.contains("label.k=x%01y"), "{link}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_can_neither_send_nor_read() {
    let data = TempDir::new().unwrap();
    let server = Running::start(&config(data.path())).await;
    for (method, path) in
        [("OPTIONS", "/v1/events"), ("GET", "/v1/events"), ("POST", "/v1/events"), ("OPTIONS", "/nowhere")]
    {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\norigin: https://elsewhere.example\r\n\
             access-control-request-method: POST\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
        );
        let said = say(&server, request.as_bytes()).await.to_ascii_lowercase();
        assert!(said.starts_with("http/1.1 ") && !said.contains("access-control-"), "{said}");
    }
    // What a form or a script can send without being asked: none of it is taken.
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
