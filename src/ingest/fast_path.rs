//! The calls that come thousands of times a second, answered without a router: `POST /v1/events` and `POST /v1/batch`.
//!
//! A router looks the path up, and boxes and moves the request once per layer. Everything else, and these calls with a
//! query, goes through it, to the same handlers.

use std::future::Future;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, Response};
use axum::response::IntoResponse;
use futures_util::future::Either;

use super::native;
use super::stage::Ingest;
use crate::auth::{Guard, Scopes};
use crate::http::{FastPath, Peer};

/// The shortcut of the public port.
#[derive(Clone)]
pub struct IngestFastPath {
    ingest: Arc<Ingest>,
    guard: Arc<Guard>,
}

enum Call {
    Event,
    Batch,
}

impl IngestFastPath {
    /// For calls that `guard` lets in.
    pub fn new(ingest: Arc<Ingest>, guard: Arc<Guard>) -> IngestFastPath {
        IngestFastPath { ingest, guard }
    }
}

impl FastPath for IngestFastPath {
    fn take(
        &self,
        peer: Peer,
        request: Request,
    ) -> Either<impl Future<Output = Response<Body>> + Send + 'static, Request> {
        let uri = request.uri();
        let call = match uri.path() {
            "/v1/events" => Call::Event,
            "/v1/batch" => Call::Batch,
            _ => return Either::Right(request),
        };
        if request.method() != Method::POST || uri.query().is_some() {
            return Either::Right(request);
        }
        let client = self.guard.check(request.headers(), peer, Scopes::INGEST);
        let ingest = Arc::clone(&self.ingest);
        Either::Left(async move {
            match (client, call) {
                (Err(problem), _) => problem.into_response(),
                (Ok(client), Call::Event) => native::event(ingest, client, request).await,
                (Ok(client), Call::Batch) => native::batch(ingest, client, request).await,
            }
        })
    }
}
