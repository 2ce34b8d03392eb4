//! `?wait=checkpoint`: an answer to stored events waits until they are under a signed checkpoint, and has the proof.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use bytes::Bytes;
use http_body_util::BodyExt;
use uuid::Uuid;

use super::context::Audit;
use super::context::store_failed;
use super::log::receipt;
use crate::http::{ApiError, QueryParams};
use crate::ledger::format::keys::Location;
use crate::tlog;
use cairn_proof::chain::scan;

/// How long an answer waits.
const WAIT: Duration = Duration::from_secs(10);

/// Lets a request pass, and adds receipts to its answer if it asks for them. Whoever does not ask pays nothing.
pub async fn receipts(State(audit): State<Arc<Audit>>, request: Request, next: Next) -> Response<Body> {
    if request.uri().query().is_none() {
        return next.run(request).await;
    }
    let is_asked = QueryParams::of(request.uri()).and_then(|mut params| {
        let is_asked = params.take_as("wait", "checkpoint", |text| (text == "checkpoint").then_some(()))?;
        params.end()?;
        Ok(is_asked.is_some())
    });
    match is_asked {
        Ok(true) => {}
        Ok(false) => return next.run(request).await,
        Err(problem) => return problem.into_response(),
    }
    let response = next.run(request).await;
    if !response.status().is_success() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // The body is in memory already: nothing can fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // The events are stored, whatever happens here: without receipts the answer stays as it is.
    let Ok(whole) = add(&audit, body.clone()).await else { return Response::from_parts(parts, Body::from(body)) };
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(whole.len()));
    Response::from_parts(parts, Body::from(audit.memory_budget.reserve().hold(whole)))
}

/// The answer with its receipts.
async fn add(audit: &Arc<Audit>, body: Bytes) -> Result<Vec<u8>, ApiError> {
    let answer = body.clone();
    let events = audit.read(move |audit, _| find(audit, &answer)).await?;
    let signed = wait(audit, events.iter().map(|event| event.location).collect()).await;
    audit
        .read(move |_, _| {
            let mut whole = Vec::with_capacity(body.len() + events.len() * 1024);
            let mut from = 0;
            for event in &events {
                let receipt = match &signed {
                    Some(signed) => receipt(signed, event.location)?.to_string(),
                    None => "null".to_owned(),
                };
                whole.extend_from_slice(&body[from..event.end]);
                whole.extend_from_slice(format!(r#","receipt":{receipt}"#).as_bytes());
                from = event.end;
            }
            whole.extend_from_slice(&body[from..]);
            Ok(whole)
        })
        .await
}

/// An event of an answer.
struct Answered {
    /// Where it stands in the ledger.
    location: Location,
    /// Where its closing brace stands in the answer.
    end: usize,
}

/// Finds the events of an answer: it is one of them, or a batch's array of entries. It is our own compact JSON.
fn find(audit: &Audit, answer: &[u8]) -> Result<Vec<Answered>, ApiError> {
    let mut found = Vec::new();
    let mut add = |event: &[u8], at: usize| -> Result<(), ApiError> {
        let id = scan::member(event, "id").and_then(scan::text).and_then(|id| Uuid::try_parse(&id).ok());
        let Some(id) = id else { return Ok(()) };
        if let Some((location, _)) = audit.ledger.find(id).map_err(store_failed)? {
            found.push(Answered { location, end: at + event.len() - 1 });
        }
        Ok(())
    };
    if answer.first() == Some(&b'{') {
        add(answer, 0)?;
        return Ok(found);
    }
    let mut at = 1;
    while let Some(len) = answer.get(at..).and_then(scan::value_len) {
        let entry = &answer[at..at + len];
        if let Some(event) = scan::member(entry, "event") {
            // The event ends the entry.
            add(event, at + len - 1 - event.len())?;
        }
        at += len + 1;
    }
    Ok(found)
}

/// Waits for a checkpoint over all of them; `None` if there will be none soon.
async fn wait(audit: &Audit, locations: Vec<Location>) -> Option<Arc<tlog::Signed>> {
    let mut state = audit.log.watch();
    let is_over = |state: &tlog::State| match state {
        tlog::State::Starting => false,
        tlog::State::Signed(signed) => locations.iter().all(|location| signed.covers(*location)),
        tlog::State::Stopped(_) => true,
    };
    let state = tokio::time::timeout(WAIT, state.wait_for(is_over)).await.ok()?.ok()?;
    match &*state {
        tlog::State::Signed(signed) => Some(Arc::clone(signed)),
        _ => None,
    }
}
