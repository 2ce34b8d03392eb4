//! Serves the two most frequent calls without a router: `POST /v1/events` and `POST /v1/batch`.
//!
//! A router looks up the path, and boxes and moves the request once per layer. All other calls, and these two with a
//! query, go through the router; it calls the same handlers.

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

/// The fast path of the public addresses.
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
    /// Serves calls that `guard` authorizes.
    pub fn new(ingest: Arc<Ingest>, guard: Arc<Guard>) -> IngestFastPath {
        IngestFastPath { ingest, guard }
    }
}

impl FastPath for IngestFastPath {
    fn try_serve(
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
                (Err(error), _) => error.into_response(),
                (Ok(client), Call::Event) => native::event(ingest, client, request).await,
                (Ok(client), Call::Batch) => native::batch(ingest, client, request).await,
            }
        })
    }
}
