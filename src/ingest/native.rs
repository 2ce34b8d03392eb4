//! Cairn's own wire format: `POST /v1/events` with one event, `POST /v1/batch` with an array of events. Specified in
//! `docs/http-api.md`.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};

use super::accept::{READER, Refused, busy, event_limit, explain, invalid, receive, redacted, text};
use super::body;
use super::dispatch;
use super::dispatch::{Answer, NotStored};
use super::metrics::Reason;
use super::stage::Ingest;
use crate::auth::Client;
use crate::http::{ApiError, Reserved, json_response, set_retry_after};
use crate::ledger::format::record::Draft;
use crate::ledger::format::terms::LastLabels;
use cairn_proof::chain::EventError;
use cairn_proof::chain::event::skip;
use cairn_proof::chain::json::Fault;
use cairn_proof::chain::{EventReader, EventSource};

/// `POST /v1/events`: 201 and the stored event; 200 if it was already stored under its id.
pub async fn event(ingest: Arc<Ingest>, client: Client, request: Request) -> Response<Body> {
    let started = Instant::now();
    let metrics = &ingest.events_metrics;
    let response = match take_event(&ingest, client, request).await {
        Ok((stored, reserved)) => {
            let status = if stored.is_duplicate { StatusCode::OK } else { StatusCode::CREATED };
            metrics.accepted.increment(u64::from(!stored.is_duplicate));
            json_response(status, reserved.hold(stored.record.into_answer()))
        }
        Err(refused) => metrics.refuse(redacted(&ingest, refused), 1),
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

async fn take_event(
    ingest: &Ingest,
    client: Client,
    request: Request,
) -> Result<(dispatch::Stored, Reserved), Refused> {
    let (sent, mut reserved) = receive(ingest, &ingest.events_metrics, client, request).await?;
    let draft = body::run_blocking(sent.len(), || {
        let text = text(&sent)?;
        READER.with_borrow_mut(|reader| read_single(reader, text, ingest))
    })?;
    reserved.grow(draft.memory_bytes()).map_err(busy)?;
    reserved.shrink(sent.len());
    drop(sent);
    let stored = ingest.dispatch.commit_one(draft).await.map_err(|why| explain(ingest, why))?;
    Ok((stored, reserved))
}

fn read_single(reader: &mut EventReader, text: &str, ingest: &Ingest) -> Result<Draft, Refused> {
    let result =
        reader.read(text, 0, ingest.source(EventSource::HTTP_API), event_limit(ingest)).and_then(|(content, end)| {
            let rest = text[end..].trim_start_matches([' ', '\t', '\n', '\r']);
            if rest.is_empty() {
                return Ok(Draft::new(&content));
            }
            let offset = text.len() - rest.len();
            let message = format!("not JSON: expected the end of the text after the event (at byte {offset})");
            Err(EventError { fault: Fault::Syntax, message })
        });
    reader.trim();
    result.map_err(|error| invalid(&error))
}

/// `POST /v1/batch`: 201 if all events were stored, 207 if any was not, with an entry per event in the order sent.
pub async fn batch(ingest: Arc<Ingest>, client: Client, request: Request) -> Response<Body> {
    let started = Instant::now();
    let metrics = &ingest.batch_metrics;
    let response = match take_batch(&ingest, client, request).await {
        Ok(response) => response,
        Err(refused) => metrics.refuse(redacted(&ingest, refused), 1),
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

/// One event of a batch: sent to its shard, or refused before that.
enum Entry {
    Sent,
    Refused(Refused),
}

async fn take_batch(ingest: &Ingest, client: Client, request: Request) -> Result<Response<Body>, Refused> {
    let (sent, mut reserved) = receive(ingest, &ingest.batch_metrics, client, request).await?;
    let mut entries = Vec::new();
    let mut drafts = Vec::new();
    body::run_blocking(sent.len(), || {
        let text = text(&sent)?;
        READER.with_borrow_mut(|reader| read_array(reader, text, ingest, &mut reserved, &mut entries, &mut drafts))
    })?;
    ingest.rates.charge(client, entries.len().saturating_sub(1));
    reserved.shrink(sent.len());
    drop(sent);
    let answers = ingest.dispatch.commit_many(drafts).await;
    Ok(answer_batch(ingest, entries, answers, reserved))
}

/// Reads the events of an array. An event that is refused does not affect the others. A body that is not JSON is
/// refused as a whole, before any event is queued.
fn read_array(
    reader: &mut EventReader,
    text: &str,
    ingest: &Ingest,
    reserved: &mut Reserved,
    entries: &mut Vec<Entry>,
    drafts: &mut Vec<Draft>,
) -> Result<(), Refused> {
    let mut scanner = ArrayScanner { text, offset: 0 };
    scanner.require(b'[', "an array of events")?;
    let (max_events, max_event_bytes) = (ingest.limits().batch_events, event_limit(ingest));
    let mut labels = LastLabels::default();
    if !scanner.accept(b']') {
        loop {
            if entries.len() == max_events {
                let message = format!("the batch has more than {max_events} events (limits.batch_events)");
                return Err((ApiError::too_large(message), Reason::TooLarge));
            }
            match reader.read(text, scanner.offset, ingest.source(EventSource::HTTP_API), max_event_bytes) {
                Ok((content, end)) => {
                    let draft = Draft::next(&content, &[], &mut labels);
                    if drafts.is_empty() {
                        // Estimates the number of events from the length of the first one.
                        let count = (text.len() / (end - scanner.offset).max(1)).min(max_events);
                        drafts.reserve(count);
                        entries.reserve(count);
                    }
                    reserved.grow(draft.memory_bytes()).map_err(busy)?;
                    drafts.push(draft);
                    entries.push(Entry::Sent);
                    scanner.offset = end;
                }
                Err(error) if error.fault == Fault::Syntax => return Err(invalid(&error)),
                Err(error) => {
                    entries.push(Entry::Refused(invalid(&error)));
                    scanner.offset = skip(text, scanner.offset);
                }
            }
            reader.trim();
            if !scanner.accept(b',') {
                break;
            }
        }
        scanner.require(b']', "`,` or `]`")?;
    }
    scanner.end()
}

/// The bytes of an entry of an answer around its event, and the comma.
const ENTRY_OVERHEAD: usize = r#"{"index":100000,"event":},"#.len();

fn answer_batch(ingest: &Ingest, entries: Vec<Entry>, answers: Vec<Answer>, reserved: Reserved) -> Response<Body> {
    let metrics = &ingest.batch_metrics;
    let events: usize = answers.iter().flatten().map(|stored| stored.record.as_ref().max_answer_len()).sum();
    let mut answers = answers.into_iter();
    let (mut stored, mut is_retryable, mut is_whole) = (0, false, true);
    // Reserved as a whole: growing would copy the answer several times.
    let mut out = Vec::with_capacity(events + entries.len() * ENTRY_OVERHEAD + 2);
    out.push(b'[');
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
                stored += u64::from(!answer.is_duplicate);
                out.extend_from_slice(br#""event":"#);
                answer.record.as_ref().write_answer(&mut out);
            }
            Err((error, reason)) => {
                metrics.refused(reason);
                if is_whole {
                    metrics.log_refusal(&error.message);
                }
                is_whole = false;
                is_retryable |= error.is_retryable();
                let message = serde_json::Value::from(error.message.as_ref());
                // Writing to a `Vec` cannot fail.
                let _ = write!(out, r#""error":{message},"retryable":{}"#, error.is_retryable());
            }
        }
        out.push(b'}');
    }
    out.push(b']');
    metrics.accepted.increment(stored);
    let status = if is_whole { StatusCode::CREATED } else { StatusCode::MULTI_STATUS };
    let mut response = json_response(status, reserved.hold(out));
    if is_retryable {
        set_retry_after(&mut response);
    }
    response
}

/// A position in the text of an array, between its events.
struct ArrayScanner<'a> {
    text: &'a str,
    offset: usize,
}

impl ArrayScanner<'_> {
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.offset..];
        let space = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.offset += space;
        rest.get(space).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.offset += usize::from(is_next);
        is_next
    }

    fn require(&mut self, byte: u8, expected: &str) -> Result<(), Refused> {
        if self.accept(byte) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn end(&mut self) -> Result<(), Refused> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the text after the array")) }
    }

    fn unexpected(&self, expected: &str) -> Refused {
        let message = format!("expected {expected} (at byte {})", self.offset);
        (ApiError::bad_request(message), Reason::Invalid)
    }
}
