//! Accepts connections, serves them, and shuts them down.
//!
//! [`ConnectionLimits`] owns the limits and the number of open connections. Each connection is a task that owns its
//! stream and its [`Activity`].

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, Version};
use axum::response::IntoResponse;
use futures_util::future::{Either, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service;

use super::front::Front;
use super::listener::{Accepted, Listener, Peer, Stream};
use super::protocols::{Protocols, Streams};
use super::response::ApiError;
use super::timeouts::{Activity, TimedOut, Timeouts, TrackedBody, TrackedStream};
use crate::runtime::LogThrottle;

/// How long to wait before accepting again after an error, such as no free file descriptor, or at the connection limit.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The shortest time between two log lines about the same condition that peers cause.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The limit of open connections and their time-outs. Both can change while connections are open.
pub struct ConnectionLimits {
    timeouts: ArcSwap<Timeouts>,
    max_open: AtomicUsize,
    open: AtomicUsize,
    streams: Arc<Streams>,
    protocols: Protocols,
    /// Throttles the log lines of failed TLS handshakes.
    handshake_log: LogThrottle,
    /// Throttles the log line that the limit is reached.
    limit_log: LogThrottle,
}

impl ConnectionLimits {
    /// Limits for at most `max_open` connections, with at most `max_streams` streams of HTTP/2 together.
    pub fn new(
        timeouts: Timeouts,
        (max_open, max_streams): (usize, usize),
        protocols: Protocols,
    ) -> Arc<ConnectionLimits> {
        let streams = Streams::new(max_streams);
        let timeouts = ArcSwap::from_pointee(timeouts);
        let (max_open, open) = (AtomicUsize::new(max_open), AtomicUsize::new(0));
        let (handshake_log, limit_log) = (LogThrottle::new(LOG_INTERVAL), LogThrottle::new(LOG_INTERVAL));
        Arc::new(ConnectionLimits { timeouts, max_open, open, streams, protocols, handshake_log, limit_log })
    }

    /// Replaces the limits. Open connections stay open; new time-outs apply to them at the next check of their
    /// activity.
    pub fn set(&self, timeouts: Timeouts, (max_open, max_streams): (usize, usize)) {
        self.streams.set_max(max_streams);
        self.timeouts.store(Arc::new(timeouts));
        self.max_open.store(max_open, Ordering::Relaxed);
    }

    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn is_reached(&self) -> bool {
        self.open() >= self.max_open.load(Ordering::Relaxed)
    }
}

/// Counts an open connection until it is dropped.
struct OpenConnection(Arc<ConnectionLimits>);

impl OpenConnection {
    fn new(limits: &Arc<ConnectionLimits>) -> OpenConnection {
        limits.open.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(limits))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves some requests without the router.
pub trait FastPath: Clone + Send + Sync + 'static {
    /// Returns the future response, or the request for the router.
    fn try_serve(
        &self,
        peer: Peer,
        request: Request,
    ) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request>;
}

/// No fast path: the router serves every request.
impl FastPath for () {
    fn try_serve(
        &self,
        _: Peer,
        request: Request,
    ) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request> {
        Either::<Ready<Response<Body>>, _>::Right(request)
    }
}

/// Serves connections until `stopping` becomes true, then lets requests in progress finish. Dropping the future aborts
/// the connections that are still open. At the connection limit, new connections wait to be accepted.
pub async fn serve(
    listener: Listener,
    front: Front,
    (fast_path, router): (impl FastPath, Router),
    limits: Arc<ConnectionLimits>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let front = Arc::new(front);
    let task_stop = stopping.clone();
    loop {
        let is_full = limits.is_reached();
        if is_full && limits.limit_log.allow().is_some() {
            tracing::warn!(open = limits.open(), "connection limit reached (limits.connections): new connections wait");
        }
        tokio::select! {
            biased;
            () = stop(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            () = tokio::time::sleep(ACCEPT_PAUSE), if is_full => {}
            accepted = listener.accept(), if !is_full => match accepted {
                Ok(accepted) => {
                    let routes = (Arc::clone(&front), fast_path.clone(), router.clone());
                    let open_connection = OpenConnection::new(&limits);
                    connections.spawn(handshake_and_serve(accepted, routes, open_connection, task_stop.clone()));
                }
                Err(error) if is_peer_error(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed; retrying");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until `stopping` becomes true or its sender is dropped.
async fn stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Whether the error concerns only a connection that its peer has already closed.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn handshake_and_serve(
    (accepted, peer): (Accepted, Peer),
    routes: (Arc<Front>, impl FastPath, Router),
    open_connection: OpenConnection,
    mut stopping: watch::Receiver<bool>,
) {
    let limit = open_connection.0.timeouts.load().header;
    let handshake = tokio::select! {
        handshake = tokio::time::timeout(limit, accepted.handshake()) => handshake,
        () = stop(&mut stopping) => return,
    };
    match handshake {
        Ok(Ok(stream)) => serve_connection((stream, peer), routes, &open_connection.0, Some(stopping)).await,
        Ok(Err(error)) => {
            if let Some(suppressed) = open_connection.0.handshake_log.allow() {
                tracing::warn!(%error, ?peer, suppressed, "TLS handshake failed");
            }
        }
        Err(_) => {
            if let Some(suppressed) = open_connection.0.handshake_log.allow() {
                tracing::warn!(?peer, suppressed, "TLS handshake timed out (limits.header_timeout)");
            }
        }
    }
}

async fn serve_connection(
    (stream, peer): (Stream, Peer),
    (front, fast_path, router): (Arc<Front>, impl FastPath, Router),
    limits: &ConnectionLimits,
    stopping: Option<watch::Receiver<bool>>,
) {
    let activity = Activity::new();
    let stream = TokioIo::new(TrackedStream::new(stream, activity.clone()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let guard = activity.request();
        let is_http2 = request.version() == Version::HTTP_2;
        let mut stream = None;
        if is_http2 {
            activity.set_http2();
            stream = limits.streams.open();
        }
        let mut request = request.map(Body::new);
        // The route is looked up for a refusal only.
        let (front, method, uri) = (Arc::clone(&front), request.method().clone(), request.uri().clone());
        let admitted = if is_http2 && stream.is_none() {
            Err(ApiError::unavailable("too many requests over HTTP/2 at once (limits.requests): try again later"))
        } else {
            front.admit(&mut request)
        };
        let response = match admitted {
            Err(error) => Either::Left(ready(Ok(error.into_response()))),
            Ok(()) => Either::Right(match fast_path.try_serve(peer, request) {
                Either::Left(response) => Either::Left(response.map(Ok)),
                Either::Right(mut request) => {
                    request.extensions_mut().insert(peer);
                    Either::Right(router.clone().call(request))
                }
            }),
        };
        async move {
            let response: Result<Response<Body>, Infallible> = response.await;
            response.map(|response| {
                front.observe(method, &uri, &response);
                response.map(|body| TrackedBody::new(body, guard, is_http2, stream))
            })
        }
    });
    let timeouts = limits.timeouts.load();
    let builder = limits.protocols.builder(timeouts.keepalive, timeouts.header);
    let connection = builder.serve_connection(stream, service);
    tokio::pin!(connection);
    // The connection task checks its activity when a time-out may be due, not at every read and write.
    let mut wake_ups = FuturesUnordered::from_iter([next_wake_up(stopping, limits.timeouts.load().shortest())]);
    let mut is_closing = false;
    loop {
        let (stopping, timer) = tokio::select! {
            biased;
            // Errors are caused by the peer: it disconnected, or it does not use HTTP.
            _ = connection.as_mut() => return,
            Some((wake_up, stopping)) = wake_ups.next() => {
                let timeouts = limits.timeouts.load();
                match (wake_up, activity.check(&timeouts)) {
                    (WakeUp::Timer, Ok(next)) if is_closing || !activity.is_old(&timeouts) => (stopping, next),
                    (WakeUp::Timer, Err(TimedOut::Slow)) => return,
                    (WakeUp::Timer, Err(TimedOut::Idle)) if is_closing => return,
                    (WakeUp::Timer, _) | (WakeUp::Stop, _) => {
                        is_closing = true;
                        connection.as_mut().graceful_shutdown();
                        (None, timeouts.shortest())
                    }
                }
            }
        };
        wake_ups.push(next_wake_up(stopping, timer));
    }
}

/// Why the task of a connection wakes up, besides its stream.
enum WakeUp {
    /// The server is shutting down.
    Stop,
    /// A time-out may be due.
    Timer,
}

/// Waits for the next wake-up and returns it with its receiver. A connection that is already closing waits for the
/// timer only.
async fn next_wake_up(
    mut stopping: Option<watch::Receiver<bool>>,
    timer: Duration,
) -> (WakeUp, Option<watch::Receiver<bool>>) {
    let stopped = OptionFuture::from(stopping.as_mut().map(stop));
    let wake_up = tokio::select! {
        Some(()) = stopped => WakeUp::Stop,
        () = tokio::time::sleep(timer) => WakeUp::Timer,
    };
    (wake_up, stopping)
}
