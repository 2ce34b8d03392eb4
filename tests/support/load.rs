//! Load over many connections that send the same kind of request again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::protobuf::{export, span};
use crate::ingest::otlp::TRACES;

/// What each connection sends.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// OTLP exports with this number of spans of some 530 bytes.
    Spans(usize),
    /// Batches of this number of events of some 230 bytes.
    Batch(usize),
    /// One event whose input has this length.
    Single(usize),
}

/// The counts of a load.
#[derive(Debug, Default)]
pub struct Sent {
    /// The events in requests that were acknowledged.
    pub acknowledged: AtomicU64,
    /// The requests that were answered with 503.
    pub refused: AtomicU64,
    /// The requests that failed in any other way, the end of the load excluded.
    pub failed: AtomicU64,
}

/// A request that can be made unique.
struct Request {
    bytes: Vec<u8>,
    /// The offsets of the ids that have to be unique.
    ids: Vec<usize>,
    events: u64,
}

/// The beginning of the trace ids of [`span`], which is replaced to make a request unique.
const MARK: &[u8; 8] = &[0xC0; 8];

impl Request {
    fn of(kind: Kind) -> Request {
        let (path, content_type, body, events) = match kind {
            Kind::Spans(count) => {
                let text = json!("a value of 25 characters");
                let names: Vec<_> = (0..8).map(|n| format!("attribute.number.{n}")).collect();
                let attributes: Vec<_> = names.iter().map(|name| (name.as_str(), text.clone())).collect();
                let spans = (0..count as u64).map(|n| span(n + 1, "a step of the agent", &attributes));
                (TRACES, "application/x-protobuf", export("agent", spans), count as u64)
            }
            Kind::Batch(count) => {
                let event = |n| {
                    json!({"agent_id": format!("agent-{}", n % 8), "action_type": "TOOL_CALL",
                    "action_name": "search", "action_input": {"q": "x".repeat(100)}, "action_output": "y".repeat(40)})
                };
                let events: Vec<_> = (0..count).map(event).collect();
                ("/v1/batch", "application/json", json!(events).to_string().into_bytes(), count as u64)
            }
            Kind::Single(len) => {
                let event = json!({"agent_id": "agent", "action_input": "x".repeat(len)});
                ("/v1/events", "application/json", event.to_string().into_bytes(), 1)
            }
        };
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let bytes = [head.into_bytes(), body].concat();
        let ids =
            bytes.windows(MARK.len()).enumerate().filter(|(_, window)| window == MARK).map(|(at, _)| at).collect();
        Request { bytes, ids, events }
    }

    fn make_unique(&mut self, number: u64) {
        for at in &self.ids {
            self.bytes[*at..at + MARK.len()].copy_from_slice(&number.to_be_bytes());
        }
    }
}

/// Sends requests over `connections` connections at once for `duration`, and waits for the last answers.
pub async fn send(url: &str, kind: Kind, connections: usize, duration: Duration) -> Sent {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let (sent, address) = (Arc::new(Sent::default()), url.trim_start_matches("http://").to_owned());
    let end = Instant::now() + duration;
    let senders: Vec<_> = (0..connections)
        .map(|_| {
            let (sent, address) = (Arc::clone(&sent), address.clone());
            tokio::spawn(async move {
                let mut request = Request::of(kind);
                let mut stream = None;
                while Instant::now() < end {
                    request.make_unique(NUMBER.fetch_add(1, Ordering::Relaxed));
                    let exchange = exchange(&mut stream, &address, &request.bytes);
                    match tokio::time::timeout(Duration::from_secs(30), exchange).await {
                        Ok(Ok(200 | 201)) => sent.acknowledged.fetch_add(request.events, Ordering::Relaxed),
                        Ok(Ok(503)) => sent.refused.fetch_add(1, Ordering::Relaxed),
                        _ => {
                            stream = None;
                            sent.failed.fetch_add(1, Ordering::Relaxed)
                        }
                    };
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    Arc::into_inner(sent).unwrap()
}

/// Sends a request, and returns the status of its answer, which is read to its end.
async fn exchange(stream: &mut Option<TcpStream>, address: &str, request: &[u8]) -> std::io::Result<u16> {
    let open = match stream {
        Some(open) => open,
        None => stream.insert(TcpStream::connect(address).await?),
    };
    open.write_all(request).await?;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    let (mut status, mut left) = (0, None);
    while left != Some(0) {
        let read = open.read(&mut buffer).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(left) = &mut left {
            *left -= read;
            continue;
        }
        answer.extend_from_slice(&buffer[..read]);
        let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
        status = head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_default();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        left = Some(length.unwrap_or_default() - (answer.len() - end - 4));
    }
    Ok(status)
}
