//! `GET /v1/events` and `GET /v1/events/{id}`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Response, StatusCode, Uri, header};
use bytes::Bytes;
use futures_util::stream;
use uuid::Uuid;

use super::filter::Filter;
use super::params::Params;
use super::source::{Hit, Order, Stream};
use super::{Audit, Cancelled, store_failed};
use crate::http::{Problem, Reserved, json_response};
use crate::ledger::keys::{Place, Position, ShardId};
use crate::ledger::read;
use crate::ledger::store::StoreError;

/// How many events a page has, if the call does not say.
const LIMIT: usize = 100;
/// How many it has at most.
const LIMIT_MAX: usize = 1000;
/// How much of an answer is made at a time, give or take an event.
const PIECE_BYTES: usize = 64 << 10;
/// How long a list waits for the index to see what was committed before it.
const INDEX_WAIT: Duration = Duration::from_secs(1);

/// What a list call asks for.
struct ListCall {
    filter: Filter,
    order: Order,
    limit: usize,
    offset: u64,
    /// Go on behind this event.
    cursor: Option<Hit>,
}

impl ListCall {
    fn read(uri: &Uri) -> Result<ListCall, Problem> {
        let mut params = Params::of(uri)?;
        let filter = Filter::take(&mut params)?;
        let order = params.take_as("order", "asc or desc", |text| match text {
            "asc" => Some(Order::Asc),
            "desc" => Some(Order::Desc),
            _ => None,
        })?;
        let limit = |text: &str| text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
        let limit = params.take_as("limit", "a number from 1 to 1000", limit)?;
        let offset = params.take_as("offset", "a number", |text| text.parse().ok())?;
        let cursor = params.take_as("cursor", "a cursor from a Link header", |text| text.parse().ok())?;
        params.end()?;
        Ok(ListCall {
            filter,
            order: order.unwrap_or(Order::Desc),
            limit: limit.unwrap_or(LIMIT),
            offset: offset.unwrap_or(0),
            cursor,
        })
    }
}

/// A cursor is the event that it stands behind: `ms-shard-position`.
impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.ms, self.place.shard.0, self.place.position.0)
    }
}

impl FromStr for Hit {
    type Err = ();

    fn from_str(text: &str) -> Result<Hit, ()> {
        let mut numbers = text.split('-').map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).ok_or(());
        let (ms, shard, position) = (next()?, next()?, next()?);
        if numbers.next().is_some() {
            return Err(());
        }
        let shard = ShardId(u16::try_from(shard).map_err(|_| ())?);
        Ok(Hit { ms, place: Place { shard, position: Position(position) } })
    }
}

/// `GET /v1/events/{id}`
pub async fn by_id(State(audit): State<Arc<Audit>>, Path(id): Path<String>) -> Result<Response<Body>, Problem> {
    let not_found = || Problem::not_found(format!("there is no event with the id {id:?}"));
    let uuid = Uuid::try_parse(&id).map_err(|_| not_found())?;
    let found = audit.read(move |audit, _| audit.ledger.find(uuid).map_err(store_failed)).await?;
    found.map(|record| json_response(StatusCode::OK, record.into_answer())).ok_or_else(not_found)
}

