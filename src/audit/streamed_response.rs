//! Long responses, streamed in chunks that are made when the client reads them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bytes::Bytes;
use futures_util::stream;

use super::context::Audit;
use crate::http::{ApiError, Read, json_response};

/// The size of a chunk, in bytes; a chunk may exceed it by one event.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Makes the chunks of a response.
pub trait ChunkSource: Send + 'static {
    /// Appends the next chunk to `out` and returns whether more chunks follow. Reads the database.
    ///
    /// # Errors
    /// When the database cannot be read. The response is then aborted, so that the client cannot mistake it for
    /// complete.
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError>;
}

/// A response whose first chunk is made.
pub struct Started<S> {
    first: Bytes,
    /// Makes the other chunks; `None` if there are none.
    rest: Option<S>,
}

/// Makes the first chunk, while the request can still be refused.
///
/// # Errors
/// When the database cannot be read, or the memory for responses is full.
pub fn begin<S: ChunkSource>(audit: &Audit, mut source: S) -> Result<Started<S>, ApiError> {
    let mut first = Vec::with_capacity(CHUNK_BYTES);
    let has_more = source.next_chunk(&mut first)?;
    Ok(Started { first: audit.readers.hold(first)?, rest: has_more.then_some(source) })
}

/// The response. Each chunk is made when the client has read the one before.
pub fn respond<S: ChunkSource>(audit: Arc<Audit>, started: Started<S>) -> Response<Body> {
    let Started { first, rest: Some(source) } = started else {
        return json_response(StatusCode::OK, started.first);
    };
    let rest = stream::try_unfold((Some(first), Some(source)), move |(first, source)| {
        let audit = Arc::clone(&audit);
        async move {
            if let Some(first) = first {
                return Ok::<_, std::io::Error>(Some((first, (None, source))));
            }
            let Some(mut source) = source else { return Ok(None) };
            let next = audit.read(Read::Scan, move |_, _| {
                let mut chunk = Vec::with_capacity(CHUNK_BYTES);
                let has_more = source.next_chunk(&mut chunk)?;
                Ok((chunk, has_more.then_some(source)))
            });
            let failed = |error: ApiError| std::io::Error::other(error.message);
            let (chunk, source) = next.await.map_err(failed)?;
            // The memory is released when the chunk is sent.
            let chunk = audit.readers.hold_next(chunk).await.map_err(failed)?;
            Ok(Some((chunk, (None, source))))
        }
    });
    let mut response = Response::new(Body::from_stream(rest));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
