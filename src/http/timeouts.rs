//! What a connection is doing, so that one that does nothing can be told from one that is slow on purpose.
//!
//! The library's own timer for request heads also runs on an idle connection, so it is not used: a client may keep
//! a connection open for longer than it may take to send a head.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How long a peer may take.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the head of a request, from its first byte.
    pub header: Duration,
    /// For taking any part of an answer.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
}

impl Timeouts {
    /// How often a connection has to be looked at.
    pub fn shortest(&self) -> Duration {
        self.header.min(self.body).min(self.idle)
    }
}

/// What a connection is doing. Written by its reader, writer and requests, read by its watcher; a moment's
/// disagreement between the fields only makes a time-out late by one look.
pub struct Activity {
    opened: Instant,
    /// Requests whose answer is not sent yet.
    requests: AtomicU32,
    /// The first bytes of a request have come, and not yet the whole head. HTTP/1 only.
    in_head: AtomicBool,
    /// A request has come by HTTP/2, so all of them do.
    is_http2: AtomicBool,
    /// The peer does not take what is written.
    is_blocked: AtomicBool,
    /// When the limit that is in force began to count, in ms since `opened`.
    since_ms: AtomicU64,
    /// HTTP/2 only, where each answer has a flow of its own that the socket knows nothing of: since when the peer
    /// has not taken more of each answer that is ready. Held for one look-up.
    untaken: Mutex<HashMap<u32, Instant>>,
    turns: AtomicU32,
}

/// Why a connection is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// Nothing is going on: it is closed in good order.
    Idle,
    /// The peer is too slow.
    Slow,
}

impl Activity {
    /// A connection that was just opened.
    pub fn new() -> Arc<Activity> {
        Arc::new(Activity {
            opened: Instant::now(),
            requests: AtomicU32::new(0),
            in_head: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_blocked: AtomicBool::new(false),
            since_ms: AtomicU64::new(0),
            untaken: Mutex::default(),
            turns: AtomicU32::new(0),
        })
    }

    fn touch(&self) {
        self.since_ms.store(self.opened.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Whether the connection is overdue now, or when to look again.
    pub fn overdue(&self, timeouts: &Timeouts) -> Result<Duration, Overdue> {
        let since = Duration::from_millis(self.since_ms.load(Ordering::Relaxed));
        let elapsed = self.opened.elapsed().saturating_sub(since);
        let (limit, kind) = if self.is_blocked.load(Ordering::Relaxed) {
            (timeouts.body, Overdue::Slow)
        } else if self.requests.load(Ordering::Relaxed) > 0 {
            let untaken = self.untaken.lock().unwrap_or_else(PoisonError::into_inner);
            let longest = untaken.values().map(Instant::elapsed).max().unwrap_or_default();
            return if longest > timeouts.body { Err(Overdue::Slow) } else { Ok(timeouts.shortest()) };
        } else if self.in_head.load(Ordering::Relaxed) {
            (timeouts.header, Overdue::Slow)
        } else {
            (timeouts.idle, Overdue::Idle)
        };
        // What the connection does may change to something with the shortest limit at any moment.
        match limit.checked_sub(elapsed) {
            Some(left) if !left.is_zero() => Ok(left.min(timeouts.shortest())),
            _ => Err(kind),
        }
    }

    fn received(&self) {
        let is_first = self.requests.load(Ordering::Relaxed) == 0 && !self.in_head.load(Ordering::Relaxed);
        // On HTTP/2, bytes that open no request do not make a connection less idle.
        if is_first && !self.is_http2.load(Ordering::Relaxed) {
            self.touch();
            self.in_head.store(true, Ordering::Relaxed);
        }
    }

    /// A request came in; it is over when the guard is dropped.
    pub fn request(self: &Arc<Activity>) -> RequestGuard {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_head.store(false, Ordering::Relaxed);
        RequestGuard(Arc::clone(self))
    }

    /// The peer speaks HTTP/2.
    pub fn speaks_http2(&self) {
        self.is_http2.store(true, Ordering::Relaxed);
    }
}

/// A request whose answer is not sent yet.
pub struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.touch();
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// It is the peer's turn to take more of an answer. HTTP/2 only.
struct PeersTurn {
    activity: Arc<Activity>,
    id: u32,
}

impl PeersTurn {
    fn new(activity: &Arc<Activity>) -> PeersTurn {
        let id = activity.turns.fetch_add(1, Ordering::Relaxed);
        activity.untaken.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
        PeersTurn { activity: Arc::clone(activity), id }
    }
}

impl Drop for PeersTurn {
    fn drop(&mut self) {
        self.activity.untaken.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// A piece of an answer that the connection has, and the peer not yet. The request is not over before that.
struct Untaken {
    data: Bytes,
    _turn: PeersTurn,
    _request: RequestGuard,
}

impl AsRef<[u8]> for Untaken {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// The body of an answer, which ends the request when it is sent.
pub struct AnswerBody {
    body: Body,
    request: RequestGuard,
    is_http2: bool,
    /// On HTTP/2, while the connection waits for the peer before it asks for more.
    turn: Option<PeersTurn>,
}

impl AnswerBody {
    /// Ties the end of the request to the end of its answer.
    pub fn new(body: Body, request: RequestGuard, is_http2: bool) -> AnswerBody {
        let turn = is_http2.then(|| PeersTurn::new(&request.0));
        AnswerBody { body, request, is_http2, turn }
    }
}

impl HttpBody for AnswerBody {
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
        self.turn = poll.is_ready().then(|| PeersTurn::new(&activity));
        poll.map_ok(|frame| {
            frame.map_data(|data| {
                let (turn, request) = (PeersTurn::new(&activity), activity.request());
                Bytes::from_owner(Untaken { data, _turn: turn, _request: request })
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

/// A stream that tells what passes through it.
pub struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    /// Watches a stream.
    pub fn new(stream: S, activity: Arc<Activity>) -> Watched<S> {
        Watched { stream, activity }
    }

    fn wrote<T>(&self, poll: Poll<T>) -> Poll<T> {
        let is_blocked = poll.is_pending();
        if is_blocked != self.activity.is_blocked.load(Ordering::Relaxed) {
            self.activity.touch();
            self.activity.is_blocked.store(is_blocked, Ordering::Relaxed);
        }
        poll
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.received();
        }
        poll
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(poll)
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
        self.wrote(poll)
    }
}
