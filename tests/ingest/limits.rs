//! Memory stays bounded, and other clients are served, under thousands of idle connections, slow bodies, decompression
//! bombs, deep nesting and huge numbers.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::harness::{Process, eventually, metric};
use crate::support::machine::meets;

const MIB: u64 = 1 << 20;

async fn post(server: &Process, path: &str, encoding: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let request =
        reqwest::Client::new().post(format!("{}{path}", server.url)).header("content-type", "application/json");
    let answer = request.header("content-encoding", encoding).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn connect(server: &Process) -> TcpStream {
    TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_connections_need_little_memory_and_delay_no_other_client() {
    const CONNECTIONS: u64 = 10_000;
    let data = TempDir::new().unwrap();
    let server =
        Process::start(data.path(), &[("CAIRN_LIMITS__CONNECTIONS", "11000"), ("CAIRN_LIMITS__MEMORY", "512MiB")]);
    if !meets(raised_limit() >= CONNECTIONS + 500, "a hard limit of 10,500 open files") {
        return;
    }
    assert_eq!(post(&server, "/v1/events", "identity", r#"{"agent_id":"a"}"#).await.0, 201);
    let before = server.memory_bytes();
    let mut idle = Vec::with_capacity(CONNECTIONS as usize);
    for _ in 0..CONNECTIONS {
        let mut stream = connect(&server).await;
        // Each connection has served a request before it is idle.
        stream.write_all(b"GET /v1/stats HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut byte = [0; 1];
        stream.read_exact(&mut byte).await.unwrap();
        idle.push(stream);
    }
    let each = (server.memory_bytes() - before) / CONNECTIONS;
    println!("{each} bytes for each of {CONNECTIONS} idle connections");
    assert!(each < 34 << 10, "{each} bytes for each idle connection");
    let started = std::time::Instant::now();
    assert_eq!(post(&server, "/v1/events", "identity", r#"{"agent_id":"a"}"#).await.0, 201);
    assert!(started.elapsed() < Duration::from_secs(1));
    drop(idle);
    let metrics = format!("{}/metrics", server.admin_url);
    eventually("the end of all idle connections", async || {
        let text = reqwest::get(&metrics).await.unwrap().text().await.unwrap();
        metric(&text, "cairn_connections").is_some_and(|open| open < 10.0)
    })
    .await;
}

/// Raises this process's limit of open files to the maximum, and returns it.
fn raised_limit() -> u64 {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    let _ = setrlimit(Resource::Nofile, files);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_need_only_the_memory_of_the_bytes_that_have_arrived() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[("CAIRN_LIMITS__BODY_TIMEOUT", "4s")]);
    let before = server.memory_bytes();
    let mut slow = Vec::new();
    for _ in 0..1000 {
        let mut stream = connect(&server).await;
        let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 20000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..3 {
        for stream in &mut slow {
            // Fails on connections that the server has closed already.
            let _ = stream.write_all(b" ").await;
        }
        assert_eq!(post(&server, "/v1/events", "identity", r#"{"agent_id":"a"}"#).await.0, 201);
        // The pause is the subject: clients that send one byte a second.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let more = server.memory_bytes().saturating_sub(before);
    println!("{} MiB for 1000 slow bodies", more / MIB);
    assert!(more < 32 * MIB, "{more}");
    let mut response = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), slow[0].read_to_string(&mut response)).await;
    read.expect("the server closes the connection").unwrap();
    assert!(response.starts_with("HTTP/1.1 408"), "{response}");
}

fn gzip(bytes: &[u8], times: usize) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..times).for_each(|_| out.write_all(bytes).unwrap());
    out.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0; zstd_safe::compress_bound(bytes.len())];
    let length = zstd_safe::compress(&mut out[..], bytes, 19).unwrap();
    out.truncate(length);
    out
}

/// A zstd frame that requires a window of 2 GiB: RFC 8878, section 3.1.1.
const ZSTD_WINDOW: [u8; 9] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];

#[tokio::test(flavor = "multi_thread")]
async fn decompression_bombs_deep_nesting_and_huge_numbers_are_refused_in_bounded_memory() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    let event = |value: &str| format!(r#"{{"agent_id":"a","action_input":{value}}}"#);
    let spaces = vec![b' '; MIB as usize];
    let bodies: Vec<(&str, &str, Vec<u8>, u16)> = vec![
        ("a gzip of 2 GiB", "gzip", gzip(&spaces, 2000), 413),
        ("a gzip in a gzip", "gzip", gzip(&gzip(&spaces, 1000), 1), 400),
        ("a zstd of 1 GiB", "zstd", zstd(&spaces.repeat(1000)), 413),
        ("a zstd that requires 2 GiB", "zstd", ZSTD_WINDOW.to_vec(), 400),
        ("many gzip members", "gzip", gzip(b" ", 1).repeat(200_000), 400),
        ("arrays in arrays", "identity", event(&"[".repeat(9_000_000)).into(), 400),
        ("objects in objects", "identity", event(&r#"{"a":"#.repeat(3_000_000)).into(), 400),
        ("129 levels", "identity", event(&format!("{}{}", "[".repeat(129), "]".repeat(129))).into(), 400),
        ("a number of a million digits", "identity", event(&"9".repeat(1_000_000)).into(), 400),
        ("a fraction of a million digits", "identity", event(&format!("0.{}", "9".repeat(1_000_000))).into(), 201),
        ("a number beyond doubles", "identity", event("1e400").into(), 400),
        ("a huge exponent", "identity", event(&format!("1e{}", "9".repeat(100_000))).into(), 400),
        ("a number that rounds to zero", "identity", event(&format!("1e-{}", "9".repeat(100_000))).into(), 201),
        (
            "a million members",
            "identity",
            event(&format!("{{{}\"z\":0}}", (0..1_000_000).map(|n| format!("\"{n}\":0,")).collect::<String>())).into(),
            413,
        ),
        (
            "many members with the same name",
            "identity",
            event(&format!("{{{}\"a\":0}}", "\"a\":0,".repeat(100_000))).into(),
            400,
        ),
        ("a million escapes", "identity", event(&format!("\"{}\"", "\\u0001".repeat(1_000_000))).into(), 413),
        ("lone surrogates", "identity", event(r#""\ud800""#).into(), 400),
        ("a body of zeros", "identity", vec![0; 19_000_000], 400),
    ];
    for (what, encoding, body, status) in bodies {
        let length = body.len();
        let started = std::time::Instant::now();
        let (got, text) = post(&server, "/v1/events", encoding, body.clone()).await;
        assert_eq!(got, status, "{what}: {}", &text[..text.len().min(300)]);
        assert!(started.elapsed() < Duration::from_secs(5), "{what}: {:?} for {length} bytes", started.elapsed());
        for path in ["/v1/batch", "/api/v1/capture-event", "/v1/traces", "/v1/logs"] {
            let (got, text) = post(&server, path, encoding, body.clone()).await;
            assert!(got < 500 || got == 503, "{what} at {path}: {got} {}", &text[..text.len().min(300)]);
        }
    }
    let peak = crate::ingest::otlp_attacks::peak_mib(server.child.id());
    println!("peak memory: {peak} MiB");
    assert!(peak < 384, "{peak} MiB");
    assert_eq!(post(&server, "/v1/events", "identity", json!({"agent_id": "b"}).to_string()).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_leave_the_database_the_files_that_it_needs() {
    let data = TempDir::new().unwrap();
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -n 700 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_cairn")]);
    let mut server = Process::start_as(limited, data.path(), &[("CAIRN_STORAGE__MEMORY_BYTES", "8MiB")]);
    let client = reqwest::Client::new();
    let store = async || {
        let event = json!({"agent_id": "a", "action_input": "x".repeat(100_000)}).to_string();
        let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
        let answer = request.body(event).send().await.unwrap();
        let status = answer.status().as_u16();
        // Whoever does not read an answer loses the connection.
        answer.bytes().await.unwrap();
        status
    };
    assert_eq!(store().await, 201);
    // The server accepts what fits, and the kernel keeps the others waiting.
    let address = server.url.trim_start_matches("http://").to_owned();
    let connects = (0..700).map(|_| tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(&address)));
    let idle: Vec<_> = futures_util::future::join_all(connects).await;
    // The database writes tables, for which it opens files.
    for _ in 0..200 {
        assert_eq!(store().await, 201);
    }
    let metrics = reqwest::get(format!("{}/metrics", server.admin_url)).await.unwrap().text().await.unwrap();
    let open = metric(&metrics, "cairn_connections").unwrap();
    assert!((50.0..200.0).contains(&open), "{open}");
    assert!(server.child.try_wait().unwrap().is_none(), "the server ended");
    drop(idle);
}
