//! Hostile clients beside honest ones, in a cgroup with the limit of a sidecar: whatever a peer does, the memory stays
//! below the limit, and an honest writer and an honest reader are served in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::ops::http2::{
    CONTINUATION, DATA, END, END_HEADERS, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, call_of_traces, frame, get,
    post_of_events,
};
use crate::support::harness::{Process, run_text};
use crate::support::load::{Kind, send};
use crate::support::machine::Cgroup;

const LIMIT_BYTES: u64 = 256 << 20;
/// How long each attack goes on: so long that its first burst, which the test and the server decode on the same cores, is not all of it.
const ATTACK: Duration = Duration::from_secs(6);
/// The longest time in which 99 of 100 honest requests are answered.
const P99: Duration = Duration::from_millis(250);

/// Clients that send one request after another, and measure each.
struct Honest {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<(Vec<Duration>, Vec<String>, Vec<u16>)>,
    reader: JoinHandle<(Vec<Duration>, Vec<u16>)>,
}

impl Honest {
    fn start(url: &str, known_id: &str) -> Honest {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, pause) = (reqwest::Client::new(), Duration::from_millis(10));
        let (is_stopped, events, post) = (Arc::clone(&stop), format!("{url}/v1/events"), client.clone());
        let writer = tokio::spawn(async move {
            let (mut times, mut stored, mut others) = (Vec::new(), Vec::new(), Vec::new());
            while !is_stopped.load(Ordering::Relaxed) {
                let id = Uuid::new_v4().to_string();
                let (started, event) = (Instant::now(), json!({"agent_id": "honest", "id": id, "action_name": "pay"}));
                let request = post.post(&events).header("content-type", "application/json").body(event.to_string());
                let answer = request.send().await.unwrap();
                let status = answer.status().as_u16();
                answer.bytes().await.unwrap();
                times.push(started.elapsed());
                if status == 201 {
                    stored.push(id)
                } else {
                    others.push(status)
                }
                tokio::time::sleep(pause).await;
            }
            (times, stored, others)
        });
        let (is_stopped, event) = (Arc::clone(&stop), format!("{url}/v1/events/{known_id}"));
        let reader = tokio::spawn(async move {
            let (mut times, mut others) = (Vec::new(), Vec::new());
            while !is_stopped.load(Ordering::Relaxed) {
                let started = Instant::now();
                let answer = client.get(&event).send().await.unwrap();
                let status = answer.status().as_u16();
                answer.bytes().await.unwrap();
                times.push(started.elapsed());
                others.extend((status != 200).then_some(status));
                tokio::time::sleep(pause).await;
            }
            (times, others)
        });
        Honest { stop, writer, reader }
    }
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Opens connections and writes the same bytes to each again and again; nothing is read.
async fn write_without_reading(url: &str, connections: usize, first: Vec<u8>, again: Vec<u8>) {
    let (address, end) = (url.trim_start_matches("http://").to_owned(), Instant::now() + ATTACK);
    let writers: Vec<_> = (0..connections)
        .map(|_| {
            let (address, first, again) = (address.clone(), first.clone(), again.clone());
            tokio::spawn(async move {
                while Instant::now() < end {
                    let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                    let left = || end.saturating_duration_since(Instant::now());
                    let _ = tokio::time::timeout(left(), async {
                        stream.write_all(&first).await?;
                        while !again.is_empty() {
                            stream.write_all(&again).await?;
                        }
                        std::future::pending::<std::io::Result<()>>().await
                    })
                    .await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
}

/// Sends requests for `ATTACK`, each connection the next one after the answer.
async fn repeat(url: &str, connections: usize, path: &'static str, body: Option<&'static str>) {
    let (client, end) = (reqwest::Client::new(), Instant::now() + ATTACK);
    let senders: Vec<_> = (0..connections)
        .map(|_| {
            let (client, url) = (client.clone(), format!("{url}{path}"));
            tokio::spawn(async move {
                while Instant::now() < end {
                    let request = match body {
                        Some(body) => client.post(&url).header("content-type", "application/json").body(body),
                        None => client.get(&url),
                    };
                    if let Ok(answer) = request.send().await {
                        let _ = answer.bytes().await;
                    }
                }
            })
        })
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
}

const ATTACKS: [&str; 14] = [
    "batches of 512 events over 16 connections",
    "exports of 512 spans over 64 connections",
    "HTTP/2 reads with a window of zero",
    "HTTP/2 requests that stay open, with many fields",
    "HTTP/2 pings and settings",
    "responses that are not read",
    "waiting for checkpoints",
    "scans that find nothing",
    "bodies that do not go on",
    "gRPC calls that are reset at once",
    "100,000 streams of gRPC calls whose messages do not come",
    "gRPC metadata without end",
    "gRPC messages without end",
    "gRPC calls with trailers only, and a window of zero",
];

async fn attack(url: &str, what: &str) {
    let zero_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let requests = |count: u32, flags, fields: &[u8]| -> Vec<u8> {
        (0..count).flat_map(|number| frame(HEADERS, flags, 2 * number + 1, fields)).collect()
    };
    match what {
        "batches of 512 events over 16 connections" => {
            send(url, Kind::Batch(512), 16, ATTACK).await;
        }
        "exports of 512 spans over 64 connections" => {
            send(url, Kind::Spans(512), 64, ATTACK).await;
        }
        "HTTP/2 reads with a window of zero" => {
            let first = [PREFACE, &zero_window, &requests(200, END, &get("/v1/events?limit=1000"))].concat();
            write_without_reading(url, 100, first, Vec::new()).await;
        }
        "HTTP/2 requests that stay open, with many fields" => {
            let fields = [post_of_events(), vec![0x90; 450]].concat();
            let first = [PREFACE, &frame(SETTINGS, 0, 0, b""), &requests(200, END_HEADERS, &fields)].concat();
            write_without_reading(url, 100, first, Vec::new()).await;
        }
        "HTTP/2 pings and settings" => {
            let again = [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, b"")].concat().repeat(500);
            let first = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
            write_without_reading(url, 32, first, again).await;
        }
        "responses that are not read" => {
            let read = b"GET /v1/events?limit=1000 HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20);
            write_without_reading(url, 100, read, Vec::new()).await;
        }
        "waiting for checkpoints" => {
            repeat(url, 64, "/v1/events?wait=checkpoint", Some(r#"{"agent_id":"waiting"}"#)).await;
        }
        "scans that find nothing" => {
            repeat(url, 32, "/v1/events?agent_id=agent-1&timestamp_since=2100-01-01T00:00:00Z", None).await;
        }
        "bodies that do not go on" => {
            let post = b"POST /v1/batch HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                         content-length: 10000000\r\n\r\n[";
            write_without_reading(url, 500, post.to_vec(), Vec::new()).await;
        }
        other => attack_by_grpc(url, other).await,
    }
}

async fn attack_by_grpc(url: &str, what: &str) {
    let settings = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    let call = call_of_traces();
    let streams = |count: u32| (0..count).map(|number| 2 * number + 1);
    match what {
        "gRPC calls that are reset at once" => {
            let reset =
                |stream| [frame(HEADERS, END_HEADERS, stream, &call), frame(RST_STREAM, 0, stream, &[0; 4])].concat();
            let first = [settings, streams(20_000).flat_map(reset).collect()].concat();
            write_without_reading(url, 32, first, frame(PING, 0, 0, &[0; 8])).await;
        }
        "100,000 streams of gRPC calls whose messages do not come" => {
            // The prefix of a message of 4 GiB.
            let prefix = [0, 0xff, 0xff, 0xff, 0xff];
            let open = |stream| [frame(HEADERS, END_HEADERS, stream, &call), frame(DATA, 0, stream, &prefix)].concat();
            let first = [settings, streams(1000).flat_map(open).collect()].concat();
            write_without_reading(url, 100, first, Vec::new()).await;
        }
        "gRPC metadata without end" => {
            let field = [&[0x00, 1], &b"a"[..], &[100], &[b'x'; 100]].concat();
            let first = [settings, frame(HEADERS, 0, 1, &call)].concat();
            write_without_reading(url, 64, first, frame(CONTINUATION, 0, 1, &field.repeat(100))).await;
        }
        "gRPC messages without end" => {
            let message = [0, 0xff, 0xff, 0xff, 0xff];
            let first = [settings, frame(HEADERS, END_HEADERS, 1, &call), frame(DATA, 0, 1, &message)].concat();
            write_without_reading(url, 64, first, frame(DATA, 0, 1, &[0x0a; 16_000])).await;
        }
        "gRPC calls with trailers only, and a window of zero" => {
            let zero_window = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
            let ended = |stream| frame(HEADERS, END, stream, &call);
            let with_trailers = |stream| {
                let trailers = [&[0x00, 1], &b"t"[..], &[1], b"x"].concat();
                [frame(HEADERS, END_HEADERS, stream, &call), frame(HEADERS, END, stream, &trailers)].concat()
            };
            let calls =
                streams(200).flat_map(|stream| if stream % 4 == 1 { ended(stream) } else { with_trailers(stream) });
            let first = [PREFACE, &zero_window, &calls.collect::<Vec<u8>>()].concat();
            write_without_reading(url, 100, first, Vec::new()).await;
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_neither_exhaust_the_memory_nor_delay_honest_ones() {
    let Some(cgroup) = Cgroup::new(LIMIT_BYTES) else { return };
    let data = TempDir::new().unwrap();
    let mut server = Process::start_as(cgroup.command(env!("CARGO_BIN_EXE_cairn").as_ref()), data.path(), &[]);
    let client = reqwest::Client::new();
    let large: Vec<Value> =
        (0..500).map(|n| json!({"agent_id": format!("agent-{}", n % 8), "action_input": "x".repeat(9000)})).collect();
    let post = client.post(format!("{}/v1/batch", server.url)).header("content-type", "application/json");
    assert_eq!(post.body(json!(large).to_string()).send().await.unwrap().status(), 201);
    let post = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    let known: Value =
        serde_json::from_str(&post.body(r#"{"agent_id":"known"}"#).send().await.unwrap().text().await.unwrap())
            .unwrap();
    let mut stored = Vec::new();
    let mut slow = Vec::new();
    for what in ATTACKS {
        let honest = Honest::start(&server.url, known["id"].as_str().unwrap());
        attack(&server.url, what).await;
        honest.stop.store(true, Ordering::Relaxed);
        let (write_times, ids, refused) = honest.writer.await.unwrap();
        let (read_times, unread) = honest.reader.await.unwrap();
        let (writes, reads) = (write_times.len(), read_times.len());
        let (write, read) = (p99(write_times), p99(read_times));
        println!(
            "{what}: {writes} writes, p99 {write:?}; {reads} reads, p99 {read:?}, {} not answered; {} MiB",
            unread.len(),
            server.memory_bytes() >> 20
        );
        assert_eq!(cgroup.kills(), 0, "{what}: killed");
        assert!(refused.is_empty(), "{what}: the writer got {refused:?}");
        if write > P99 || read > P99 {
            slow.push(format!("{what}: {write:?}, {read:?}"));
        }
        stored.extend(ids);
    }
    assert!(slow.is_empty(), "{slow:?}");
    server.kill();
    let arguments = ["events", "--agent-id", "honest", "--last", "1000000", "--json", "--data-dir"];
    let (code, listed, _) = run_text(&[&arguments[..], &[data.path().to_str().unwrap()]].concat());
    assert_eq!(code, 0);
    let missing = stored.iter().filter(|id| !listed.contains(id.as_str())).count();
    assert_eq!(missing, 0, "of {} acknowledged events", stored.len());
}
