//! `GET /v1/agents`, `GET /v1/stats` and `GET /v1/verify`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, Uri, header};
use serde_json::json;

use super::context::Audit;
use super::context::store_failed;
use super::verify;
use crate::http::{ApiError, QueryParams, Read, Turn, parse_number};
use crate::ledger::format::keys::Agent;
use crate::ledger::read::received;
use crate::ledger::store::Family;
use crate::runtime::now_ms;
use cairn_proof::chain::{AgentKey, time};

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// `GET /v1/agents`: the agents in the order of their keys, which is stable but not alphabetical.
pub async fn list(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let limit = |text: &str| parse_number(text).filter(|limit| (1..=LIMIT_MAX).contains(limit));
    let limit = params.take_as("limit", "a number from 1 to 1000", limit)?.unwrap_or(LIMIT);
    let cursor = params.take_as("cursor", "a cursor from a Link header", parse_key)?;
    params.finish()?;
    let (agents, next) = audit.read(Read::Scan, move |audit, _| page(audit, limit, cursor)).await?;
    let mut response = audit.readers.json(agents.to_string())?;
    if let Some(next) = next {
        let link = format!("<{}?limit={limit}&cursor={next:?}>; rel=\"next\"", uri.path());
        response.headers_mut().extend(HeaderValue::try_from(link).ok().map(|link| (header::LINK, link)));
    }
    Ok(response)
}

/// Parses an agent key in a cursor: 32 hex digits.
fn parse_key(text: &str) -> Option<AgentKey> {
    let is_hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let bits = is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()?;
    Some(AgentKey(bits.to_be_bytes()))
}

fn page(
    audit: &Audit,
    limit: usize,
    cursor: Option<AgentKey>,
) -> Result<(serde_json::Value, Option<AgentKey>), ApiError> {
    let mut rows = audit.ledger.store().rows(Family::Agents).map_err(store_failed)?;
    match cursor {
        // The cursor is the last agent of the previous page; skip it.
        Some(AgentKey(key)) => rows.seek(&[&key[..], &[0]].concat()),
        None => rows.seek_first(),
    }
    let mut agents = Vec::new();
    let mut last = None;
    while let Some((key, row)) = rows.row().map_err(store_failed)? {
        if agents.len() == limit {
            return Ok((agents.into(), last));
        }
        if let (Ok(key), Some(agent)) = (key.try_into().map(AgentKey), Agent::decode_of(key, row)) {
            agents.push(describe(&agent, audit.verdicts.of(key)));
            last = Some(key);
        }
        rows.next();
    }
    Ok((agents.into(), None))
}

fn describe(agent: &Agent, chain_valid: Option<bool>) -> serde_json::Value {
    let text = |ms: u64| String::from_utf8_lossy(&time::format_ms(ms)).into_owned();
    json!({
        "agent_id": agent.agent_id,
        "event_count": agent.sequence.0,
        "first_activity": text(agent.first_ms),
        "last_activity": text(agent.last_ms),
        "head_sequence": agent.sequence.0,
        "head_hash": agent.hash.to_string(),
        "chain_valid": chain_valid,
    })
}

/// `GET /v1/stats`: totals of the ledger.
pub async fn stats(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    QueryParams::none(&uri)?;
    let stats = audit.read(Read::Scan, totals).await?;
    audit.readers.json(stats.to_string())
}

fn totals(audit: &Audit, turn: &Turn) -> Result<serde_json::Value, ApiError> {
    let ledger = &audit.ledger;
    let yesterday_ms = now_ms().saturating_sub(DAY_MS);
    let (mut total, mut last_day) = (0, 0);
    for shard in ledger.committed().shards() {
        let end = ledger.committed().next(shard);
        let ranges = received::ranges(ledger.store(), shard, end, Some(yesterday_ms), None).map_err(store_failed)?;
        total += end.0;
        last_day += ranges.iter().map(|range| range.end.0 - range.start.0).sum::<u64>();
    }
    let mut active = 0u64;
    let mut rows = ledger.store().scan(Family::Agents).map_err(store_failed)?;
    rows.seek_first();
    while let Some((_, row)) = rows.row().map_err(store_failed)? {
        if turn.is_over() {
            break;
        }
        active += u64::from(Agent::decode(row).is_some_and(|agent| agent.last_ms >= yesterday_ms));
        rows.next();
    }
    Ok(json!({
        "total_events": total,
        "events_dropped": ledger.committed().dropped(),
        "events_last_24h": last_day,
        "active_agents": active,
        "chain_health": audit.verdicts.health(),
    }))
}

/// `GET /v1/verify`: with `agent_id` it verifies the chain of one agent and remembers the verdict, with `index=true` the
/// index.
pub async fn verify(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let (agent_id, index) = (params.take("agent_id")?, params.take("index")?);
    params.finish()?;
    let agent_id = match (agent_id, index.as_deref()) {
        (None, Some("true")) => return verify_index(&audit).await,
        (Some(agent_id), None) => agent_id,
        _ => return Err(ApiError::bad_request("expected either agent_id, the id of an agent, or index=true")),
    };
    let verdict = audit
        .read(Read::Scan, move |audit, turn| {
            let agent = AgentKey::of(&agent_id);
            let verified = verify::agent(audit.ledger.store(), agent, |_| !turn.is_over());
            let verdict = verified.map_err(store_failed)?;
            let verdict = verdict.ok_or_else(|| ApiError::not_found(format!("there is no agent {agent_id:?}")))?;
            audit.verdicts.record(agent, verdict.broken.is_none());
            Ok(verdict)
        })
        .await?;
    audit.readers.json(verdict.to_json().to_string())
}

async fn verify_index(audit: &Arc<Audit>) -> Result<Response<Body>, ApiError> {
    let verdict = audit
        .read(Read::Scan, |audit, turn| {
            let shards = audit.ledger.committed().shards().count() as u16;
            verify::index(audit.ledger.store(), shards, |_| !turn.is_over()).map_err(store_failed)
        })
        .await?;
    audit.readers.json(verdict.to_json().to_string())
}
