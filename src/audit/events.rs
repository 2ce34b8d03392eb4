//! `GET /v1/events` and `GET /v1/events/{id}`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use uuid::Uuid;

use super::context::Audit;
use super::context::Cancelled;
use super::context::store_failed;
use super::filter::Filter;
use super::source::{Order, Stream};
use super::streamed_response::{self, CHUNK_BYTES, ChunkSource};
use crate::http::{ApiError, PathSegments, QueryParams, json_response, number};
use crate::ledger::Ledger;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::Record;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;

/// How many events a page has, if the call does not say.
const LIMIT: usize = 100;
/// How many it has at most.
const LIMIT_MAX: usize = 1000;
/// How long a list waits for the index to see what was committed before it.
const INDEX_WAIT: Duration = Duration::from_secs(1);

/// What a list call asks for.
struct ListCall {
    filter: Filter,
    order: Order,
    limit: usize,
    offset: u64,
    /// Go on from here.
    cursor: Option<Cursor>,
}

impl ListCall {
    fn read(uri: &Uri, shards: usize) -> Result<ListCall, ApiError> {
        let mut params = QueryParams::of(uri)?;
        let filter = Filter::take(&mut params)?;
        let order = params.take_as("order", "asc or desc", |text| match text {
            "asc" => Some(Order::Asc),
            "desc" => Some(Order::Desc),
            _ => None,
        })?;
        let limit = |text: &str| number(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = params.take_as("limit", "a number from 1 to 1000", limit)?;
        let offset = params.take_as("offset", "a number", number)?;
        let cursor = params.take_as("cursor", "a cursor from a Link header", |text| text.parse().ok())?;
        params.end()?;
        if cursor.as_ref().is_some_and(|cursor: &Cursor| cursor.0.len() != shards) {
            return Err(ApiError::bad_request("cursor: expected a cursor from a Link header of this server"));
        }
        Ok(ListCall {
            filter,
            order: order.unwrap_or(Order::Desc),
            limit: limit.unwrap_or(LIMIT),
            offset: offset.unwrap_or(0),
            cursor,
        })
    }
}

/// Where a list goes on: a position in each shard. Times would not do: shards commit side by side, so an event may
/// come into sight after others that were received later, and must not be passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor(Vec<Position>);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions: Vec<String> = self.0.iter().map(|position| position.0.to_string()).collect();
        f.write_str(&positions.join("-"))
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        text.split('-').map(|position| number(position).map(Position).ok_or(())).collect::<Result<_, _>>().map(Cursor)
    }
}

/// `GET /v1/events/{id}`
pub async fn by_id(
    State(audit): State<Arc<Audit>>,
    PathSegments(id): PathSegments<String>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let not_found = || ApiError::not_found(format!("there is no event with the id {id:?}"));
    let uuid = Uuid::try_parse(&id).map_err(|_| not_found())?;
    let found = audit.read(move |audit, _| audit.ledger.find(uuid).map_err(store_failed)).await?;
    let held = |(_, record): (Location, Record)| {
        json_response(StatusCode::OK, audit.memory_budget.reserve().hold(record.into_answer()))
    };
    found.map(held).ok_or_else(not_found)
}

/// `GET /v1/events`
pub async fn list(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let call = ListCall::read(&uri, audit.ledger.queues().len())?;
    if call.filter.agent.is_none() && call.filter.rarest_term().is_some() {
        let caught_up = audit.ledger.index().catch_up(audit.ledger.committed());
        tokio::time::timeout(INDEX_WAIT, caught_up)
            .await
            .map_err(|_| ApiError::unavailable("the index is behind; try again"))?;
    }
    let (started, next) = audit
        .read(move |audit, cancelled| {
            let (locations, next) = page(audit, &call, cancelled).map_err(store_failed)?;
            let ledger = Arc::clone(&audit.ledger);
            Ok((
                streamed_response::begin(audit, Writer { ledger, locations: locations.into_iter(), is_first: true })?,
                next,
            ))
        })
        .await?;
    let mut response = streamed_response::respond(audit, started);
    if let Some(next) = next {
        let link = format!("<{}>; rel=\"next\"", next_page(&uri, &next));
        // The path and query came in as a URI, and the cursor is made of digits.
        response.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

/// The same call, from where this page ended.
fn next_page(uri: &Uri, cursor: &Cursor) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !matches!(name, "" | "cursor" | "offset")
    });
    let mut link = format!("{}?", uri.path());
    kept.for_each(|pair| link.extend([pair, "&"]));
    link + "cursor=" + &cursor.to_string()
}

/// Finds the events of a page, and the cursor of the next one if there is one.
fn page(audit: &Audit, call: &ListCall, cancelled: &Cancelled) -> Result<(Vec<Location>, Option<Cursor>), StoreError> {
    let ledger = &audit.ledger;
    let mut streams = Vec::new();
    for shard in ledger.committed().shards() {
        let (low, high) = bounds(audit, call, shard)?;
        let mut stream = Stream::new(ledger, shard, &call.filter, call.order, low, high)?;
        let first = stream.next(&call.filter, cancelled)?;
        streams.push((first, stream));
    }
    let mut locations = Vec::new();
    let mut skipped = 0;
    loop {
        // Each shard is in order; the next event is the first of their firsts.
        let waiting = streams.iter_mut().filter_map(|(hit, stream)| hit.map(|at| (at, hit, stream)));
        let next = match call.order {
            Order::Asc => waiting.min_by_key(|(at, ..)| *at),
            Order::Desc => waiting.max_by_key(|(at, ..)| *at),
        };
        let Some((at, hit, stream)) = next else { return Ok((locations, None)) };
        if skipped < call.offset {
            skipped += 1;
        } else if locations.len() == call.limit {
            let cursor = streams.iter().map(|(hit, stream)| stream.resume_at(*hit)).collect();
            return Ok((locations, Some(Cursor(cursor))));
        } else {
            locations.push(at.location);
        }
        *hit = stream.next(&call.filter, cancelled)?;
    }
}

/// Between which positions of a shard the call's times and cursor lie.
fn bounds(audit: &Audit, call: &ListCall, shard: ShardId) -> Result<(Position, Position), StoreError> {
    let end = audit.ledger.committed().next(shard);
    let since = |ms: u64| {
        let found = lookup::first_since(audit.ledger.store(), shard, ms);
        found.map(|found| found.unwrap_or(end))
    };
    let mut low = call.filter.since_ms.map_or(Ok(Position(0)), since)?;
    let mut high = call.filter.until_ms.map_or(Ok(end), since)?;
    if let Some(&at) = call.cursor.as_ref().and_then(|cursor| cursor.0.get(usize::from(shard.0))) {
        match call.order {
            Order::Asc => low = low.max(at),
            Order::Desc => high = high.min(at),
        }
    }
    Ok((low, high.min(end)))
}

/// Writes a page piece by piece.
struct Writer {
    ledger: Arc<Ledger>,
    locations: std::vec::IntoIter<Location>,
    is_first: bool,
}

impl ChunkSource for Writer {
    fn make(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        while out.len() < CHUNK_BYTES {
            let Some(location) = self.locations.next() else {
                out.extend_from_slice(if self.is_first { b"[]" } else { b"]" });
                return Ok(false);
            };
            let Some(record) = lookup::record(self.ledger.store(), location).map_err(store_failed)? else { continue };
            out.push(if self.is_first { b'[' } else { b',' });
            self.is_first = false;
            record.as_ref().write_answer(out);
        }
        Ok(true)
    }
}
