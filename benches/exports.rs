//! A load for `grpc.py`: sends the same export of spans again and again, each time with new ids, over HTTP/1.1 or over gRPC. Prints
//! the number of requests that were acknowledged in each second.
//!
//! Usage: `exports ADDRESS http|grpc BODY OFFSETS CONNECTIONS SECONDS`. BODY is a file with the export, OFFSETS one with the offsets of
//! its ids: a trace id, a span id, and so on. Each connection sends the next request after the answer.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

type Failed = Box<dyn Error + Send + Sync>;

/// An export that is made unique before it is sent.
#[derive(Clone)]
struct Export {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl Export {
    fn unique(&mut self, salt: u64, number: u64) -> Bytes {
        for (index, at) in self.offsets.iter().enumerate() {
            let (index, at) = (index as u64, *at);
            if index.is_multiple_of(2) {
                self.bytes[at..at + 8].copy_from_slice(&salt.to_be_bytes());
                self.bytes[at + 8..at + 16].copy_from_slice(&(number << 16 | index).to_be_bytes());
            } else {
                // Spread over all values, like random ids.
                let spread = (number << 16 | index).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                self.bytes[at..at + 8].copy_from_slice(&spread.to_be_bytes());
            }
        }
        Bytes::copy_from_slice(&self.bytes)
    }
}

enum Connection {
    Http(http1::SendRequest<Full<Bytes>>),
    Grpc(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    async fn open(address: &str, is_grpc: bool) -> Result<Connection, Failed> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TokioIo::new(stream);
        if is_grpc {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            return Ok(Connection::Grpc(sender));
        }
        let (sender, connection) = http1::handshake(stream).await?;
        tokio::spawn(connection);
        Ok(Connection::Http(sender))
    }

    /// Sends a request, and waits for the end of its answer.
    async fn send(&mut self, address: &str, body: Bytes) -> Result<(), Failed> {
        let (head, body) = match self {
            Connection::Http(sender) => {
                let request = Request::post("/v1/traces").header(header::HOST, address);
                let request = request.header(header::CONTENT_TYPE, "application/x-protobuf");
                sender.ready().await?;
                sender.send_request(request.body(Full::new(body))?).await?.into_parts()
            }
            Connection::Grpc(sender) => {
                let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
                let request = Request::post(format!("http://{address}{path}")).header("te", "trailers");
                let request = request.header(header::CONTENT_TYPE, "application/grpc");
                sender.ready().await?;
                sender.send_request(request.body(Full::new(body))?).await?.into_parts()
            }
        };
        let collected = body.collect().await?;
        let is_ok = |fields: &HeaderMap| fields.get("grpc-status").is_none_or(|status| status == "0");
        match head.status == StatusCode::OK && is_ok(&head.headers) && collected.trailers().is_none_or(is_ok) {
            true => Ok(()),
            false => Err(format!("{head:?} {:?}", collected.trailers()).into()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [address, protocol, body, offsets, connections, seconds] = &arguments[..] else {
        eprintln!("usage: exports ADDRESS http|grpc BODY OFFSETS CONNECTIONS SECONDS");
        return Ok(());
    };
    let (is_grpc, mut bytes) = (protocol == "grpc", std::fs::read(body)?);
    let prefix = if is_grpc { [&[0], &u32::try_from(bytes.len())?.to_be_bytes()[..]].concat() } else { Vec::new() };
    bytes.splice(0..0, prefix.iter().copied());
    let offsets = std::fs::read_to_string(offsets)?;
    let offsets = offsets.split_whitespace().map(|offset| Ok(offset.parse::<usize>()? + prefix.len()));
    let export = Export { bytes, offsets: offsets.collect::<Result<_, Failed>>()? };
    let (salt, sent) = (fastrand::u64(..), Arc::new(AtomicU64::new(0)));
    let duration = Duration::from_secs(seconds.parse()?);
    let end = Instant::now() + duration;
    let senders: Vec<_> = (0..connections.parse::<u64>()?)
        .map(|number| {
            let (mut export, address, sent) = (export.clone(), address.clone(), Arc::clone(&sent));
            tokio::spawn(async move {
                let mut connection = Connection::open(&address, is_grpc).await?;
                for request in 0.. {
                    if Instant::now() >= end {
                        break;
                    }
                    connection.send(&address, export.unique(salt, number << 32 | request)).await?;
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), Failed>(())
            })
        })
        .collect();
    for sender in senders {
        sender.await??;
    }
    println!("{}", sent.load(Ordering::Relaxed) as f64 / duration.as_secs_f64());
    Ok(())
}
