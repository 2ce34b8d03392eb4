//! The calls of the transparency log: `/v1/merkle/root`, `/v1/proof`, `/v1/consistency`, and `/log/...` as C2SP
//! tlog-tiles specifies.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, Uri, header};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tlog_tiles::Hash as Node;
use uuid::Uuid;

use super::context::Audit;
use super::context::store_failed;
use crate::http::{ApiError, PathSegments, QueryParams, Read, parse_number};
use crate::ledger::format::keys::Location;
use crate::tlog::prune::Pruned;
use crate::tlog::{self, SignedTree};
use cairn_proof::chain::Hash;
use cairn_proof::tree::{TilePath, WIDTH};

/// The caching of full tiles, which never change.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// The caching of partial tiles and checkpoints.
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Audit {
    /// The last signed tree; 503 if there is none.
    pub(super) fn signed(&self) -> Result<Arc<SignedTree>, ApiError> {
        match self.log.state() {
            tlog::State::Signed(signed) => Ok(signed),
            tlog::State::Starting => Err(ApiError::unavailable("the log is starting")),
            tlog::State::Stopped(reason) => Err(ApiError::unavailable(reason.to_string())),
        }
    }
}

/// Whether retention has dropped the event of a leaf.
fn is_pruned(signed: &SignedTree, leaf: u64) -> bool {
    Pruned::read(signed.store()).is_ok_and(|pruned| leaf < pruned.first)
}

fn hex(node: &Node) -> String {
    Hash(node.0).to_string()
}

fn note(signed: &SignedTree) -> String {
    String::from_utf8_lossy(&signed.note).into_owned()
}

/// `GET /v1/merkle/root`: root, size and checkpoint of the last signed tree.
pub async fn root(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let signed = audit.signed()?;
    let pruned = Pruned::read(signed.store()).map_err(store_failed)?;
    let root = json!({"root": hex(&signed.root), "tree_size": signed.size, "minimum_index": pruned.first,
        "checkpoint": note(&signed)});
    audit.readers.json(root.to_string())
}

/// `GET /v1/proof?id=`: proves that an event is in the last signed tree.
pub async fn proof(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let id = params.take_as("id", "the id of an event", |text| Uuid::try_parse(text).ok())?;
    params.finish()?;
    let id = id.ok_or_else(|| ApiError::bad_request("id: expected the id of an event"))?;
    let signed = audit.signed()?;
    let proof = audit
        .read(Read::Point, move |audit, _| {
            let found = audit.ledger.find(id).map_err(store_failed)?;
            let (location, _) =
                found.ok_or_else(|| ApiError::not_found(format!("there is no event with the id {id}")))?;
            describe_proof(&signed, id, location)
        })
        .await?;
    audit.readers.json(proof.to_string())
}

fn describe_proof(signed: &SignedTree, id: Uuid, location: Location) -> Result<Value, ApiError> {
    if !signed.covers(location) {
        return Err(ApiError::unavailable("the event is not yet under a signed checkpoint"));
    }
    let mut proof = receipt(signed, location)?;
    proof["event_id"] = id.to_string().into();
    Ok(proof)
}

/// The receipt of an event: the proof that it is in a signed tree. The tree must cover the event.
///
/// # Errors
/// 503 when the database cannot be read.
pub fn receipt(signed: &SignedTree, location: Location) -> Result<Value, ApiError> {
    let proof = signed.prove(location).map_err(store_failed)?;
    Ok(json!({
        "leaf_index": proof.leaf,
        "tree_size": signed.size,
        "leaf_hash": hex(&proof.leaf_hash),
        "siblings": proof.siblings.iter().map(hex).collect::<Vec<_>>(),
        "checkpoint": note(signed),
    }))
}

/// `GET /v1/consistency?from=&to=`: proves that one size of the tree is a prefix of another.
pub async fn consistency(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let from = params.take_as("from", "a tree size", parse_number::<u64>)?;
    let to = params.take_as("to", "a tree size", parse_number::<u64>)?;
    params.finish()?;
    let signed = audit.signed()?;
    let from = from.ok_or_else(|| ApiError::bad_request("from: expected a tree size"))?;
    let to = to.unwrap_or(signed.size);
    if from == 0 || from > to || to > signed.size {
        let size = signed.size;
        return Err(ApiError::bad_request(format!("expected 1 <= from <= to <= {size}, the signed size")));
    }
    let proof = audit
        .read(Read::Point, move |_, _| {
            signed.prove_extension(from, to).map_err(|error| match is_pruned(&signed, from) {
                true => ApiError::not_found(
                    "a tile in which one of these trees ends was removed by retention, which keeps those in which a signed \
                     tree ends",
                ),
                false => ApiError::unavailable(format!("the log could not be read: {error}")),
            })
        })
        .await?;
    let proof: Vec<String> = proof.iter().map(hex).collect();
    audit.readers.json(json!({"from": from, "to": to, "proof": proof}).to_string())
}

fn cacheable_response(body: Bytes, content_type: HeaderValue, caching: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    response
}

/// `GET /log/checkpoint`: the last checkpoint, a signed note.
pub async fn checkpoint(State(audit): State<Arc<Audit>>) -> Result<Response<Body>, ApiError> {
    Ok(cacheable_response(audit.readers.hold(audit.signed()?.note.clone())?, TEXT, NO_CACHE))
}

/// `GET /log/tile/<L>/<N>[.p/<W>]` and `GET /log/tile/entries/<N>[.p/<W>]`: a tile of hashes or a bundle of leaves.
pub async fn tile(
    State(audit): State<Arc<Audit>>,
    PathSegments(path): PathSegments<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let not_found = || ApiError::not_found("there is no such tile");
    let tile_path = TilePath::parse(&path).ok_or_else(not_found)?;
    let signed = audit.signed()?;
    // Hashes cannot be compressed.
    let is_gzipped = tile_path.level.is_none() && accepts_gzip(&headers);
    let bytes = audit
        .read(Read::Point, move |_, _| {
            let read = match tile_path.level {
                Some(level) => signed.tile(level, tile_path.index, tile_path.width),
                None => signed.entries(tile_path.index, tile_path.width),
            };
            let first_leaf = tile_path.index.saturating_mul(WIDTH as u64);
            let bytes = read.map_err(|error| match error {
                tlog_tiles::Error::IndexesNotInTree => not_found(),
                // Tiles of higher levels are kept.
                _ if tile_path.level.unwrap_or(0) == 0 && is_pruned(&signed, first_leaf) => {
                    ApiError::not_found("the events of this tile were dropped by retention")
                }
                error => ApiError::unavailable(format!("the log could not be read: {error}")),
            })?;
            Ok(if is_gzipped { gzip(&bytes) } else { bytes })
        })
        .await?;
    let mut response = cacheable_response(
        audit.readers.hold(bytes)?,
        BYTES,
        if tile_path.width == 256 { IMMUTABLE } else { NO_CACHE },
    );
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_gzipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Whether the client accepts gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = match weight.split_once('=') {
            Some((q, weight)) if q.trim().eq_ignore_ascii_case("q") => weight.trim().parse::<f32>().ok(),
            _ => Some(1.0),
        };
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
