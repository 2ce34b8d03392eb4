//! `GET /v1/relay`, and the calls for dead letters under `/v1/relay/{destination}/dead-letters`. Specified in
//! `docs/relay.md`, sections "Status" and "Dead letters".

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, Uri, header};
use axum::routing::{delete, get, post};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::backlog::DeadLetter;
use super::commands::{Action, Command, CommandResult};
use super::destinations::Relay;
use super::handle::DestinationHandle;
use super::status::Shared;
use crate::http::{ApiError, PathSegments, QueryParams, Read, parse_number};
use crate::ledger::Ledger;
use crate::ledger::format::record::Record;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;
use cairn_proof::chain::{Field, scan, time};

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;

const LETTERS: &str = "/v1/relay/{destination}/dead-letters";

/// The routes that read.
pub fn read_routes(relay: Arc<Relay>) -> Router {
    Router::new()
        .route("/v1/relay", get(status))
        .route(LETTERS, get(list))
        .route(&format!("{LETTERS}/{{id}}"), get(show))
        .with_state(relay)
}

/// The routes that retry and drop dead letters.
pub fn dead_letter_routes(relay: Arc<Relay>) -> Router {
    Router::new()
        .route(LETTERS, delete(drop_all))
        .route(&format!("{LETTERS}/retry"), post(retry_all))
        .route(&format!("{LETTERS}/{{id}}"), delete(drop_one))
        .route(&format!("{LETTERS}/{{id}}/retry"), post(retry_one))
        .with_state(relay)
}

impl Relay {
    fn destination(&self, name: &str) -> Result<Arc<DestinationHandle>, ApiError> {
        let handles = self.handles();
        let found = handles.iter().find(|handle| handle.spec.name() == name).cloned();
        found.ok_or_else(|| {
            let names = handles.iter().map(|handle| handle.spec.name()).collect::<Vec<_>>().join(", ");
            let names = if names.is_empty() { "none".to_owned() } else { names };
            ApiError::not_found(format!("there is no destination {name:?}; configured destinations: {names}"))
        })
    }

    /// Runs `work`, which reads the database, on a blocking thread.
    async fn read<T: Send + 'static>(
        self: &Arc<Relay>,
        read: Read,
        work: impl FnOnce(&Relay) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let relay = Arc::clone(self);
        self.readers.run(read, move |_| work(&relay)).await
    }
}

fn store_failed(error: StoreError) -> ApiError {
    tracing::error!(%error, "reading the ledger failed");
    ApiError::unavailable(format!("the ledger could not be read: {error}"))
}

fn time_text(ms: u64) -> String {
    String::from_utf8_lossy(&time::format_ms(ms)).into_owned()
}

async fn status(State(relay): State<Arc<Relay>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let described = relay
        .read(Read::Scan, |relay| {
            let handles = relay.handles();
            let all = handles.iter().map(|handle| describe(&relay.ledger, &handle.shared));
            all.collect::<Result<Vec<Value>, _>>().map_err(store_failed)
        })
        .await?;
    relay.readers.json(json!({ "destinations": described }).to_string())
}

fn describe(ledger: &Ledger, shared: &Shared) -> Result<Value, StoreError> {
    let status = shared.status();
    let last_error = status.last_error.as_ref();
    if !status.is_loaded {
        let (name, kind, endpoint) = (&shared.name, shared.kind, &shared.endpoint);
        return Ok(json!({"name": name, "type": kind, "endpoint": endpoint, "circuit": "starting"}));
    }
    Ok(json!({
        "name": shared.name,
        "type": shared.kind,
        "endpoint": shared.endpoint,
        "circuit": if status.is_open { "open" } else { "closed" },
        "sent": status.sent,
        "backlog": status.backlog(ledger.committed()),
        "in_flight": status.in_flight,
        "oldest_unsent": status.oldest_ms(ledger)?.map(time_text),
        "last_sent": status.last_sent_ms.map(time_text),
        "next_try": status.next_try_ms.map(time_text),
        "last_error": last_error.map(|error| json!({"at": time_text(error.at_ms), "message": error.message})),
        "dead_letters": status.dead_letters,
    }))
}

