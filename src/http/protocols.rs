//! What HTTP/1.1 and HTTP/2 may take of a connection.
//!
//! hyper's defaults for HTTP/2 are made for few connections: 200 streams and a window of 1 MiB each. Multiplied by
//! `limits.connections` they would be larger than the memory of the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;

/// The largest head of a request of HTTP/1.1, in bytes; also the most that is read at a time.
const HEAD_BYTES: usize = 16 << 10;
/// The largest head of a request of HTTP/2, in bytes, counted as in RFC 9113, section 6.5.2.
const HEADER_LIST_BYTES: u32 = 8 << 10;
/// The most header fields of a request. hyper refuses more over HTTP/1.1. Over HTTP/2 a field may take one byte of the
/// connection, and a hundred of memory.
pub const MAX_FIELDS: usize = 100;
/// The most streams of one connection.
const STREAMS: u32 = 32;
/// The most bytes of bodies that a connection holds before they are read: the least that RFC 9113 allows.
const WINDOW_BYTES: u32 = (64 << 10) - 1;
/// The most bytes that a connection holds of each response.
const SEND_BYTES: usize = 64 << 10;

/// The versions of HTTP that a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1
    Http1,
    /// HTTP/1.1 and HTTP/2
    Http1And2,
}

impl Protocols {
    /// A server for connections. Over HTTP/2 a peer is asked for a sign of life every `keepalive`, and disconnected if it gives none within
    /// `answer`.
    pub fn builder(self, keepalive: Option<Duration>, answer: Duration) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        // A client may close its half of the connection once its request is sent.
        builder.http1().max_buf_size(HEAD_BYTES).half_close(true);
        let mut http2 = builder.http2();
        http2.max_concurrent_streams(STREAMS).max_header_list_size(HEADER_LIST_BYTES).max_send_buf_size(SEND_BYTES);
        http2.initial_connection_window_size(WINDOW_BYTES).initial_stream_window_size(WINDOW_BYTES);
        http2.timer(TokioTimer::new()).keep_alive_interval(keepalive).keep_alive_timeout(answer);
        match self {
            Protocols::Http1 => builder.http1_only(),
            Protocols::Http1And2 => builder,
        }
    }
}

/// The streams of HTTP/2 of all connections: `limits.requests`.
#[derive(Debug)]
pub struct Streams {
    open: AtomicUsize,
    max: AtomicUsize,
}

impl Streams {
    /// At most `max` streams.
    pub fn new(max: usize) -> Arc<Streams> {
        Arc::new(Streams { open: AtomicUsize::new(0), max: AtomicUsize::new(max) })
    }

    /// Replaces the maximum.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Counts a stream until it is dropped; `None` if there are too many.
    pub fn open(self: &Arc<Streams>) -> Option<OpenStream> {
        let stream = OpenStream(Arc::clone(self));
        (self.open.fetch_add(1, Ordering::Relaxed) < self.max.load(Ordering::Relaxed)).then_some(stream)
    }
}

/// A stream that is counted.
pub struct OpenStream(Arc<Streams>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
