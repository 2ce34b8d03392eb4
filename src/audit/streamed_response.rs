//! Long answers, made piece by piece as the reader takes them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::stream;

use super::context::Audit;
use crate::http::{ApiError, json_response};

/// How much of an answer is made at a time, give or take an event.
pub const CHUNK_BYTES: usize = 64 << 10;

/// What an answer is made of.
pub trait ChunkSource: Send + 'static {
    /// Makes the next piece, and says whether there is more behind it. Reads the database.
    ///
    /// # Errors
    /// When that fails: the answer is broken off then, so that nobody takes it for the whole.
    fn make(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError>;
}

/// An answer whose beginning is made.
pub struct Started<P> {
    first: Bytes,
    /// What makes the rest, if there is any.
    rest: Option<P>,
}

/// Makes the beginning of an answer, as long as it can still be refused.
///
/// # Errors
/// When the database cannot be read, or there is no memory for the answer.
pub fn begin<P: ChunkSource>(audit: &Audit, mut streamed_response: P) -> Result<Started<P>, ApiError> {
    let mut first = Vec::with_capacity(CHUNK_BYTES);
    let is_more = streamed_response.make(&mut first)?;
    let mut reserved = audit.memory_budget.reserve();
    reserved.grow(first.len())?;
    Ok(Started { first: reserved.hold(first), rest: is_more.then_some(streamed_response) })
}

/// Answers; the next piece is made when the reader has taken the last.
pub fn respond<P: ChunkSource>(audit: Arc<Audit>, started: Started<P>) -> Response<Body> {
    let Started { first, rest: Some(streamed_response) } = started else {
        return json_response(StatusCode::OK, started.first);
    };
    let rest = stream::try_unfold((Some(first), Some(streamed_response)), move |(first, streamed_response)| {
        let audit = Arc::clone(&audit);
        async move {
            if let Some(first) = first {
                return Ok(Some((first, (None, streamed_response))));
            }
            let Some(mut streamed_response) = streamed_response else { return Ok(None) };
            let made = audit.read(move |audit, _| {
                let mut piece = Vec::with_capacity(CHUNK_BYTES);
                let is_more = streamed_response.make(&mut piece)?;
                // The head of the answer is gone: it is too late to refuse. The memory is given back when it is sent.
                Ok((audit.memory_budget.reserve().hold(piece), (None, is_more.then_some(streamed_response))))
            });
            made.await.map(Some).map_err(|problem| std::io::Error::other(problem.message))
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
