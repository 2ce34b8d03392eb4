//! The log's calls: `/v1/merkle/root`, `/v1/proof`, `/v1/consistency`, and `/log/...` as C2SP tlog-tiles has it.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Uri, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tlog_tiles::Hash as Node;
use uuid::Uuid;

use super::context::Audit;
use super::context::store_failed;
use crate::http::{ApiError, PathSegments, QueryParams, json_response};
use crate::ledger::format::keys::Location;
use crate::tlog::{self, Signed};
use cairn_proof::chain::Hash;
use cairn_proof::tree::TilePath;

/// A tile that is whole never changes.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const NOT_AT_ALL: HeaderValue = HeaderValue::from_static("no-cache");
const BYTES: HeaderValue = HeaderValue::from_static("application/octet-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

impl Audit {
    /// The last signed tree.
    pub(super) fn signed(&self) -> Result<Arc<Signed>, ApiError> {
        match self.log.state() {
            tlog::State::Signed(signed) => Ok(signed),
            tlog::State::Starting => Err(ApiError::unavailable("the log is starting")),
            tlog::State::Stopped(reason) => Err(ApiError::unavailable(reason.to_string())),
        }
    }
}

fn hex(node: &Node) -> String {
    Hash(node.0).to_string()
}

fn note(signed: &Signed) -> String {
    String::from_utf8_lossy(&signed.note).into_owned()
}

/// `GET /v1/merkle/root`
pub async fn root(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    QueryParams::of(&uri)?.end()?;
    let signed = audit.signed()?;
    let root = json!({"root": hex(&signed.root), "tree_size": signed.size, "checkpoint": note(&signed)});
    Ok(json_response(StatusCode::OK, root.to_string()))
}

/// `GET /v1/proof?id=`
pub async fn proof(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let id = params.take_as("id", "the id of an event", |text| Uuid::try_parse(text).ok())?;
    params.end()?;
    let id = id.ok_or_else(|| ApiError::bad_request("id: expected the id of an event"))?;
    let signed = audit.signed()?;
    let proof = audit
        .read(move |audit, _| {
            let found = audit.ledger.find(id).map_err(store_failed)?;
            let (location, _) =
                found.ok_or_else(|| ApiError::not_found(format!("there is no event with the id {id}")))?;
            describe_proof(&signed, id, location)
        })
        .await?;
    Ok(json_response(StatusCode::OK, proof.to_string()))
}

fn describe_proof(signed: &Signed, id: Uuid, location: Location) -> Result<Value, ApiError> {
    if !signed.covers(location) {
        return Err(ApiError::unavailable("the event is not yet under a signed checkpoint"));
    }
    let mut proof = receipt(signed, location)?;
    proof["event_id"] = id.to_string().into();
    Ok(proof)
}

/// That an event is in a signed tree, as a receipt has it. The tree has to cover it.
pub fn receipt(signed: &Signed, location: Location) -> Result<Value, ApiError> {
    let proof = signed.prove(location).map_err(store_failed)?;
    Ok(json!({
        "leaf_index": proof.leaf,
        "tree_size": signed.size,
        "leaf_hash": hex(&proof.leaf_hash),
        "siblings": proof.siblings.iter().map(hex).collect::<Vec<_>>(),
        "checkpoint": note(signed),
    }))
}

/// `GET /v1/consistency?from=&to=`
pub async fn consistency(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let from = params.take_as("from", "a size of the tree", |text| text.parse::<u64>().ok())?;
    let to = params.take_as("to", "a size of the tree", |text| text.parse::<u64>().ok())?;
    params.end()?;
    let signed = audit.signed()?;
    let from = from.ok_or_else(|| ApiError::bad_request("from: expected a size of the tree"))?;
    let to = to.unwrap_or(signed.size);
    if from == 0 || from > to || to > signed.size {
        let size = signed.size;
        return Err(ApiError::bad_request(format!("expected 1 <= from <= to <= {size}, the size that is signed")));
    }
    let proof = audit
        .read(move |_, _| {
            let failed =
                |error: tlog_tiles::Error| ApiError::unavailable(format!("the log could not be read: {error}"));
            signed.prove_extension(from, to).map_err(failed)
        })
        .await?;
    let proof: Vec<String> = proof.iter().map(hex).collect();
    Ok(json_response(StatusCode::OK, json!({"from": from, "to": to, "proof": proof}).to_string()))
}

fn plain(body: Vec<u8>, content_type: HeaderValue, caching: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    response
}

/// `GET /log/checkpoint`
pub async fn checkpoint(State(audit): State<Arc<Audit>>) -> Result<Response<Body>, ApiError> {
    Ok(plain(audit.signed()?.note.clone(), TEXT, NOT_AT_ALL))
}

/// `GET /log/tile/<L>/<N>[.p/<W>]` and `GET /log/tile/entries/<N>[.p/<W>]`
pub async fn tile(
    State(audit): State<Arc<Audit>>,
    PathSegments(path): PathSegments<String>,
    headers: HeaderMap,
) -> Result<Response<Body>, ApiError> {
    let not_found = || ApiError::not_found("there is no such tile");
    let wanted = TilePath::parse(&path).ok_or_else(not_found)?;
    let signed = audit.signed()?;
    // Hashes do not get shorter.
    let is_gzipped = wanted.level.is_none() && takes_gzip(&headers);
    let bytes = audit
        .read(move |_, _| {
            let read = match wanted.level {
                Some(level) => signed.tile(level, wanted.index, wanted.width),
                None => signed.entries(wanted.index, wanted.width),
            };
            let bytes = read.map_err(|error| match error {
                tlog_tiles::Error::IndexesNotInTree => not_found(),
                error => ApiError::unavailable(format!("the log could not be read: {error}")),
            })?;
            Ok(if is_gzipped { gzip(&bytes) } else { bytes })
        })
        .await?;
    let mut response = plain(bytes, BYTES, if wanted.width == 256 { FOREVER } else { NOT_AT_ALL });
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if is_gzipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// Whether the client asks for gzip (RFC 9110, section 12.5.3).
fn takes_gzip(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    codings.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = weight.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}