async fn list(
    State(relay): State<Arc<Relay>>,
    PathSegments(destination): PathSegments<String>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let limit = |text: &str| parse_number(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
    let limit = params.take_as("limit", "a number from 1 to 1000", limit)?.unwrap_or(LIMIT);
    let cursor = params.take_as("cursor", "a cursor from a Link header", |text| Uuid::try_parse(text).ok())?;
    params.finish()?;
    let (letters, next) = relay
        .read(Read::Scan, move |relay| {
            let backlog = &relay.destination(&destination)?.shared.backlog;
            // One more than the page shows whether there is a next page.
            let mut letters = backlog.dead_letters(cursor, limit + 1).map_err(store_failed)?;
            let next = (letters.len() > limit).then(|| letters.truncate(limit));
            let next = next.and_then(|()| letters.last().map(|(id, _)| *id));
            let described = letters.iter().map(|(id, letter)| {
                let record = lookup::record(relay.ledger.store(), letter.location()).map_err(store_failed)?;
                Ok(describe_letter(*id, letter, record.as_ref()))
            });
            Ok((described.collect::<Result<Vec<Value>, ApiError>>()?, next))
        })
        .await?;
    let mut response = relay.readers.json(Value::from(letters).to_string())?;
    if let Some(next) = next {
        let link = format!("<{}?limit={limit}&cursor={next}>; rel=\"next\"", uri.path());
        response.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

fn describe_letter(id: Uuid, letter: &DeadLetter, record: Option<&Record>) -> Value {
    let text = |field| {
        let value = record.and_then(|record| record.as_ref().value(field));
        value.and_then(scan::text).map(|text| text.into_owned())
    };
    json!({
        "event_id": id.to_string(),
        "agent_id": text(Field::AgentId),
        "session_id": text(Field::SessionId),
        "refused_at": time_text(letter.refused_ms),
        "refused": if letter.is_session { "session" } else { "event" },
        "status": letter.status,
        "answer": letter.answer,
    })
}

async fn show(
    State(relay): State<Arc<Relay>>,
    PathSegments((destination, id)): PathSegments<(String, String)>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let id = parse_id(&id)?;
    let shown = relay
        .read(Read::Point, move |relay| {
            let backlog = &relay.destination(&destination)?.shared.backlog;
            let letter = backlog.dead_letter(id).map_err(store_failed)?.ok_or_else(|| not_a_dead_letter(id))?;
            let record = lookup::record(relay.ledger.store(), letter.location()).map_err(store_failed)?;
            let mut described = describe_letter(id, &letter, record.as_ref());
            let mut event = Vec::new();
            if let Some(record) = &record {
                record.as_ref().write_answer(&mut event);
            }
            described["event"] = serde_json::from_slice(&event).unwrap_or_default();
            Ok(described)
        })
        .await?;
    relay.readers.json(shown.to_string())
}

fn parse_id(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text).map_err(|_| ApiError::bad_request(format!("expected the id of an event, found {text:?}")))
}

fn not_a_dead_letter(id: Uuid) -> ApiError {
    ApiError::not_found(format!("event {id} is not a dead letter"))
}

type LetterPath = PathSegments<(String, String)>;

async fn retry_all(
    state: State<Arc<Relay>>,
    PathSegments(destination): PathSegments<String>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    command(&state, &uri, (Action::Retry, &destination), None).await
}

async fn drop_all(
    state: State<Arc<Relay>>,
    PathSegments(destination): PathSegments<String>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    command(&state, &uri, (Action::Drop, &destination), None).await
}

async fn retry_one(
    state: State<Arc<Relay>>,
    PathSegments(path): LetterPath,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    command(&state, &uri, (Action::Retry, &path.0), Some(parse_id(&path.1)?)).await
}

async fn drop_one(
    state: State<Arc<Relay>>,
    PathSegments(path): LetterPath,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    command(&state, &uri, (Action::Drop, &path.0), Some(parse_id(&path.1)?)).await
}

async fn command(
    relay: &Relay,
    uri: &Uri,
    (action, destination): (Action, &str),
    event: Option<Uuid>,
) -> Result<Response<Body>, ApiError> {
    // A parameter that looks like a selection must not be ignored: all dead letters would be retried or dropped.
    QueryParams::none(uri)?;
    let (reply, replied) = oneshot::channel();
    let ended = || ApiError::unavailable("the relay is shutting down or restarting: try again later");
    relay.destination(destination)?.commands.send(Command { action, event, reply }).map_err(|_| ended())?;
    let CommandResult { count, left } = replied.await.map_err(|_| ended())?.map_err(store_failed)?;
    if let Some(id) = event.filter(|_| count == 0) {
        return Err(not_a_dead_letter(id));
    }
    match action {
        Action::Retry => tracing::info!(destination, count, left, "dead letters queued for retry"),
        Action::Drop => tracing::info!(destination, count, left, "dead letters dropped"),
    }
    let done = match action {
        Action::Retry => json!({ "retried": count, "left": left }),
        Action::Drop => json!({ "dropped": count, "left": left }),
    };
    relay.readers.json(done.to_string())
}
