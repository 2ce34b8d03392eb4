//! The time-outs of connections: the activity of a connection, recorded by its stream and its responses, and which
//! time-out applies to it.
//!
//! hyper's header read time-out also runs on an idle connection, so it is not used: a client may keep a connection open
//! for longer than it may take to send the head of a request. See `docs/adr/0036-connection-time-outs-of-our-own.md`.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::protocols::OpenStream;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The time-outs of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the head of a request, from its first byte; also for a TLS handshake. `limits.header_timeout`.
    pub header: Duration,
    /// For the peer to read any more of a response. `limits.body_timeout`.
    pub body: Duration,
    /// Between requests. `limits.idle_timeout`.
    pub idle: Duration,
    /// For the connection, which is then closed in order; `None` if it may stay. `limits.connection_age`.
    pub age: Option<Duration>,
    /// Between signs of life that a peer over HTTP/2 is asked for. `limits.keepalive_interval`.
    pub keepalive: Option<Duration>,
}

impl Timeouts {
    /// The shortest of them, at which the activity of a connection has to be checked.
    pub fn shortest(&self) -> Duration {
        self.header.min(self.body).min(self.idle)
    }
}

/// The activity of one connection. Written by its stream and its requests, read by its task. If the fields disagree for
/// a moment, a time-out is detected at most one check too late.
pub struct Activity {
    opened: Instant,
    /// Requests whose response is not sent yet.
    requests: AtomicU32,
    /// Part of the head of a request was received. HTTP/1 only.
    in_head: AtomicBool,
    /// A request was received over HTTP/2, so the whole connection is HTTP/2.
    is_http2: AtomicBool,
    /// The socket does not accept writes, because the peer does not read.
    is_blocked: AtomicBool,
    /// When the current time-out started, in ms since `opened`.
    since_ms: AtomicU64,
    /// HTTP/2 only, where each response has flow control of its own that the socket does not show: since when the peer
    /// has not read more of each response that is ready. Locked for one lookup.
    unread_since: Mutex<HashMap<u32, Instant>>,
    next_wait: AtomicU32,
}

/// After how many reads that found data a connection of HTTP/2 lets others run. A read holds hundreds of small frames, such as
/// PING and SETTINGS, each of which is answered.
const MAX_READS_IN_TURN: u32 = 2;

/// Why a connection has timed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimedOut {
    /// No request is in progress: the connection is closed gracefully.
    Idle,
    /// The peer is too slow: the connection is aborted.
    Slow,
}

impl Activity {
    /// The activity of a new connection.
    pub fn new() -> Arc<Activity> {
        Arc::new(Activity {
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            in_head: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            since_ms: AtomicU64::new(0),
            unread_since: Mutex::default(),
            next_wait: AtomicU32::new(0),
        })
    }

    /// Whether the connection has been open for longer than it may be.
    pub fn is_old(&self, timeouts: &Timeouts) -> bool {
        timeouts.age.is_some_and(|age| self.opened.elapsed() >= age)
    }

    fn restart_timeout(&self) {
        self.since_ms.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// The time until the next check.
    ///
    /// # Errors
    /// When the connection has timed out.
    pub fn check(&self, timeouts: &Timeouts) -> Result<Duration, TimedOut> {
        let since = Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        let elapsed = self.opened.elapsed().saturating_sub(since);
        let (limit, timed_out) = if self.is_blocked.load(Ordering::Relaxed) {
            (timeouts.body, TimedOut::Slow)
        } else if self.requests.load(Ordering::Relaxed) > 0 {
            let unread_since = self.unread_since.lock().unwrap_or_else(PoisonError::into_inner);
            let longest = unread_since.values().map(Instant::elapsed).max().unwrap_or_default();
            return if longest > timeouts.body { Err(TimedOut::Slow) } else { Ok(timeouts.shortest()) };
        } else if self.in_head.load(Ordering::Relaxed) {
            (timeouts.header, TimedOut::Slow)
        } else {
            (timeouts.idle, TimedOut::Idle)
        };
        // The activity may change at any moment to one with the shortest time-out.
        match limit.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => Ok(left.min(timeouts.shortest())),
            _ => Err(timed_out),
        }
    }

