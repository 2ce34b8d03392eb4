//! Accepting connections, serving them, and letting them go.

use std::future::{Future, Ready};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, Version};
use futures_util::future::{Either, OptionFuture};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service;

use super::listener::{Accepted, Listener, Peer, Stream};
use super::timeouts::{Activity, AnswerBody, Overdue, Timeouts, Watched};
use crate::runtime::LogThrottle;

/// How much of a request's head is read at most, in bytes. Also the most that is read at a time.
const HEAD_BYTES: usize = 64 << 10;
/// How long to wait before accepting again when the system has no file handle left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often a condition that peers cause is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How many connections there may be at once, and how long each may take. It can change while they are open.
pub struct ConnectionLimits {
    timeouts: ArcSwap<Timeouts>,
    most: AtomicUsize,
    open: AtomicUsize,
    /// Throttles the log lines of failed TLS handshakes.
    handshake_log: LogThrottle,
    /// Throttles the log line that the limit is reached.
    limit_log: LogThrottle,
}

impl ConnectionLimits {
    /// For `most` connections.
    pub fn new(timeouts: Timeouts, most: usize) -> Arc<ConnectionLimits> {
        let timeouts = ArcSwap::from_pointee(timeouts);
        let (most, open) = (AtomicUsize::new(most), AtomicUsize::new(0));
        let (handshake_log, limit_log) = (LogThrottle::new(LOG_INTERVAL), LogThrottle::new(LOG_INTERVAL));
        Arc::new(ConnectionLimits { timeouts, most, open, handshake_log, limit_log })
    }

    /// From now on. Connections that are open stay so, and learn of new time-outs when they are next looked at.
    pub fn change(&self, timeouts: Timeouts, most: usize) {
        self.timeouts.store(Arc::new(timeouts));
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn is_reached(&self) -> bool {
        self.open() >= self.most.load(Ordering::Relaxed)
    }
}

/// A connection that is counted.
struct Counted(Arc<ConnectionLimits>);

impl Counted {
    fn new(limits: &Arc<ConnectionLimits>) -> Counted {
        limits.open.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(limits))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers some calls before a router is asked.
pub trait FastPath: Clone + Send + Sync + 'static {
    /// The answer, or the request back for the router.
    fn take(
        &self,
        peer: Peer,
        request: Request,
    ) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request>;
}

/// No shortcut.
impl FastPath for () {
    fn take(
        &self,
        _: Peer,
        request: Request,
    ) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request> {
        Either::<Ready<Response<Body>>, _>::Right(request)
    }
}

/// Serves connections until `stopping` says true, then lets the requests that came in be answered. Dropping the
/// future cuts off what is left. While there are too many connections, more have to wait until they are accepted.
pub async fn serve(
    listener: Listener,
    (fast_path, router): (impl FastPath, Router),
    limits: Arc<ConnectionLimits>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let theirs = stopping.clone();
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
                    let routes = (fast_path.clone(), router.clone());
                    connections.spawn(agree_and_serve(accepted, routes, Counted::new(&limits), theirs.clone()));
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Waits until `stopping` says true, or whoever could say so is gone.
async fn stop(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// The peer has already gone again; the next one is not concerned.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn agree_and_serve(
    (accepted, peer): (Accepted, Peer),
    routes: (impl FastPath, Router),
    counted: Counted,
    mut stopping: watch::Receiver<bool>,
) {
    let limit = counted.0.timeouts.load().header;
    let agreed = tokio::select! {
        agreed = tokio::time::timeout(limit, accepted.agree()) => agreed,
        () = stop(&mut stopping) => return,
    };
    match agreed {
        Ok(Ok(stream)) => connection((stream, peer), routes, &counted.0, Some(stopping)).await,
        Ok(Err(error)) => {
            if let Some(suppressed) = counted.0.handshake_log.allow() {
                tracing::warn!(%error, ?peer, suppressed, "TLS handshake failed");
            }
        }
        Err(_) => {
            if let Some(suppressed) = counted.0.handshake_log.allow() {
                tracing::warn!(?peer, suppressed, "TLS handshake timed out (limits.header_timeout)");
            }
        }
    }
}

async fn connection(
    (stream, peer): (Stream, Peer),
    (fast_path, router): (impl FastPath, Router),
    limits: &ConnectionLimits,
    stopping: Option<watch::Receiver<bool>>,
) {
    let activity = Activity::new();
    let stream = TokioIo::new(Watched::new(stream, activity.clone()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let guard = activity.request();
        let is_http2 = request.version() == Version::HTTP_2;
        if is_http2 {
            activity.speaks_http2();
        }
        let answer = match fast_path.take(peer, request.map(Body::new)) {
            Either::Left(answer) => Either::Left(answer.map(Ok)),
            Either::Right(mut request) => {
                request.extensions_mut().insert(peer);
                Either::Right(router.clone().call(request))
            }
        };
        async move { answer.await.map(|response| response.map(|body| AnswerBody::new(body, guard, is_http2))) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(stream, service);
    tokio::pin!(connection);
    // It is polled when it is due, not whenever bytes come and go.
    let mut asides = FuturesUnordered::from_iter([aside(stopping, limits.timeouts.load().shortest())]);
    let mut is_closing = false;
    loop {
        let (stopping, look) = tokio::select! {
            biased;
            // Errors are the peer's: it has gone, or does not speak HTTP.
            _ = connection.as_mut() => return,
            Some((aside, stopping)) = asides.next() => match (aside, activity.overdue(&limits.timeouts.load())) {
                (Aside::Look, Ok(next)) => (stopping, next),
                (Aside::Look, Err(Overdue::Slow)) => return,
                (Aside::Look, Err(Overdue::Idle)) if is_closing => return,
                (Aside::Look, Err(Overdue::Idle)) | (Aside::Stop, _) => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    (None, limits.timeouts.load().shortest())
                }
            },
        };
        asides.push(aside(stopping, look));
    }
}

/// What a connection has to see to besides its bytes.
enum Aside {
    /// The server is shutting down.
    Stop,
    /// It is time to look whether the peer is too slow.
    Look,
}

/// Waits for the next of them, and gives back what it listened to. A connection that is closing already listens to
/// nothing.
async fn aside(mut stopping: Option<watch::Receiver<bool>>, look: Duration) -> (Aside, Option<watch::Receiver<bool>>) {
    let stopped = OptionFuture::from(stopping.as_mut().map(stop));
    let aside = tokio::select! {
        Some(()) = stopped => Aside::Stop,
        () = tokio::time::sleep(look) => Aside::Look,
    };
    (aside, stopping)
}
