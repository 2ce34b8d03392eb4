//! `POST /v1/erasures`, `GET /v1/erasures`, and the calls of holds. Specified in `docs/http-api.md`, section "Erase".

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use axum::routing::{delete, get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::eraser::Eraser;
use super::holds::{self, Hold};
use super::select::{self, Kept, Selected};
use super::selection::Selection;
use crate::audit::context::{Audit, store_failed};
use crate::auth::{Client, fingerprint};
use crate::http::{ApiError, PathSegments, QueryParams, Read, json_response, parse_number};
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::StoreError;
use crate::recorder::{self, NotRecorded};
use crate::runtime::blocking;
use cairn_proof::chain::{Field, Sequence, scan, time};
use cairn_proof::evidence::recorder::action;

/// The most bytes of a request: all ranges of a record of an erasure, which is replayed.
const MAX_BODY_BYTES: usize = 4 << 20;
/// The most bytes of a reason.
const MAX_REASON_BYTES: usize = 1024;
/// How long a request waits until its erasure is completed.
const COMPLETE_WAIT: Duration = Duration::from_secs(60);
/// How long a request waits for the index to have everything that is committed.
const INDEX_WAIT: Duration = Duration::from_secs(10);
/// The default length of a page of erasures.
const LIMIT: usize = 100;
/// The greatest length of a page.
const LIMIT_MAX: usize = 1000;
/// The length of the records of a page, in bytes, after which it ends.
const PAGE_BYTES: usize = 2 << 20;

/// The calls that read.
pub fn read_routes(audit: Arc<Audit>) -> Router {
    Router::new().route("/v1/erasures", get(list)).route("/v1/holds", get(list_holds)).with_state(audit)
}

/// The calls that erase, and those that add and lift holds.
pub fn erasure_routes(audit: Arc<Audit>) -> Router {
    Router::new()
        .route("/v1/erasures", post(erase))
        .route("/v1/holds", post(add_hold))
        .route("/v1/holds/{id}", delete(lift_hold))
        .with_state(audit)
}

/// The members of a request besides its selection.
#[derive(Deserialize)]
struct Order {
    reason: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// Reads the body of a request: a selection, with the members of [`Order`] beside it.
async fn read_order(request: Request) -> Result<(Selection, Order), ApiError> {
    QueryParams::none(request.uri())?;
    let body = axum::body::to_bytes(request.into_body(), MAX_BODY_BYTES).await;
    let body = body.map_err(|_| ApiError::too_large(format!("expected at most {MAX_BODY_BYTES} bytes")))?;
    let mut members: Value = parse(&body)?;
    let order = members.as_object_mut().map(|members| {
        let order = ["reason", "dry_run"].into_iter().filter_map(|name| members.remove_entry(name));
        Value::Object(order.collect())
    });
    let order = order.ok_or_else(|| ApiError::bad_request("expected a JSON object"))?;
    let selection: Selection = parse(members.to_string().as_bytes())?;
    selection.check()?;
    Ok((selection, parse(order.to_string().as_bytes())?))
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(json).map_err(|error| {
        let message = error.to_string();
        // Refusals are logged, and what is to be erased must not be.
        let quotes = ["invalid type", "invalid value", "invalid length"].iter().any(|kind| message.starts_with(kind));
        ApiError::bad_request(if quotes {
            "a member has another type than docs/http-api.md says".to_owned()
        } else {
            message
        })
    })
}

/// The reason of a request, which is mandatory.
fn reason(text: Option<String>) -> Result<String, ApiError> {
    match text {
        Some(text) if !text.trim().is_empty() && text.len() <= MAX_REASON_BYTES => Ok(text),
        Some(_) => Err(ApiError::bad_request(format!("reason: expected 1 to {MAX_REASON_BYTES} bytes"))),
        None => Err(ApiError::bad_request("reason is required: it is recorded and stays")),
    }
}

/// What identifies the caller in records.
fn name_of(client: Client) -> Option<String> {
    match client {
        Client::Key(number) => Some(fingerprint(number)),
        Client::Peer(_) => None,
    }
}

fn not_recorded(error: NotRecorded) -> ApiError {
    ApiError::unavailable(format!(
        "not all of it could be recorded: {error}; GET /v1/erasures and /v1/holds show what was"
    ))
}

/// `POST /v1/erasures`: erases the events of a selection.
async fn erase(
    State(audit): State<Arc<Audit>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (selection, order) = read_order(request).await?;
    let reason = if order.dry_run { String::new() } else { reason(order.reason)? };
    // One at a time, until it is recorded: an event is erased once.
    let turn = Arc::clone(&audit.erasing).lock_owned().await;
    let caught_up = audit.ledger.index().catch_up(audit.ledger.committed());
    tokio::time::timeout(INDEX_WAIT, caught_up)
        .await
        .map_err(|_| ApiError::unavailable("the index has not caught up with recent commits: try again later"))?;
    let mut input = json!({"reason": reason, "key": name_of(client), "selected_by": selection.names()});
    for (name, time) in [("since", selection.since), ("until", selection.until)] {
        input[name] = json!(time);
    }
    let selected = audit
        .read(Read::Scan, move |audit, turn| {
            let store = audit.ledger.store();
            let kept = holds::all(store).and_then(|holds| {
                let recorded = recorder::erasures(store, audit.ledger.instance(), audit.eraser.done().next())?;
                Ok(Kept { holds, recorded })
            });
            select::select(&audit.ledger, &selection, &kept.map_err(store_failed)?, turn).map_err(store_failed)
        })
        .await?;
    let counts = json!({"events": selected.events, "held": selected.held, "already_erased": selected.erased});
    if order.dry_run {
        return answer(StatusCode::OK, counts, json!({"dry_run": true}));
    }
    // Not cancelled by a client that disconnects: what is recorded is carried out.
    let eraser = Arc::clone(&audit.eraser);
    let recording = tokio::spawn(async move {
        let _turn = turn;
        let records = record_all(&eraser, &input, selected).await;
        // What was recorded before an error is carried out.
        eraser.wake();
        records
    });
    // A panic is a bug and is propagated.
    let records = recording.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
    let Some(last) = records.last().copied() else {
        return answer(StatusCode::OK, counts, json!({"records": [], "completed": true}));
    };
    let completed = tokio::time::timeout(COMPLETE_WAIT, audit.eraser.wait_for(last)).await.is_ok();
    let status = if completed { StatusCode::OK } else { StatusCode::ACCEPTED };
    let records: Vec<u64> = records.iter().map(|record| record.0).collect();
    answer(status, counts, json!({"records": records, "completed": completed}))
}

/// Records an erasure. Returns the sequences of its records.
///
/// # Errors
/// When a record cannot be stored. Those before it are carried out.
pub async fn record_all(eraser: &Eraser, input: &Value, selected: Selected) -> Result<Vec<Sequence>, ApiError> {
    let mut records = Vec::new();
    for output in selected.records {
        // A map of strings and numbers can always be serialized.
        let output = serde_json::to_value(output).unwrap_or_default();
        let record = eraser.recorder.record(action::ERASURE, input, Some(&output)).await.map_err(not_recorded)?;
        records.push(record.as_ref().sequence());
    }
    Ok(records)
}

fn answer(status: StatusCode, mut members: Value, more: Value) -> Result<Response<Body>, ApiError> {
    if let (Some(members), Value::Object(more)) = (members.as_object_mut(), more) {
        members.extend(more);
    }
    Ok(json_response(status, members.to_string()))
}

/// `GET /v1/erasures`: what was erased, when, by which key, and why; the oldest first.
async fn list(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let limit = |text: &str| parse_number(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
    let limit = params.take_as("limit", "a number from 1 to 1000", limit)?.unwrap_or(LIMIT);
    let cursor = params.take_as("cursor", "a cursor from a Link header", parse_number::<u64>)?;
    params.finish()?;
    let (erasures, next) = audit
        .read(Read::Scan, move |audit, turn| {
            let (mut erasures, mut bytes, mut next, done) = (Vec::new(), 0, None, audit.eraser.done());
            let (store, instance) = (audit.ledger.store(), audit.ledger.instance());
            let read = recorder::read(store, instance, Sequence(cursor.unwrap_or(1).max(1)), |_, record| {
                if record.value(Field::ActionName).and_then(scan::text).as_deref() != Some(action::ERASURE) {
                    return if turn.is_over() { Err(StoreError::Cancelled) } else { Ok(()) };
                }
                if erasures.len() >= limit || bytes >= PAGE_BYTES {
                    next = Some(record.sequence().0);
                    return Err(StoreError::Cancelled);
                }
                bytes += record.canonical().len();
                erasures.push(describe(record, done));
                Ok(())
            });
            match read {
                Err(StoreError::Cancelled) => Ok((erasures, next)),
                read => read.map(|()| (erasures, next)).map_err(store_failed),
            }
        })
        .await?;
    let mut response = audit.readers.json(Value::from(erasures).to_string())?;
    if let Some(next) = next {
        let link = format!("<{}?limit={limit}&cursor={next}>; rel=\"next\"", uri.path());
        response.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

fn describe(record: RecordRef<'_>, done: Sequence) -> Value {
    let text = |field| record.value(field).and_then(scan::text).unwrap_or_default();
    let json = |field| -> Value {
        record.value(field).map_or(Value::Null, |value| serde_json::from_slice(value).unwrap_or_default())
    };
    let (mut input, output) = (json(Field::ActionInput), json(Field::ActionOutput));
    let mut take = |name: &str| input.get_mut(name).map_or(Value::Null, Value::take);
    json!({
        "id": text(Field::Id),
        "recorder": text(Field::AgentId),
        "sequence": record.sequence().0,
        "at": text(Field::ReceivedAt),
        "key": take("key"),
        "reason": take("reason"),
        "selected_by": take("selected_by"),
        "since": take("since"),
        "until": take("until"),
        "events": output["events"],
        "agents": output["agents"],
        "completed": record.sequence() <= done,
    })
}

/// `GET /v1/holds`: all holds.
async fn list_holds(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let holds = audit.read(Read::Point, |audit, _| holds::all(audit.ledger.store()).map_err(store_failed)).await?;
    audit.readers.json(Value::from_iter(holds.iter().map(Hold::to_json)).to_string())
}

/// `POST /v1/holds`: keeps the events of a selection, also those that come later.
async fn add_hold(
    State(audit): State<Arc<Audit>>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response<Body>, ApiError> {
    let (selection, order) = read_order(request).await?;
    let is_limited = selection.since.is_some() || selection.until.is_some() || !selection.agents.is_empty();
    if order.dry_run || is_limited {
        return Err(ApiError::bad_request("a hold has no since, until, agents and dry_run"));
    }
    let (reason, key) = (reason(order.reason)?, name_of(client));
    let added_at = String::from_utf8_lossy(&time::format_ms(crate::runtime::now_ms())).into_owned();
    let hold = Hold::new(Uuid::new_v4(), selection, reason, added_at, key);
    let described = hold.to_json();
    let input = record_of(&hold, "added", &hold.reason, hold.added_by.as_deref());
    uninterrupted(&audit, move |audit| async move {
        // Stored first: events must not be erased although the record says that they are held.
        change_holds(&audit, move |all| all.push(hold)).await?;
        audit.eraser.recorder.record(action::HOLD, &input, None).await.map_err(not_recorded)?;
        Ok(())
    })
    .await?;
    Ok(json_response(StatusCode::CREATED, described.to_string()))
}

/// Runs `work` as the only change of erasures and holds, to its end also if the client disconnects.
async fn uninterrupted<T: Send + 'static, F: Future<Output = Result<T, ApiError>> + Send>(
    audit: &Arc<Audit>,
    work: impl FnOnce(Arc<Audit>) -> F + Send + 'static,
) -> Result<T, ApiError> {
    let (turn, audit) = (Arc::clone(&audit.erasing).lock_owned().await, Arc::clone(audit));
    let working = tokio::spawn(async move {
        let _turn = turn;
        work(audit).await
    });
    // A panic is a bug and is propagated.
    working.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// `DELETE /v1/holds/{id}?reason=`: lifts a hold.
async fn lift_hold(
    State(audit): State<Arc<Audit>>,
    Extension(client): Extension<Client>,
    PathSegments(id): PathSegments<String>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let reason = reason(params.take("reason")?)?;
    params.finish()?;
    let not_found = || ApiError::not_found(format!("there is no hold {id:?}"));
    let id = Uuid::try_parse(&id).map_err(|_| not_found())?;
    let key = name_of(client);
    uninterrupted(&audit, move |audit| async move {
        let all = read_holds(&audit).await?;
        let hold = all.into_iter().find(|hold| hold.id == id);
        let hold = hold.ok_or_else(|| ApiError::not_found(format!("there is no hold {id}")))?;
        let input = record_of(&hold, "lifted", &reason, key.as_deref());
        // Recorded first: a hold that is gone without a record would not be noticed.
        audit.eraser.recorder.record(action::HOLD, &input, None).await.map_err(not_recorded)?;
        change_holds(&audit, move |all| all.retain(|hold| hold.id != id)).await
    })
    .await?;
    Ok(json_response(StatusCode::OK, json!({"id": id.to_string(), "lifted": true}).to_string()))
}

/// The record of a change of a hold: without the values of its selection.
fn record_of(hold: &Hold, change: &str, reason: &str, key: Option<&str>) -> Value {
    json!({"hold": hold.id.to_string(), "change": change, "selected_by": hold.selection.names(), "reason": reason, "key": key})
}

/// All holds. Not among the reads that are bounded in time: what was begun has to be completed.
async fn read_holds(audit: &Arc<Audit>) -> Result<Vec<Hold>, ApiError> {
    let audit = Arc::clone(audit);
    blocking(move || holds::all(audit.ledger.store()).map_err(store_failed)).await
}

/// Changes the stored holds.
async fn change_holds(
    audit: &Arc<Audit>,
    change: impl FnOnce(&mut Vec<Hold>) + Send + 'static,
) -> Result<(), ApiError> {
    let mut all = read_holds(audit).await?;
    change(&mut all);
    let audit = Arc::clone(audit);
    blocking(move || holds::store_all(audit.ledger.store(), &all).map_err(store_failed)).await
}
