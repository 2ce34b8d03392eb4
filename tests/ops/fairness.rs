//! Clients that take all they can get do not keep others from being served.

use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::harness::{TestServer, config, eventually, metric};

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_do_not_read_never_keep_writers_from_writing() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.response_bytes = ByteSize::mib(1);
    let server = TestServer::start(&config).await;
    let large = json!({"agent_id": "a", "action_input": "x".repeat(900_000)});
    let id = server.store(&large).await["id"].as_str().unwrap().to_owned();
    for _ in 0..11 {
        server.store(&large).await;
    }
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut not_reading = Vec::new();
    for number in 0..40 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let path = if number % 2 == 0 { "/v1/events".to_owned() } else { format!("/v1/events/{id}") };
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        stream.write_all(request.repeat(8).as_bytes()).await.unwrap();
        not_reading.push(stream);
    }
    let used = async || metric(&server.metrics().await, "cairn_response_bytes").unwrap();
    eventually("responses that take all memory", async || used().await > 500e3).await;
    for _ in 0..20 {
        assert_eq!(server.send("/v1/events", &large).await.status, 201);
        assert!(used().await <= f64::from(1 << 20) + 1024.0);
    }
    let refused = server.get(&format!("/v1/events/{id}")).await;
    assert!(refused.status == 200 || refused.error().contains("limits.response_bytes"), "{}", refused.error());
    drop(not_reading);
    eventually("memory for readers", async || server.get(&format!("/v1/events/{id}")).await.status == 200).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_ends_at_its_time_limit_and_its_filter_has_few_labels() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.read_timeout = Duration::from_millis(1);
    let server = TestServer::start(&config).await;
    let events: Vec<_> = (0..5000).map(|n| json!({"agent_id": "a", "action_input": n})).collect();
    for _ in 0..4 {
        assert_eq!(server.send("/v1/batch", &json!(events)).await.status, 201);
    }
    // No event matches, so all of them are read.
    let started = Instant::now();
    let answer = server.get("/v1/events?agent_id=a&timestamp_since=2100-01-01T00:00:00Z").await;
    assert_eq!(answer.status, 503);
    assert!(answer.error().contains("limits.read_timeout"), "{}", answer.text);
    assert!(started.elapsed() < Duration::from_secs(1));
    let labels = |count: usize| (0..count).map(|n| format!("label.{n}=x")).collect::<Vec<_>>().join("&");
    let answer = server.get(&format!("/v1/events?{}", labels(17))).await;
    assert_eq!((answer.status.as_u16(), answer.error().contains("at most 16 labels")), (400, true), "{}", answer.text);
    server.stop().await.unwrap();
    let mut config = config.clone();
    config.limits.read_timeout = Duration::from_secs(30);
    let server = TestServer::start(&config).await;
    let labelled = json!({"agent_id": "a", "labels": {"0": "x", "1": "x", "2": 3, "3": "other"}});
    server.store(&labelled).await;
    assert_eq!(server.list("label.0=x&label.1=x&label.2=3").await.len(), 1);
    assert_eq!(server.list("label.0=x&label.3=x").await.len(), 0);
    assert_eq!(server.list("label.0=x&label.4=x").await.len(), 0);
    assert_eq!(server.list(&labels(16)).await.len(), 0);
    server.stop().await.unwrap();
}
