//! Long answers, made piece by piece as the reader takes them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::stream;

use super::Audit;
use crate::http::{Problem, json_response};

/// How much of an answer is made at a time, give or take an event.
pub const PIECE_BYTES: usize = 64 << 10;

/// What an answer is made of.
pub trait Pieces: Send + 'static {
    /// Makes the next piece, and says whether there is more behind it. Reads the database.
    ///
    /// # Errors
    /// When that fails: the answer is broken off then, so that nobody takes it for the whole.
    fn make(&mut self, out: &mut Vec<u8>) -> Result<bool, Problem>;
}

/// An answer whose beginning is made.
pub struct Begun<P> {
    first: Bytes,
    /// What makes the rest, if there is any.
    rest: Option<P>,
}

/// Makes the beginning of an answer, as long as it can still be refused.
///
/// # Errors
/// When the database cannot be read, or there is no memory for the answer.
pub fn begin<P: Pieces>(audit: &Audit, mut pieces: P) -> Result<Begun<P>, Problem> {
    let mut first = Vec::with_capacity(PIECE_BYTES);
    let is_more = pieces.make(&mut first)?;
    let mut reserved = audit.inflight.reserve();
    reserved.grow(first.len())?;
    Ok(Begun { first: reserved.hold(first), rest: is_more.then_some(pieces) })
}

/// Answers; the next piece is made when the reader has taken the last.
pub fn respond<P: Pieces>(audit: Arc<Audit>, begun: Begun<P>) -> Response<Body> {
    let Begun { first, rest: Some(pieces) } = begun else { return json_response(StatusCode::OK, begun.first) };
    let rest = stream::try_unfold((Some(first), Some(pieces)), move |(first, pieces)| {
        let audit = Arc::clone(&audit);
        async move {
            if let Some(first) = first {
                return Ok(Some((first, (None, pieces))));
            }
            let Some(mut pieces) = pieces else { return Ok(None) };
            let made = audit.read(move |audit, _| {
                let mut piece = Vec::with_capacity(PIECE_BYTES);
                let is_more = pieces.make(&mut piece)?;
                // The head of the answer is gone: it is too late to refuse. The memory is given back when it is sent.
                Ok((audit.inflight.reserve().hold(piece), (None, is_more.then_some(pieces))))
            });
            made.await.map(Some).map_err(|problem| std::io::Error::other(problem.message))
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
