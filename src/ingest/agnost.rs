//! The API that the Agnost SDKs call: `POST /api/v1/capture-session` and `POST /api/v1/capture-event`.
//!
//! Every request becomes one event; `docs/agnost.md`, section "Mapping of requests", specifies how. The SDKs wait for
//! the response to a session and never repeat a request, so the response is sent after the local commit and never waits
//! for an upstream. Requests of real SDKs differ from the published schema; all of them are accepted.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use uuid::Uuid;

use super::accept::{READER, Refused, busy, event_limit, explain, invalid, receive, redacted, text};
use super::body;
use super::config::AgnostConfig;
use super::dispatch::{NotStored, Stored};
use super::metrics::{Reason, RouteMetrics};
use super::stage::Ingest;
use crate::auth::Client;
use crate::http::{ApiError, json_response};
use crate::ledger::format::record::Draft;
use crate::ledger::shard::queue::Refusal;
use cairn_proof::chain::EventError;
use cairn_proof::chain::fields::UUID_LEN;
use cairn_proof::chain::object::Object;
use cairn_proof::chain::{EventReader, EventSource, Field, scan, time};

/// The header with the sender's organization at Agnost.
const ORG_HEADER: &str = "x-org-id";
/// The header that overrides `ingest.agnost.agent_id`.
const AGENT_HEADER: &str = "x-cairn-agent-id";

/// What a request describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Session,
    Event,
}

