//! Accepting connections, serving them, and letting them go.

use std::future::{Future, Ready};
use std::io;
use std::time::Duration;

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_service::Service;

use super::activity::{Activity, AnswerBody, Overdue, Watched};

/// How much of a request's head is read at most, in bytes. Also the most that is read at a time.
const HEAD_BYTES: usize = 64 << 10;
/// How long to wait before accepting again when the system has no file handle left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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

/// Answers some calls before a router is asked.
pub trait Shortcut: Clone + Send + Sync + 'static {
    /// The answer, or the request back for the router.
    fn take(&self, request: Request) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request>;
}

/// No shortcut.
impl Shortcut for () {
    fn take(&self, request: Request) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request> {
        Either::<Ready<Response<Body>>, _>::Right(request)
    }
}

/// Serves connections until `stopping` says true, then lets the requests that came in be answered. Dropping the
/// future cuts off what is left.
pub async fn serve(
    listener: TcpListener,
    (shortcut, router): (impl Shortcut, Router),
    timeouts: Timeouts,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let theirs = stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = stop(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let routes = (shortcut.clone(), router.clone());
                    connections.spawn(connection(stream, routes, timeouts, Some(theirs.clone())));
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

async fn connection(
    stream: TcpStream,
    (shortcut, router): (impl Shortcut, Router),
    timeouts: Timeouts,
    stopping: Option<watch::Receiver<bool>>,
) {
    // Answers are small and complete: waiting for more to send only makes them late.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let stream = TokioIo::new(Watched::new(stream, activity.clone()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let guard = activity.request();
        let is_http2 = request.version() == Version::HTTP_2;
        if is_http2 {
            activity.speaks_http2();
        }
        let answer = match shortcut.take(request.map(Body::new)) {
            Either::Left(answer) => Either::Left(answer.map(Ok)),
            Either::Right(request) => Either::Right(router.clone().call(request)),
        };
        async move { answer.await.map(|response| response.map(|body| AnswerBody::new(body, guard, is_http2))) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(HEAD_BYTES).pipeline_flush(true);
    let connection = builder.serve_connection(stream, service);
    tokio::pin!(connection);
    // It is polled when it is due, not whenever bytes come and go.
    let mut asides = FuturesUnordered::from_iter([aside(stopping, timeouts.shortest())]);
    let mut is_closing = false;
    loop {
        let (stopping, look) = tokio::select! {
            biased;
            // Errors are the peer's: it has gone, or does not speak HTTP.
            _ = connection.as_mut() => return,
            Some((aside, stopping)) = asides.next() => match (aside, activity.overdue(&timeouts)) {
                (Aside::Look, Ok(next)) => (stopping, next),
                (Aside::Look, Err(Overdue::Slow)) => return,
                (Aside::Look, Err(Overdue::Idle)) if is_closing => return,
                (Aside::Look, Err(Overdue::Idle)) | (Aside::Stop, _) => {
                    is_closing = true;
                    connection.as_mut().graceful_shutdown();
                    (None, timeouts.shortest())
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
