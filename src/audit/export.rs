//! Writes evidence packages for `GET /v1/export` and `cairn export`. The format is that of
//! [`cairn_proof::evidence::package`], specified in `docs/verification.md`, section "Evidence package".

use std::fmt::Write;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, Uri, header};
use serde_json::json;

use super::context::Audit;
use super::context::store_failed;
use super::filter;
use super::package_parts::{ExportRange, location, missing, write_proof};
use super::recorder_part::RecorderPart;
use super::retention_part::RetentionPart;
use super::streamed_response::{self, CHUNK_BYTES, ChunkSource};
use crate::http::{ApiError, QueryParams, Read};
use crate::ledger::format::floor::Anchor;
use crate::ledger::format::keys::{Agent, Location, Position};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::{lookup, received, runs::Runs};
use crate::ledger::store::{Store, StoreError};
use crate::tlog::{Prover, SignedTree};
use cairn_proof::chain::{AgentKey, Field, Hash, Sequence, time};
use cairn_proof::evidence;

/// Why a package cannot be made.
#[derive(Debug)]
pub enum NoPackage {
    /// There is no such agent.
    Agent,
    /// The agent has no event in the interval.
    Events,
    /// The agent's events in the interval are not under a signed checkpoint yet.
    Checkpoint,
    /// The agent's events in the interval are not one part of its chain, because the clock was set back.
    Gap,
}

impl NoPackage {
    /// The error message.
    pub fn message(&self, agent_id: &str) -> String {
        match self {
            NoPackage::Agent => format!("there is no agent {agent_id:?}"),
            NoPackage::Events => format!("agent {agent_id:?} has no events that were received in this interval"),
            NoPackage::Gap => format!(
                "the events of agent {agent_id:?} in this interval are not one part of its chain, because the clock was \
                 set back: export the chain without an interval, or choose since and until so that no event between \
                 them is left out"
            ),
            NoPackage::Checkpoint => format!("the events of agent {agent_id:?} are not yet under a signed checkpoint"),
        }
    }
}

/// Writes a package in chunks: first the events, then, in a second pass over them, their proofs.
pub struct Export {
    prover: Prover,
    agent: AgentKey,
    first: Sequence,
    last: Sequence,
    newer: u64,
    /// The JSON members before the events; empty once they are written.
    preamble: String,
    /// The next event to write; greater than `last` once all events are written.
    event: Sequence,
    /// The event whose proof is written next.
    proof: Sequence,
    /// The events of the recorder in the package.
    recorder: RecorderPart,
    /// The member `retention`; `None` if retention has dropped nothing before the package, or once it is written.
    retention: Option<String>,
}