    fn on_read(&self) {
        let is_first = self.requests.load(Ordering::Relaxed) == 0 && !self.in_head.load(Ordering::Relaxed);
        // On HTTP/2, bytes that start no request do not end the idle time.
        if is_first && !self.is_http2.load(Ordering::Relaxed) {
            self.restart_timeout();
            self.in_head.store(true, Ordering::Relaxed);
        }
    }

    /// Records a new request. It ends when the guard is dropped.
    pub fn request(self: &Arc<Activity>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// Records that the connection is HTTP/2.
    pub fn set_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }
}

/// A request whose response is not sent yet.
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.restart_timeout();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Records in [`Activity`] that the peer has to read more of a response. HTTP/2 only.
struct PeerWait {
    activity: Arc<Activity>,
    id: u32,
}

impl PeerWait {
    fn new(activity: &Arc<Activity>) -> PeerWait {
        let id = activity.next_wait.fetch_add(1, Ordering::Relaxed);
        activity.unread_since.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
        PeerWait { activity: Arc::clone(activity), id }
    }
}

impl Drop for PeerWait {
    fn drop(&mut self) {
        self.activity.unread_since.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A chunk of a response that was handed to the connection and is not sent yet. The request does not end before it is
/// sent.
struct UnsentChunk {
    data: Bytes,
    _wait: PeerWait,
    _request: RequestGuard,
}

impl AsRef<[u8]> for UnsentChunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// The body of a response. The request ends when the body is sent.
pub struct TrackedBody {
    body: Body,
    request: RequestGuard,
    is_http2: bool,
    /// HTTP/2 only: while the connection waits for the peer before it polls for more.
    wait: Option<PeerWait>,
    /// HTTP/2 only: the stream, unless it was refused.
    _stream: Option<OpenStream>,
}

impl TrackedBody {
    /// Wraps `body`, so that `request` ends when the body is sent. `stream` is the one of
    /// HTTP/2, unless it was refused.
    pub fn new(body: Body, request: RequestGuard, is_http2: bool, stream: Option<OpenStream>) -> TrackedBody {
        let wait = is_http2.then(|| PeerWait::new(&request.0));
        TrackedBody { body, request, is_http2, wait, _stream: stream }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(context);
        if !self.is_http2 {
            return poll;
        }
        let activity = Arc::clone(&self.request.0);
        self.wait = poll.is_ready().then(|| PeerWait::new(&activity));
        poll.map_ok(|frame| {
            frame.map_data(|data| {
                let (wait, request) = (PeerWait::new(&activity), activity.request());
                Bytes::from_owner(UnsentChunk { data, _wait: wait, _request: request })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that records its reads and writes in an [`Activity`].
pub struct TrackedStream<S> {
    stream: S,
    activity: Arc<Activity>,
    /// The number of reads since the task of the connection yielded.
    reads_in_turn: u32,
}

impl<S> TrackedStream<S> {
    /// Wraps a stream.
    pub fn new(stream: S, activity: Arc<Activity>) -> TrackedStream<S> {
        TrackedStream { stream, activity, reads_in_turn: 0 }
    }

    fn on_write<T>(&self, poll: Poll<T>) -> Poll<T> {
        let is_blocked = poll.is_pending();
        if is_blocked != self.activity.is_blocked.load(Ordering::Relaxed) {
            self.activity.restart_timeout();
            self.activity.is_blocked.store(is_blocked, Ordering::Relaxed);
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TrackedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reads_in_turn >= MAX_READS_IN_TURN && self.activity.is_http2.load(Ordering::Relaxed) {
            self.reads_in_turn = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.reads_in_turn = if poll.is_ready() { self.reads_in_turn + 1 } else { 0 };
        if buffer.filled().len() > before {
            self.activity.on_read();
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TrackedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.on_write(poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.on_write(poll)
    }
}