/// `GET /v1/events`
pub async fn list(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, Problem> {
    let call = ListCall::read(&uri)?;
    if call.filter.agent.is_none() && call.filter.rarest_term().is_some() {
        let caught_up = audit.ledger.index().catch_up(audit.ledger.committed());
        tokio::time::timeout(INDEX_WAIT, caught_up)
            .await
            .map_err(|_| Problem::unavailable("the index is behind; try again"))?;
    }
    let (mut writer, next) = audit
        .read(move |audit, cancelled| {
            let (hits, next) = page(audit, &call, cancelled).map_err(store_failed)?;
            let mut writer = Writer::new(audit, hits);
            writer.write_piece(audit)?;
            Ok((writer, next))
        })
        .await?;
    let mut response = if writer.done {
        json_response(StatusCode::OK, std::mem::take(&mut writer.piece))
    } else {
        stream_pieces(audit, writer)
    };
    if let Some(next) = next {
        let link = format!("<{}>; rel=\"next\"", next_page(&uri, &next));
        // The path and query came in as a URI, and the cursor is made of digits.
        response.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

/// The same call, behind the last event of this page.
fn next_page(uri: &Uri, cursor: &Hit) -> String {
    let kept = uri.query().unwrap_or_default().split('&').filter(|pair| {
        let name = pair.split('=').next().unwrap_or_default();
        !matches!(name, "" | "cursor" | "offset")
    });
    let mut link = format!("{}?", uri.path());
    kept.for_each(|pair| link.extend([pair, "&"]));
    link + "cursor=" + &cursor.to_string()
}

/// Finds the events of a page, and the cursor of the next one if there is one.
fn page(audit: &Audit, call: &ListCall, cancelled: &Cancelled) -> Result<(Vec<Place>, Option<Hit>), StoreError> {
    let ledger = &audit.ledger;
    let mut streams = Vec::new();
    for shard in ledger.committed().shards() {
        let (low, high) = bounds(audit, call, shard)?;
        let mut stream = Stream::new(ledger, shard, &call.filter, call.order, low, high)?;
        let first = stream.next(&call.filter, cancelled)?;
        streams.push((first, stream));
    }
    let mut hits: Vec<Hit> = Vec::new();
    let mut skipped = 0;
    loop {
        // Each shard is in order; the next event is the first of their firsts.
        let waiting = streams.iter_mut().filter_map(|(hit, stream)| hit.map(|at| (at, hit, stream)));
        let next = match call.order {
            Order::Asc => waiting.min_by_key(|(at, ..)| *at),
            Order::Desc => waiting.max_by_key(|(at, ..)| *at),
        };
        let Some((at, hit, stream)) = next else { break };
        if skipped < call.offset {
            skipped += 1;
        } else if hits.len() == call.limit {
            let cursor = hits.last().copied();
            return Ok((hits.into_iter().map(|hit| hit.place).collect(), cursor));
        } else {
            hits.push(at);
        }
        *hit = stream.next(&call.filter, cancelled)?;
    }
    Ok((hits.into_iter().map(|hit| hit.place).collect(), None))
}

/// Between which positions of a shard the call's times and cursor lie.
fn bounds(audit: &Audit, call: &ListCall, shard: ShardId) -> Result<(Position, Position), StoreError> {
    let store = audit.ledger.store();
    let end = audit.ledger.committed().next(shard);
    let since = |ms: u64| read::first_since(store, shard, ms).map(|found| found.unwrap_or(end));
    let mut low = call.filter.since_ms.map_or(Ok(Position(0)), since)?;
    let mut high = call.filter.until_ms.map_or(Ok(end), since)?;
    if let Some(Hit { ms, place }) = call.cursor {
        // Where the cursor's event stands among the events of this shard.
        let (at, behind) = if shard == place.shard {
            (place.position, place.position.next())
        } else {
            let same_ms_is_before = shard < place.shard;
            let at = since(if same_ms_is_before { ms + 1 } else { ms })?;
            (at, at)
        };
        match call.order {
            Order::Asc => low = low.max(behind),
            Order::Desc => high = high.min(at),
        }
    }
    Ok((low, high.min(end)))
}

/// Writes a page piece by piece.
struct Writer {
    places: std::vec::IntoIter<Place>,
    first: bool,
    done: bool,
    reserved: Reserved,
    piece: Bytes,
}

impl Writer {
    fn new(audit: &Audit, places: Vec<Place>) -> Writer {
        let reserved = audit.inflight.reserve();
        Writer { places: places.into_iter(), first: true, done: false, reserved, piece: Bytes::new() }
    }

    /// Makes the next piece, and gives back the memory of the last one.
    fn write_piece(&mut self, audit: &Audit) -> Result<(), Problem> {
        let mut out = Vec::with_capacity(PIECE_BYTES);
        while out.len() < PIECE_BYTES {
            let Some(place) = self.places.next() else {
                out.extend_from_slice(if self.first { b"[]" } else { b"]" });
                self.done = true;
                break;
            };
            let Some(record) = read::record(audit.ledger.store(), place).map_err(store_failed)? else { continue };
            out.push(if self.first { b'[' } else { b',' });
            self.first = false;
            record.as_ref().write_answer(&mut out);
        }
        self.reserved = audit.inflight.reserve();
        self.reserved.grow(out.len())?;
        self.piece = out.into();
        Ok(())
    }
}

/// Sends a page whose first piece is made; the next one is made when the reader has taken the last.
fn stream_pieces(audit: Arc<Audit>, writer: Writer) -> Response<Body> {
    let pieces = stream::try_unfold((audit, Some(writer)), |(audit, writer)| async move {
        let Some(mut writer) = writer else { return Ok(None) };
        let piece = std::mem::take(&mut writer.piece);
        if !piece.is_empty() {
            return Ok(Some((piece, (audit, Some(writer)))));
        }
        if writer.done {
            return Ok(None);
        }
        let made = audit.read(move |audit, _| writer.write_piece(audit).map(|()| writer)).await;
        // The head is sent: all that can be done is to break off, so that nobody takes this for the whole.
        let mut writer = made.map_err(|problem| std::io::Error::other(problem.message))?;
        let piece = std::mem::take(&mut writer.piece);
        Ok::<_, std::io::Error>(Some((piece, (audit, Some(writer)))))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