/// `POST /api/v1/capture-session`: 200 and the session's id.
pub async fn session(
    State(ingest): State<Arc<Ingest>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Response<Body> {
    handle(&ingest, &ingest.agnost_session_metrics, Kind::Session, (client, request)).await
}

/// `POST /api/v1/capture-event`: 200 and the event's id.
pub async fn event(
    State(ingest): State<Arc<Ingest>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Response<Body> {
    handle(&ingest, &ingest.agnost_event_metrics, Kind::Event, (client, request)).await
}

async fn handle(ingest: &Ingest, metrics: &RouteMetrics, kind: Kind, request: (Client, Request)) -> Response<Body> {
    let started = Instant::now();
    let response = match store(ingest, metrics, kind, request).await {
        Ok(stored) => {
            metrics.accepted.increment(u64::from(!stored.is_duplicate));
            answer(kind, &stored)
        }
        Err(refused) => metrics.refuse(redacted(ingest, refused), 1),
    };
    metrics.answered(response.status(), started.elapsed());
    response
}

/// The response with the id that the SDK sent or that the server assigned.
fn answer(kind: Kind, stored: &Stored) -> Response<Body> {
    let record = stored.record.as_ref();
    let (name, field) = match kind {
        Kind::Session => ("session_id", Field::SessionId),
        Kind::Event => ("event_id", Field::Id),
    };
    let id = record.value(field).and_then(scan::text).unwrap_or_default();
    json_response(StatusCode::OK, json!({ name: id }).to_string())
}

async fn store(
    ingest: &Ingest,
    metrics: &RouteMetrics,
    kind: Kind,
    (client, request): (Client, Request),
) -> Result<Stored, Refused> {
    // Clones of header values share their bytes with the request.
    let (agent, org) = (request.headers().get(AGENT_HEADER).cloned(), request.headers().get(ORG_HEADER).cloned());
    let (sent, mut reserved) = receive(ingest, metrics, client, request).await?;
    let mapped = body::run_blocking(sent.len(), || {
        let sent = canonical(text(&sent)?)?;
        Mapped::of(&ingest.agnost, kind, agent.as_ref(), org.as_ref(), &sent)
    })?;
    let source = ingest.source(EventSource::AGNOST_API);
    let draft = mapped.draft(source, event_limit(ingest))?;
    reserved.grow(draft.memory_bytes()).map_err(busy)?;
    let stored = match (ingest.dispatch.commit_one(draft).await, mapped.id) {
        // The SDKs cannot handle a conflict of ids, so the event is stored under a replacement id.
        (Err(NotStored::Refused(Refusal::IdTaken)), Some(taken)) => {
            ingest.dispatch.commit_one(mapped.draft_with_replacement_id(source, event_limit(ingest), taken)?).await
        }
        (stored, _) => stored,
    };
    stored.map_err(|why| explain(ingest, why))
}

/// Maps a body, without the headers of its request, to the draft of an event of at most `limit` canonical bytes.
///
/// # Errors
/// When the body is not a JSON object, or the mapped event is invalid or too long.
pub fn draft(config: &AgnostConfig, is_session: bool, body: &str, limit: usize) -> Result<Draft, ApiError> {
    let kind = if is_session { Kind::Session } else { Kind::Event };
    let mapped = canonical(body).and_then(|sent| Mapped::of(config, kind, None, None, &sent));
    mapped.and_then(|mapped| mapped.draft(EventSource::AGNOST_API, limit)).map_err(|(error, _)| error)
}

/// The canonical form of a body.
fn canonical(sent: &str) -> Result<Vec<u8>, Refused> {
    let canonical = cairn_proof::chain::canonicalize(sent).map_err(|error| invalid(&EventError::from(error)))?;
    if canonical.first() != Some(&b'{') {
        return Err((ApiError::bad_request("expected an object"), Reason::Invalid));
    }
    Ok(canonical)
}

/// A request mapped to the JSON of an event that is not validated yet.
struct Mapped {
    /// A JSON object. Its last member is the id, if one was sent.
    event: String,
    /// The offset in `event` at which the id begins.
    id_offset: usize,
    /// The id that was sent, if it is a UUID.
    id: Option<Uuid>,
}

impl Mapped {
    fn of(
        config: &AgnostConfig,
        kind: Kind,
        agent: Option<&HeaderValue>,
        org: Option<&HeaderValue>,
        sent: &[u8],
    ) -> Result<Mapped, Refused> {
        let mut object = Object::new();
        // An unreadable header must not fall back to the chain of the default agent.
        let invalid = |_| (ApiError::bad_request(format!("{AGENT_HEADER}: expected ASCII")), Reason::Invalid);
        let agent_id = agent.map(HeaderValue::to_str).transpose().map_err(invalid)?.unwrap_or(&config.agent_id);
        object.text(Field::AgentId.name(), agent_id);
        object.text(Field::ActionType.name(), action_type(kind, sent));
        if kind == Kind::Session {
            object.text(Field::ActionName.name(), "capture-session");
        }
        let (mut id, mut has_session, mut unmapped) = (None, false, Vec::new());
        for (key, value) in scan::members(sent) {
            match (kind, field_of(key)) {
                (Kind::Event, Some(Field::Id)) if let Some(sent_id) = uuid(value) => {
                    id = Some(sent_id);
                    continue;
                }
                (_, Some(Field::SessionId)) if value.first() == Some(&b'"') => {
                    object.raw(Field::SessionId.name(), value);
                    has_session = true;
                    continue;
                }
                (Kind::Event, Some(Field::ActionName)) if value.first() == Some(&b'"') => {
                    object.raw(Field::ActionName.name(), value);
                    // The relay recognizes sessions by this name. An event with it also keeps `primitive_name` in the
                    // metadata, which distinguishes it.
                    if *value != *br#""capture-session""# {
                        continue;
                    }
                }
                (Kind::Event, Some(field @ (Field::ActionInput | Field::ActionOutput))) if value != b"null" => {
                    object.raw(field.name(), value);
                    continue;
                }
                (Kind::Event, Some(Field::ActionStatus)) if matches!(value, b"true" | b"false") => {
                    object.text(Field::ActionStatus.name(), if value == b"true" { "success" } else { "error" });
                    continue;
                }
                (Kind::Event, Some(Field::DurationMs)) if integer(value).is_some() => {
                    object.raw(Field::DurationMs.name(), value);
                    continue;
                }
                (_, Some(Field::Timestamp)) if let Some(stamp) = integer(value).and_then(rfc_3339) => {
                    object.text(Field::Timestamp.name(), &stamp);
                    continue;
                }
                _ => {}
            }
            unmapped.push((key, value));
        }
        if kind == Kind::Session && !has_session {
            object.text(Field::SessionId.name(), &Uuid::new_v4().to_string());
        }
        metadata(&mut object, &unmapped, org.and_then(|value| value.to_str().ok()));
        let event = String::from_utf8(object.into_unclosed());
        let mut event = event.map_err(|_| (ApiError::bad_request("not JSON: not UTF-8"), Reason::Invalid))?;
        let id_offset = event.len();
        event.push_str(&closing(id));
        Ok(Mapped { event, id_offset, id })
    }

    /// Validates the event and returns its draft.
    fn draft(&self, source: EventSource<'_>, limit: usize) -> Result<Draft, Refused> {
        read(source, limit, &self.event, None)
    }

    /// The draft under a replacement id, because `taken`, the id that was sent, belongs to a different event.
    fn draft_with_replacement_id(&self, source: EventSource<'_>, limit: usize, taken: Uuid) -> Result<Draft, Refused> {
        // Without default labels, because a retry may reach a server with other labels.
        let replacement = Uuid::new_v5(&taken, self.draft(source.for_ids(), limit)?.canonical());
        let event = [&self.event[..self.id_offset], &closing(Some(replacement))].concat();
        let warning = format!("event_id: {taken} belongs to a different event that is already stored");
        read(source, limit, &event, Some(warning))
    }
}

/// The end of the JSON object of an event, with the id if there is one.
fn closing(id: Option<Uuid>) -> String {
    id.map_or("}".to_owned(), |id| format!(r#","id":"{id}"}}"#))
}

fn read(source: EventSource<'_>, limit: usize, event: &str, warning: Option<String>) -> Result<Draft, Refused> {
    READER.with_borrow_mut(|reader: &mut EventReader| {
        let read = reader.read(event, 0, source, limit);
        let draft = read.map(|(content, _)| Draft::with_warnings(&content, warning.as_slice()));
        reader.trim();
        draft.map_err(|error| invalid(&error))
    })
}

/// The field that a member of a request becomes, if its value has the right type.
fn field_of(key: &[u8]) -> Option<Field> {
    Some(match key {
        b"event_id" => Field::Id,
        b"session_id" => Field::SessionId,
        b"primitive_name" => Field::ActionName,
        b"args" => Field::ActionInput,
        b"result" => Field::ActionOutput,
        b"success" => Field::ActionStatus,
        b"latency" => Field::DurationMs,
        b"timestamp" => Field::Timestamp,
        _ => return None,
    })
}

fn action_type(kind: Kind, sent: &[u8]) -> &'static str {
    let text = |name| scan::member(sent, name).and_then(scan::text).unwrap_or_default();
    match &*text("primitive_type") {
        _ if kind == Kind::Session => "CUSTOM",
        "tool" => "TOOL_CALL",
        _ if !text("parent_id").is_empty() => "TOOL_CALL",
        "" => "AGENT_TURN",
        _ => "CUSTOM",
    }
}

fn uuid(value: &[u8]) -> Option<Uuid> {
    let text = scan::text(value).filter(|text| text.len() == UUID_LEN)?;
    Uuid::try_parse(&text).ok()
}

fn integer(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Formats a time that can be parsed back to the same number of milliseconds; `None` for all others.
fn rfc_3339(ms: u64) -> Option<String> {
    let text = String::from_utf8_lossy(&time::format_ms(ms)).into_owned();
    (time::parse_ms(&text) == Some(ms)).then_some(text)
}

/// Writes `metadata`: the members that have no field of their own, as they were sent, and the organization.
fn metadata(object: &mut Object, unmapped: &[(&[u8], &[u8])], org_id: Option<&str>) {
    object.object(Field::Metadata.name(), |metadata| {
        metadata.object("agnost", |agnost| {
            for (key, value) in unmapped {
                agnost.key(key);
                agnost.value(value);
            }
        });
        if let Some(org_id) = org_id {
            metadata.text("org_id", org_id);
        }
    });
}