impl Export {
    /// Finds the selected events that a signed tree proves. `log_key` is a verifier key of the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn prepare(
        signed: Arc<SignedTree>,
        log_key: &str,
        range: &ExportRange,
    ) -> Result<Result<Export, NoPackage>, StoreError> {
        let store = signed.store();
        let agent = AgentKey::of(&range.agent_id);
        let Some(head) = lookup::agent(store, agent)? else { return Ok(Err(NoPackage::Agent)) };
        let (first, end) = match selected(store, agent, &head, range)?.as_slice() {
            [] => return Ok(Err(NoPackage::Events)),
            [selected] => (selected.start, selected.end),
            _ => return Ok(Err(NoPackage::Gap)),
        };
        // A package without `since` begins with the first event of the chain.
        if range.since_ms.is_none() && first > start(store, agent)? {
            return Ok(Err(NoPackage::Gap));
        }
        let unsigned = partition_point(store, agent, head.sequence, |location| signed.covers(location))?;
        if first >= unsigned {
            return Ok(Err(NoPackage::Checkpoint));
        }
        let newer = end.0.saturating_sub(unsigned.0);
        let end = end.min(unsigned);
        let anchor =
            lookup::record(store, location(store, agent, first)?)?.ok_or_else(|| missing(store, agent, first))?;
        let anchor = anchor.as_ref().link().prev_hash;
        let last = Sequence(end.0 - 1);
        let Some(mut recorder) = RecorderPart::prepare(&signed, range)? else { return Ok(Err(NoPackage::Checkpoint)) };
        let mut retention = None;
        if range.since_ms.is_none() && first > Sequence(1) {
            let Some(part) = RetentionPart::prepare(&signed, agent)? else { return Ok(Err(NoPackage::Checkpoint)) };
            recorder.add_record(part.record);
            retention = Some(part.member);
        }
        let version =
            if retention.is_some() { evidence::package::RETENTION_VERSION } else { evidence::package::VERSION };
        let preamble = members_before_events(version, &signed, log_key, range, (first, anchor));
        let prover = Prover::new(signed);
        Ok(Ok(Export { prover, agent, first, last, newer, preamble, event: first, proof: first, recorder, retention }))
    }

    /// The number of events in the package.
    pub fn events(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// The number of selected events that are left out because they are newer than the checkpoint.
    pub fn newer(&self) -> u64 {
        self.newer
    }

    /// The number of events and proofs written so far.
    pub fn written(&self) -> u64 {
        (self.event.0 - self.first.0) + (self.proof.0 - self.first.0)
    }

    /// Appends the next chunk to `out`. Returns whether more chunks follow.
    ///
    /// # Errors
    /// When the database cannot be read or an event is missing. What was written is not a package then.
    pub fn write_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, StoreError> {
        out.extend_from_slice(std::mem::take(&mut self.preamble).as_bytes());
        if self.event <= self.last {
            let first = self.first;
            self.event = self.walk(self.event, out, |_, recorder, sequence, _, record, out| {
                out.extend_from_slice(if sequence == first { b"" } else { b"," });
                record.write_answer(out);
                recorder.add(record);
                Ok(())
            })?;
            if self.event > self.last {
                out.extend_from_slice(br#"],"merkle_proofs":["#);
            }
            return Ok(true);
        }
        if self.proof <= self.last {
            let first = self.first;
            self.proof = self.walk(self.proof, out, |prover, _, sequence, location, record, out| {
                out.extend_from_slice(if sequence == first { b"" } else { b"," });
                // The id as it was sent: it may have upper-case letters.
                let id = record.value(Field::Id).map(String::from_utf8_lossy).unwrap_or_default();
                out.extend_from_slice(format!(r#"{{"event_id":{id},"proof":"#).as_bytes());
                write_proof(prover, location, record, out)?;
                out.push(b'}');
                Ok(())
            })?;
            if self.proof > self.last {
                out.push(b']');
            }
            return Ok(true);
        }
        let package = (self.agent, self.first, self.last);
        let is_more = self.recorder.write(&mut self.prover, package, CHUNK_BYTES, out)?;
        if !is_more {
            out.extend_from_slice(self.retention.take().unwrap_or_default().as_bytes());
            out.extend_from_slice(b"}\n");
        }
        Ok(is_more)
    }

    /// Writes events from `from` on until the chunk is full. Returns the next event to write.
    fn walk(
        &mut self,
        from: Sequence,
        out: &mut Vec<u8>,
        mut write: impl FnMut(
            &mut Prover,
            &mut RecorderPart,
            Sequence,
            Location,
            RecordRef<'_>,
            &mut Vec<u8>,
        ) -> Result<(), StoreError>,
    ) -> Result<Sequence, StoreError> {
        let signed = Arc::clone(self.prover.signed());
        let store = signed.store();
        let mut runs = Runs::from(store, self.agent, from)?;
        let mut events = Events::new(store)?;
        let mut sequence = from;
        while sequence <= self.last && out.len() < CHUNK_BYTES {
            let missing = || missing(store, self.agent, sequence);
            let run = runs.run()?.filter(|run| run.first <= sequence).ok_or_else(missing)?;
            let offset = sequence.0 - run.first.0;
            if offset >= u64::from(run.count) {
                runs.forward()?;
                continue;
            }
            let mut location = run.location;
            location.position.0 += offset;
            let record = lookup::parse(store, location, events.at(location)?.ok_or_else(missing)?)?;
            if record.sequence() != sequence || record.agent() != self.agent {
                return Err(missing());
            }
            write(&mut self.prover, &mut self.recorder, sequence, location, record, out)?;
            sequence = sequence.next();
        }
        Ok(sequence)
    }
}

/// The sequences of the agent's events that were received in the interval, as ranges in ascending order between which
/// there are other events of the agent.
fn selected(
    store: &Store,
    agent: AgentKey,
    head: &Agent,
    range: &ExportRange,
) -> Result<Vec<Range<Sequence>>, StoreError> {
    let shard = head.run.location.shard;
    let mut selected: Vec<Range<Sequence>> = Vec::new();
    for positions in received::ranges(store, shard, lookup::end(store, shard)?, range.since_ms, range.until_ms)? {
        let first_from =
            |position: Position| partition_point(store, agent, head.sequence, |location| location.position < position);
        let (start, end) = (first_from(positions.start)?, first_from(positions.end)?);
        match selected.last_mut() {
            _ if start == end => {}
            Some(last) if last.end == start => last.end = end,
            _ => selected.push(start..end),
        }
    }
    Ok(selected)
}

/// The sequence with which the chain of an agent begins: greater than 1 if retention has dropped events.
fn start(store: &Store, agent: AgentKey) -> Result<Sequence, StoreError> {
    Ok(Anchor::read(store, agent)?.map_or(Sequence(1), |anchor| anchor.sequence))
}

/// The first sequence of a chain for which `holds` is false, found by binary search; `holds` must be true for all
/// earlier ones and false for all later ones. If `holds` is always true, the sequence after the head.
fn partition_point(
    store: &Store,
    agent: AgentKey,
    head: Sequence,
    holds: impl Fn(Location) -> bool,
) -> Result<Sequence, StoreError> {
    let (mut low, mut high) = (start(store, agent)?.0, head.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(location(store, agent, Sequence(middle))?) { low = middle + 1 } else { high = middle }
    }
    Ok(Sequence(low))
}

/// The JSON of the package up to its first event.
fn members_before_events(
    version: &str,
    signed: &SignedTree,
    log_key: &str,
    range: &ExportRange,
    (first, anchor): (Sequence, Hash),
) -> String {
    let text = |ms: u64| String::from_utf8_lossy(&time::format_ms(ms)).into_owned();
    let values = [
        json!(version),
        json!(text(crate::runtime::now_ms())),
        json!({"agent_id": range.agent_id, "since": range.since_ms.map(text), "until": range.until_ms.map(text)}),
        json!(Hash(signed.root.0).to_string()),
        json!(signed.size),
        json!(String::from_utf8_lossy(&signed.note)),
        json!(log_key),
        json!(first.0),
        json!(anchor.to_string()),
    ];
    let mut json = String::from("{");
    for (name, value) in evidence::package::MEMBERS.iter().zip(values) {
        // Writing to a String cannot fail.
        let _ = write!(json, "\"{name}\":{value},");
    }
    json + "\"events\":["
}

impl ChunkSource for Export {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        self.write_chunk(out).map_err(store_failed)
    }
}

/// `GET /v1/export?agent_id=&since=&until=&with_recorder=`: streams an evidence package.
pub async fn export(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let agent_id = params.take("agent_id")?;
    let (since_ms, until_ms) = filter::take_received_range(&mut params)?;
    let with_recorder = params.take_as("with_recorder", "true or false", |text| text.parse::<bool>().ok())?;
    params.finish()?;
    let with_recorder = with_recorder.unwrap_or(false);
    let agent_id = agent_id.ok_or_else(|| ApiError::bad_request("agent_id: expected the id of an agent"))?;
    let range = ExportRange { agent_id, since_ms, until_ms, with_recorder };
    let signed = audit.signed()?;
    let started = audit
        .read(Read::Scan, move |audit, _| {
            let key = audit.log.verifier_keys().into_iter().next().unwrap_or_default();
            let export = Export::prepare(signed, &key, &range).map_err(store_failed)?.map_err(|missing| {
                let message = missing.message(&range.agent_id);
                match missing {
                    NoPackage::Agent | NoPackage::Events => ApiError::not_found(message),
                    NoPackage::Checkpoint => ApiError::unavailable(message),
                    NoPackage::Gap => ApiError::conflict(message),
                }
            })?;
            streamed_response::begin(audit, export)
        })
        .await?;
    let mut response = streamed_response::respond(audit, started);
    let name = HeaderValue::from_static("attachment; filename=\"cairn-export.json\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}
