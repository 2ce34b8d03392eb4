//! The calls that come thousands of times a second, answered without a router: `POST /v1/events` and `POST /v1/batch`.
//!
//! A router looks the path up, and boxes and moves the request once per layer. Everything else, and these calls with a
//! query, goes through it, to the same handlers.

use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, Response};
use axum::response::IntoResponse;
use futures_util::future::Either;

use super::{Ingest, Keys, native};
use crate::http::Shortcut;

/// The shortcut of the public port.
#[derive(Clone)]
pub struct IngestShortcut {
    ingest: Arc<Ingest>,
    keys: Option<Keys>,
}

enum Call {
    Event,
    Batch,
}

impl IngestShortcut {
    /// With keys, each call needs one.
    pub fn new(ingest: Arc<Ingest>, keys: Option<Keys>) -> IngestShortcut {
        IngestShortcut { ingest, keys }
    }
}

impl Shortcut for IngestShortcut {
    fn take(&self, request: Request) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request> {
        let uri = request.uri();
        let call = match uri.path() {
            "/v1/events" => Call::Event,
            "/v1/batch" => Call::Batch,
            _ => return Either::Right(request),
        };
        if request.method() != Method::POST || uri.query().is_some() {
            return Either::Right(request);
        }
        let refused = self.keys.as_ref().and_then(|keys| keys.check(request.headers()).err());
        let ingest = State(Arc::clone(&self.ingest));
        Either::Left(async move {
            match (refused, call) {
                (Some(problem), _) => problem.into_response(),
                (None, Call::Event) => native::event(ingest, request).await,
                (None, Call::Batch) => native::batch(ingest, request).await,
            }
        })
    }
}
