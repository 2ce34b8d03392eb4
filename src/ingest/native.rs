//! Cairn's own wire format: `POST /v1/events` with one event, `POST /v1/batch` with an array of them.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;

use super::accept::{READER, Refused, busy, event_limit, explain, invalid, receive, text};
use super::body;
use super::dispatch;
use super::dispatch::{Answer, NotStored};
use super::metrics::Reason;
use super::stage::Ingest;
use crate::auth::Client;
use crate::http::{ApiError, Reserved, json_response, retry_after};
use crate::ledger::format::record::Draft;
use cairn_proof::chain::EventError;
use cairn_proof::chain::event::skip;
use cairn_proof::chain::json::Fault;
use cairn_proof::chain::{EventReader, EventSource};

/// `POST /v1/events`: 201 and the stored event; 200 if it was stored before under its id.
pub async fn event(ingest: Arc<Ingest>, client: Client, request: Request) -> Response<Body> {
    let started = Instant::now();
    let metrics = &ingest.events_metrics;
    let mut reserved = ingest.memory_budget.reserve();
    let response = match take_event(&ingest, client, request, &mut reserved).await {
        Ok(stored) => {
            let status = if stored.is_known { StatusCode::OK } else { StatusCode::CREATED };
            metrics.accepted.increment(u64::from(!stored.is_known));
            json_response(status, reserved.hold(stored.record.into_answer()))
        }
        Err((problem, reason)) => {
            metrics.refused(reason);
            problem.into_response()
        }
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

async fn take_event(
    ingest: &Ingest,
    client: Client,
    request: Request,
    reserved: &mut Reserved,
) -> Result<dispatch::Stored, Refused> {
    let sent = receive(ingest, &ingest.events_metrics, client, request, reserved).await?;
    let draft = body::run_blocking(sent.len(), || {
        let text = text(&sent)?;
        READER.with_borrow_mut(|reader| read_single(reader, text, ingest))
    })?;
    reserved.grow(draft.cost()).map_err(busy)?;
    reserved.shrink(sent.len());
    drop(sent);
    ingest.dispatch.one(draft).await.map_err(|why| explain(ingest, why))
}

fn source(ingest: &Ingest) -> EventSource<'_> {
    EventSource::HTTP_API.with_labels(&ingest.labels)
}

fn read_single(reader: &mut EventReader, text: &str, ingest: &Ingest) -> Result<Draft, Refused> {
    let result = reader.read(text, 0, source(ingest), event_limit(ingest)).and_then(|(content, end)| {
        let rest = text[end..].trim_start_matches([' ', '\t', '\n', '\r']);
        if rest.is_empty() {
            return Ok(Draft::new(&content));
        }
        let at = text.len() - rest.len();
        let message = format!("not JSON: expected the end of the text behind the event (at byte {at})");
        Err(EventError { fault: Fault::Syntax, message })
    });
    reader.trim();
    result.map_err(|error| invalid(&error))
}

/// `POST /v1/batch`: 201 if all events were stored, 207 if any was not, with an entry per event in their order.
pub async fn batch(ingest: Arc<Ingest>, client: Client, request: Request) -> Response<Body> {
    let started = Instant::now();
    let metrics = &ingest.batch_metrics;
    let reserved = ingest.memory_budget.reserve();
    let response = match take_batch(&ingest, client, request, reserved).await {
        Ok(response) => response,
        Err((problem, reason)) => {
            metrics.refused(reason);
            problem.into_response()
        }
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

/// One event of a batch: read and on its way to its shard, or refused.
enum Entry {
    Sent,
    Refused(Refused),
}

async fn take_batch(
    ingest: &Ingest,
    client: Client,
    request: Request,
    mut reserved: Reserved,
) -> Result<Response<Body>, Refused> {
    let sent = receive(ingest, &ingest.batch_metrics, client, request, &mut reserved).await?;
    let mut entries = Vec::new();
    let mut drafts = Vec::new();
    body::run_blocking(sent.len(), || {
        let text = text(&sent)?;
        READER.with_borrow_mut(|reader| read_array(reader, text, ingest, &mut reserved, &mut entries, &mut drafts))
    })?;
    ingest.rates.charge(client, entries.len().saturating_sub(1));
    reserved.shrink(sent.len());
    drop(sent);
    let answers = ingest.dispatch.many(drafts).await;
    Ok(answer_batch(ingest, entries, answers, reserved))
}

/// Reads the events of an array. One that is refused does not keep the others from being read; a body that is no
/// JSON is refused as a whole, before anything is queued.
fn read_array(
    reader: &mut EventReader,
    text: &str,
    ingest: &Ingest,
    reserved: &mut Reserved,
    entries: &mut Vec<Entry>,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refused> {
    let mut cursor = Cursor { text, at: 0 };
    cursor.require(b'[', "an array of events")?;
    let (most, longest) = (ingest.limits().batch_events, event_limit(ingest));
    if !cursor.accept(b']') {
        loop {
            if entries.len() == most {
                let message = format!("the batch has more than {most} events (limits.batch_events)");
                return Err((ApiError::too_large(message), Reason::TooLarge));
            }
            match reader.read(text, cursor.at, source(ingest), longest) {
                Ok((content, end)) => {
                    let draft = Draft::new(&content);
                    if drafts.is_empty() {
                        // The others are probably as long.
                        let count = (text.len() / (end - cursor.at).max(1)).min(most);
                        drafts.reserve(count);
                        entries.reserve(count);
                    }
                    reserved.grow(draft.cost()).map_err(busy)?;
                    drafts.push(draft);
                    entries.push(Entry::Sent);
                    cursor.at = end;
                }
                Err(error) if error.fault == Fault::Syntax => return Err(invalid(&error)),
                Err(error) => {
                    entries.push(Entry::Refused(invalid(&error)));
                    cursor.at = skip(text, cursor.at);
                }
            }
            reader.trim();
            if !cursor.accept(b',') {
                break;
            }
        }
        cursor.require(b']', "`,` or `]`")?;
    }
    cursor.end()
}

fn answer_batch(ingest: &Ingest, entries: Vec<Entry>, answers: Vec<Answer>, reserved: Reserved) -> Response<Body> {
    let metrics = &ingest.batch_metrics;
    let mut answers = answers.into_iter();
    let (mut stored, mut is_retryable, mut is_whole) = (0, false, true);
    let mut out = Vec::from(*b"[");
    for (index, entry) in entries.into_iter().enumerate() {
        let answer = match entry {
            Entry::Sent => answers.next().unwrap_or(Err(NotStored::Lost)).map_err(|why| explain(ingest, why)),
            Entry::Refused(refused) => Err(refused),
        };
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(br#"{"index":"#);
        out.extend_from_slice(itoa::Buffer::new().format(index).as_bytes());
        out.push(b',');
        match answer {
            Ok(answer) => {
                stored += u64::from(!answer.is_known);
                out.extend_from_slice(br#""event":"#);
                answer.record.as_ref().write_answer(&mut out);
            }
            Err((problem, reason)) => {
                metrics.refused(reason);
                is_whole = false;
                is_retryable |= problem.is_retryable();
                let error = serde_json::Value::from(problem.message.as_ref());
                // Writing to a Vec cannot fail.
                let _ = write!(out, r#""error":{error},"retryable":{}"#, problem.is_retryable());
            }
        }
        out.push(b'}');
    }
    out.push(b']');
    metrics.accepted.increment(stored);
    let status = if is_whole { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
    let mut response = json_response(status, reserved.hold(out));
    if is_retryable {
        retry_after(&mut response);
    }
    response
}

/// A place between the events of an array.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl Cursor<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += space;
        rest.get(space).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn require(&mut self, byte: u8, what: &str) -> Result<(), Refused> {
        if self.accept(byte) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    fn end(&mut self) -> Result<(), Refused> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the text behind the array")) }
    }

    fn unexpected(&self, what: &str) -> Refused {
        let message = format!("expected {what} (at byte {})", self.at);
        (ApiError::bad_request(message), Reason::Invalid)
    }
}
