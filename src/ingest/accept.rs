//! Shared by all wire formats: reading the body of a request, and turning refusals into errors of the API.

use std::borrow::Cow;
use std::cell::RefCell;

use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;

use super::body;
use super::dispatch::NotStored;
use super::metrics::{Reason, RouteMetrics};
use super::stage::Ingest;
use crate::auth::Client;
use crate::http::{ApiError, Reserved};
use crate::ledger::shard::queue::Refusal;
use cairn_proof::chain::EventReader;
use cairn_proof::chain::json::Fault;
use cairn_proof::chain::{EventError, EventSource};

thread_local! {
    /// Reusable buffers for reading events, one per thread.
    pub static READER: RefCell<EventReader> = RefCell::default();
}

/// A refusal, and the reason that the metrics count it under.
pub type Refused = (ApiError, Reason);

/// Reads the body of a JSON request and returns it with its memory. Checks the rate limit of the client and the free disk space first.
pub async fn receive(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    client: Client,
    request: Request,
) -> Result<(Bytes, Reserved), Refused> {
    if let Err(error) = body::require_json(request.headers()) {
        return Err(Box::pin(refuse(ingest, request, (error, Reason::Invalid))).await);
    }
    receive_any(ingest, metrics, client, request).await
}

/// Reads the rest of a request that is refused because of its head, so that the client sees the answer instead of a broken connection.
async fn refuse(ingest: &Ingest, request: Request, refused: Refused) -> Refused {
    let (parts, mut body) = request.into_parts();
    body::skip(&parts.headers, &mut body, &ingest.limits()).await;
    refused
}

/// Like [`receive`], for any content type.
pub async fn receive_any(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    client: Client,
    request: Request,
) -> Result<(Bytes, Reserved), Refused> {
    if let Err(wait) = ingest.rates.admit(client) {
        let message = "this client exceeds its rate limit (limits.events_per_second)";
        let refused = (ApiError::too_many(message, wait), Reason::RateLimited);
        return Err(Box::pin(refuse(ingest, request, refused)).await);
    }
    if let Some(why) = ingest.ledger.space().disk_full() {
        let refused = (ApiError::unavailable(ingest.ledger.space().explain(why)), Reason::NoSpace);
        return Err(Box::pin(refuse(ingest, request, refused)).await);
    }
    let (parts, body) = request.into_parts();
    let read = body::read(&parts.headers, body, &ingest.limits(), &ingest.memory).await;
    let (sent, reserved) = read.map_err(|error| {
        let reason = match error.status {
            StatusCode::PAYLOAD_TOO_LARGE => Reason::TooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Reason::Busy,
            _ => Reason::Invalid,
        };
        (error, reason)
    })?;
    metrics.bytes.increment(sent.len() as u64);
    Ok((sent, reserved))
}

/// Returns a body as text; refuses it if it is not UTF-8.
pub fn text(sent: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(sent).map_err(|error| {
        let message = format!("not JSON: not UTF-8 (at byte {})", error.valid_up_to());
        (ApiError::bad_request(message), Reason::Invalid)
    })
}

/// The maximum length of an event, in canonical bytes.
pub fn event_limit(ingest: &Ingest) -> usize {
    usize::try_from(ingest.limits().event_bytes.as_u64()).unwrap_or(usize::MAX)
}

/// The refusal of an event that cannot be read.
pub fn invalid(error: &EventError) -> Refused {
    match error.fault {
        Fault::TooLong => {
            let message = format!("{} (limits.event_bytes)", error.message);
            (ApiError::too_large(message), Reason::TooLarge)
        }
        Fault::Syntax | Fault::Content => (ApiError::bad_request(error.message.clone()), Reason::Invalid),
    }
}

/// A refusal without secrets: its message may quote what was sent.
pub fn redacted(ingest: &Ingest, (error, reason): Refused) -> Refused {
    match error.message {
        Cow::Owned(message) => {
            let message = Cow::Owned(ingest.source(EventSource::HTTP_API).message(message));
            (ApiError { message, ..error }, reason)
        }
        Cow::Borrowed(_) => (error, reason),
    }
}

/// The refusal of a request for which no memory is left (`limits.inflight_bytes`).
pub fn busy(error: ApiError) -> Refused {
    (error, Reason::Busy)
}

/// The refusal of an event that the ledger did not acknowledge. It states whether the event is stored and how to retry.
pub fn explain(ingest: &Ingest, why: NotStored) -> Refused {
    const UNKNOWN: &str =
        "it is unknown whether the event is stored; only a retry with the same id cannot store it twice";
    match why {
        NotStored::QueueFull => (
            ApiError::unavailable("the queue is full (queue.events, queue.bytes); the event is not stored"),
            Reason::Busy,
        ),
        NotStored::Draining => {
            (ApiError::unavailable("the server is shutting down; the event is not stored"), Reason::Draining)
        }
        NotStored::Lost => (ApiError::unavailable(format!("the server is shutting down; {UNKNOWN}")), Reason::Draining),
        NotStored::Refused(Refusal::IdTaken) => {
            (ApiError::conflict("id: belongs to a different event that is already stored"), Reason::IdTaken)
        }
        NotStored::Refused(Refusal::IdBusy) => {
            (ApiError::unavailable("id: an event of another agent with this id is being stored"), Reason::Busy)
        }
        NotStored::Refused(Refusal::CommitFailed) => {
            (ApiError::unavailable(format!("the commit failed; {UNKNOWN}")), Reason::StoreFailed)
        }
        NotStored::Refused(Refusal::NoSpace) => {
            let cause = ingest.ledger.space().disk_full().map(|why| ingest.ledger.space().explain(why));
            let cause = cause.unwrap_or_else(|| "the disk is full".to_owned());
            (ApiError::unavailable(format!("the commit failed, {cause}; {UNKNOWN}")), Reason::NoSpace)
        }
        NotStored::Refused(Refusal::Unreadable) => {
            (ApiError::unavailable("the ledger could not be read; the event is not stored"), Reason::StoreFailed)
        }
    }
}
