//! `GET /v1/events` and `GET /v1/events/{id}`.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use uuid::Uuid;

use super::context::Audit;
use super::context::store_failed;
use super::filter::Filter;
use super::source::{Order, Stream};
use super::streamed_response::{self, CHUNK_BYTES, ChunkSource};
use crate::http::{ApiError, Logged, PathSegments, QueryParams, Read, Turn, json_response, parse_number};
use crate::ledger::Ledger;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::read::{lookup, received};
use crate::ledger::store::StoreError;

/// The default length of a page, in events.
const LIMIT: usize = 100;
/// The greatest length of a page, in events.
const LIMIT_MAX: usize = 1000;
/// How long a list waits for the index to contain everything committed before the request.
const INDEX_WAIT: Duration = Duration::from_secs(1);

/// The parameters of a list.
struct ListParams {
    filter: Filter,
    order: Order,
    limit: usize,
    offset: u64,
    /// Where the page starts; from the `Link` header of the previous page.
    cursor: Option<Cursor>,
}

impl ListParams {
    fn parse(uri: &Uri, shards: usize) -> Result<ListParams, ApiError> {
        let mut params = QueryParams::of(uri)?;
        let filter = Filter::take(&mut params)?;
        let order = params.take_as("order", "asc or desc", |text| match text {
            "asc" => Some(Order::Asc),
            "desc" => Some(Order::Desc),
            _ => None,
        })?;
        let limit = |text: &str| parse_number(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = params.take_as("limit", "a number from 1 to 1000", limit)?;
        let offset = params.take_as("offset", "a number", parse_number)?;
        let cursor = params.take_as("cursor", "a cursor from a Link header", |text| text.parse().ok())?;
        params.finish()?;
        if cursor.as_ref().is_some_and(|cursor: &Cursor| cursor.0.len() != shards) {
            return Err(ApiError::bad_request("cursor: expected a cursor from a Link header of this server"));
        }
        Ok(ListParams {
            filter,
            order: order.unwrap_or(Order::Desc),
            limit: limit.unwrap_or(LIMIT),
            offset: offset.unwrap_or(0),
            cursor,
        })
    }
}

/// Where the next page of a list starts: a position in each shard. A time would not be enough: shards commit
/// concurrently, so an event may become visible after others that were received later, and must not be skipped.
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
        text.split('-')
            .map(|position| parse_number(position).map(Position).ok_or(()))
            .collect::<Result<_, _>>()
            .map(Cursor)
    }
}

/// `GET /v1/events/{id}`: one event.
pub async fn by_id(
    State(audit): State<Arc<Audit>>,
    PathSegments(id): PathSegments<String>,
    uri: Uri,
) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let not_found = || ApiError::not_found(format!("there is no event with the id {id:?}"));
    let uuid = Uuid::try_parse(&id).map_err(|_| not_found())?;
    let found = audit.read(Read::Point, move |audit, _| audit.ledger.find(uuid).map_err(store_failed)).await?;
    let (_, record) = found.ok_or_else(not_found)?;
    let status = if record.as_ref().is_erased() { StatusCode::GONE } else { StatusCode::OK };
    let mut response = json_response(status, audit.readers.hold(record.into_answer())?);
    // The answer is what was asked for, and no refusal.
    response.extensions_mut().insert(Logged);
    Ok(response)
}

/// `GET /v1/events`: a page of the events that match the parameters.
pub async fn list(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let params = ListParams::parse(&uri, audit.ledger.queues().len())?;
    if params.filter.agent.is_none() && params.filter.rarest_term().is_some() {
        let caught_up = audit.ledger.index().catch_up(audit.ledger.committed());
        tokio::time::timeout(INDEX_WAIT, caught_up)
            .await
            .map_err(|_| ApiError::unavailable("the index has not caught up with recent commits: try again later"))?;
    }
    let (started, next) = audit
        .read(Read::Scan, move |audit, turn| {
            let (locations, next) = page(audit, &params, turn).map_err(store_failed)?;
            let ledger = Arc::clone(&audit.ledger);
            Ok((
                streamed_response::begin(
                    audit,
                    PageWriter { ledger, locations: locations.into_iter(), is_first: true },
                )?,
                next,
            ))
        })
        .await?;
    let mut response = streamed_response::respond(audit, started);
    if let Some(next) = next {
        let link = format!("<{}>; rel=\"next\"", next_page(&uri, &next));
        // The path and query are those of a URI, and the cursor consists of digits and hyphens, so this is a valid
        // header value.
        response.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

/// The URI of the next page.
fn next_page(uri: &Uri, cursor: &Cursor) -> String {
    let parameters = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !matches!(name, "" | "cursor" | "offset")
    });
    let mut link = format!("{}?", uri.path());
    parameters.for_each(|pair| link.extend([pair, "&"]));
    link + "cursor=" + &cursor.to_string()
}

/// Finds the events of a page, and the cursor of the next page if there is one.
fn page(audit: &Audit, params: &ListParams, turn: &Turn) -> Result<(Vec<Location>, Option<Cursor>), StoreError> {
    let ledger = &audit.ledger;
    let mut streams = Vec::new();
    for shard in ledger.committed().shards() {
        let ranges = ranges(audit, params, shard)?;
        let mut stream = Stream::new(ledger, shard, &params.filter, params.order, ranges)?;
        let first = stream.next(&params.filter, turn)?;
        streams.push((first, stream));
    }
    let mut locations = Vec::new();
    let mut skipped = 0;
    loop {
        // Each stream is in order, so the next event of the list is the least of their first events.
        let heads = streams.iter_mut().filter_map(|(hit, stream)| hit.map(|at| (at, hit, stream)));
        let next = match params.order {
            Order::Asc => heads.min_by_key(|(at, ..)| *at),
            Order::Desc => heads.max_by_key(|(at, ..)| *at),
        };
        let Some((at, hit, stream)) = next else { return Ok((locations, None)) };
        if skipped < params.offset {
            skipped += 1;
        } else if locations.len() == params.limit {
            let cursor = streams.iter().map(|(hit, stream)| stream.resume_at(*hit)).collect();
            return Ok((locations, Some(Cursor(cursor))));
        } else {
            locations.push(at.location);
        }
        *hit = stream.next(&params.filter, turn)?;
    }
}

/// The positions of a shard that the time interval and the cursor permit, as ranges in ascending order.
fn ranges(audit: &Audit, params: &ListParams, shard: ShardId) -> Result<Vec<Range<Position>>, StoreError> {
    let end = audit.ledger.committed().next(shard);
    let (since_ms, until_ms) = (params.filter.since_ms, params.filter.until_ms);
    let mut ranges = received::ranges(audit.ledger.store(), shard, end, since_ms, until_ms)?;
    if let Some(&at) = params.cursor.as_ref().and_then(|cursor| cursor.0.get(usize::from(shard.0))) {
        for range in &mut ranges {
            match params.order {
                Order::Asc => range.start = range.start.max(at),
                Order::Desc => range.end = range.end.min(at),
            }
        }
    }
    Ok(ranges)
}

/// Writes a page in chunks.
struct PageWriter {
    ledger: Arc<Ledger>,
    locations: std::vec::IntoIter<Location>,
    is_first: bool,
}

impl ChunkSource for PageWriter {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError> {
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
