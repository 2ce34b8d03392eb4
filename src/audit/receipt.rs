//! `?wait=checkpoint`: delays the response to stored events until they are under a signed checkpoint, and adds a
//! receipt to each. Specified in `docs/http-api.md`, section "Wait for a checkpoint".

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::BodyExt;
use tokio::time::Instant;
use uuid::Uuid;

use super::context::Audit;
use super::context::store_failed;
use super::log::receipt;
use crate::http::{ApiError, QueryParams, Read};
use crate::ledger::format::keys::Location;
use crate::tlog;
use cairn_proof::chain::scan;

/// How long a response waits for a checkpoint.
const WAIT: Duration = Duration::from_secs(10);
/// How long receipts may take once the checkpoint is there.
const GRACE: Duration = Duration::from_secs(1);

/// Middleware that adds receipts to the response if the request asks for them. Other requests have no cost.
pub async fn receipts(State(audit): State<Arc<Audit>>, request: Request, next: Next) -> Response<Body> {
    if request.uri().query().is_none() {
        return next.run(request).await;
    }
    let wants_receipts = QueryParams::of(request.uri()).and_then(|mut params| {
        let wants_receipts = params.take_as("wait", "checkpoint", |text| (text == "checkpoint").then_some(()))?;
        params.finish()?;
        Ok(wants_receipts.is_some())
    });
    match wants_receipts {
        Ok(true) => {}
        Ok(false) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    }
    let deadline = Instant::now() + WAIT;
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory already, so collecting it cannot fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let adding = async {
        let with_receipts = add_receipts(&audit, body.clone(), deadline).await?;
        let len = with_receipts.len();
        Ok::<_, ApiError>((audit.readers.hold(with_receipts)?, len))
    };
    // The events are stored in any case: if adding receipts fails or takes too long, the response is sent without them.
    let Ok(Ok((with_receipts, len))) = tokio::time::timeout_at(deadline + GRACE, adding).await else {
        return Response::from_parts(parts, Body::from(body));
    };
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    Response::from_parts(parts, Body::from(with_receipts))
}

/// Adds the receipts to a response body.
async fn add_receipts(audit: &Arc<Audit>, body: Bytes, deadline: Instant) -> Result<Vec<u8>, ApiError> {
    let searched = body.clone();
    let events = audit.read(Read::Point, move |audit, _| find_events(audit, &searched)).await?;
    let signed = wait_for_checkpoint(audit, events.iter().map(|event| event.location).collect(), deadline).await;
    audit
        .read(Read::Point, move |_, _| {
            let mut with_receipts = Vec::with_capacity(body.len() + events.len() * 1024);
            let mut from = 0;
            for event in &events {
                let receipt = match &signed {
                    Some(signed) => receipt(signed, event.location)?.to_string(),
                    None => "null".to_owned(),
                };
                with_receipts.extend_from_slice(&body[from..event.end]);
                with_receipts.extend_from_slice(format!(r#","receipt":{receipt}"#).as_bytes());
                from = event.end;
            }
            with_receipts.extend_from_slice(&body[from..]);
            Ok(with_receipts)
        })
        .await
}

/// A stored event in a response body.
struct EventInBody {
    /// The location of the event in the ledger.
    location: Location,
    /// The offset of its closing brace in the body.
    end: usize,
}

/// Finds the events of a response body: the body is one event, or the array of the entries of a batch. The JSON is the
/// server's own, without white space.
fn find_events(audit: &Audit, body: &[u8]) -> Result<Vec<EventInBody>, ApiError> {
    let mut found = Vec::new();
    let mut add = |event: &[u8], at: usize| -> Result<(), ApiError> {
        let id = scan::member(event, "id").and_then(scan::text).and_then(|id| Uuid::try_parse(&id).ok());
        let Some(id) = id else { return Ok(()) };
        if let Some((location, _)) = audit.ledger.find(id).map_err(store_failed)? {
            found.push(EventInBody { location, end: at + event.len() - 1 });
        }
        Ok(())
    };
    if body.first() == Some(&b'{') {
        add(body, 0)?;
        return Ok(found);
    }
    let mut at = 1;
    while let Some(len) = body.get(at..).and_then(scan::value_len) {
        let entry = &body[at..at + len];
        if let Some(event) = scan::member(entry, "event") {
            // The event is the last member of the entry.
            add(event, at + len - 1 - event.len())?;
        }
        at += len + 1;
    }
    Ok(found)
}

/// Waits for a checkpoint that covers all locations; `None` if there is none until `deadline` or the log has stopped.
async fn wait_for_checkpoint(
    audit: &Audit,
    locations: Vec<Location>,
    deadline: Instant,
) -> Option<Arc<tlog::SignedTree>> {
    let mut state = audit.log.watch();
    let is_decided = |state: &tlog::State| match state {
        tlog::State::Starting => false,
        tlog::State::Signed(signed) => locations.iter().all(|location| signed.covers(*location)),
        tlog::State::Stopped(_) => true,
    };
    let state = tokio::time::timeout_at(deadline, state.wait_for(is_decided)).await.ok()?.ok()?;
    match &*state {
        tlog::State::Signed(signed) => Some(Arc::clone(signed)),
        _ => None,
    }
}
