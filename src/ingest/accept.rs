//! What every way in shares: a request's body, and refusals that say who must act.

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
use cairn_proof::chain::EventError;
use cairn_proof::chain::EventReader;
use cairn_proof::chain::json::Fault;

thread_local! {
    /// Memory for reading events, one per thread that reads.
    pub static READER: RefCell<EventReader> = RefCell::default();
}

/// A refusal, and what it is counted as.
pub type Refused = (ApiError, Reason);

/// Reads the body of a request that brings events in JSON, if there is room for events at all.
pub async fn receive(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    client: Client,
    request: Request,
    reserved: &mut Reserved,
) -> Result<Bytes, Refused> {
    body::require_json(request.headers()).map_err(|problem| (problem, Reason::Invalid))?;
    receive_any(ingest, metrics, client, request, reserved).await
}

/// The same, whatever its content type.
pub async fn receive_any(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    client: Client,
    request: Request,
    reserved: &mut Reserved,
) -> Result<Bytes, Refused> {
    let (parts, body) = request.into_parts();
    ingest.rates.admit(client).map_err(|wait| {
        let message = "this client sends more events than it may (limits.events_per_second)";
        metrics.log_refusal(parts.uri.path(), message);
        (ApiError::too_many(message, wait), Reason::RateLimited)
    })?;
    if let Some(why) = ingest.ledger.space().disk_full() {
        return Err((ApiError::unavailable(ingest.ledger.space().explain(why)), Reason::NoSpace));
    }
    let sent = body::read(&parts.headers, body, &ingest.limits(), reserved).await.map_err(|problem| {
        let reason = match problem.status {
            StatusCode::PAYLOAD_TOO_LARGE => Reason::TooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Reason::Busy,
            _ => Reason::Invalid,
        };
        (problem, reason)
    })?;
    metrics.bytes.increment(sent.len() as u64);
    Ok(sent)
}

/// The text of a body.
pub fn text(sent: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(sent).map_err(|error| {
        let message = format!("not JSON: not UTF-8 (at byte {})", error.valid_up_to());
        (ApiError::bad_request(message), Reason::Invalid)
    })
}

/// The longest an event may be, in canonical bytes.
pub fn event_limit(ingest: &Ingest) -> usize {
    usize::try_from(ingest.limits().event_bytes.as_u64()).unwrap_or(usize::MAX)
}

/// An event that is refused.
pub fn invalid(error: &EventError) -> Refused {
    match error.fault {
        Fault::TooLong => {
            let message = format!("{} (limits.event_bytes)", error.message);
            (ApiError::too_large(message), Reason::TooLarge)
        }
        Fault::Syntax | Fault::Content => (ApiError::bad_request(error.message.clone()), Reason::Invalid),
    }
}

/// A request for which there is no memory.
pub fn busy(problem: ApiError) -> Refused {
    (problem, Reason::Busy)
}

/// Says who must act on an event that was not acknowledged.
pub fn explain(ingest: &Ingest, why: NotStored) -> Refused {
    const UNKNOWN: &str = "it is unknown whether the event is stored: send it again with an id, and it is stored once";
    match why {
        NotStored::QueueFull => (
            ApiError::unavailable("the queue is full (queue.events, queue.bytes); the event is not stored"),
            Reason::Busy,
        ),
        NotStored::Draining => {
            (ApiError::unavailable("the server is shutting down; the event is not stored"), Reason::Draining)
        }
        NotStored::Lost => (ApiError::unavailable(format!("the server is going down; {UNKNOWN}")), Reason::Draining),
        NotStored::Refused(Refusal::IdTaken) => {
            (ApiError::conflict("id: it belongs to a different event that is already stored"), Reason::IdTaken)
        }
        NotStored::Refused(Refusal::IdBusy) => {
            (ApiError::unavailable("id: an event of another agent with this id is being stored"), Reason::Busy)
        }
        NotStored::Refused(Refusal::CommitFailed) => {
            (ApiError::unavailable(format!("the commit failed; {UNKNOWN}")), Reason::StoreFailed)
        }
        NotStored::Refused(Refusal::NoSpace) => {
            let room = ingest.ledger.space().disk_full().map(|why| ingest.ledger.space().explain(why));
            let room = room.unwrap_or_else(|| "the disk is full".to_owned());
            (ApiError::unavailable(format!("the commit failed, {room}; {UNKNOWN}")), Reason::NoSpace)
        }
        NotStored::Refused(Refusal::Unreadable) => {
            (ApiError::unavailable("the ledger could not be read; the event is not stored"), Reason::StoreFailed)
        }
    }
}
