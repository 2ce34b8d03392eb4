//! Evidence packages: `GET /v1/export`, and what `cairn export` writes. The form is that of [`cairn_proof::evidence::package`].

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, Uri, header};
use serde_json::json;

use super::context::Audit;
use super::context::store_failed;
use super::filter;
use super::streamed_response::{self, CHUNK_BYTES, ChunkSource};
use crate::http::{ApiError, QueryParams};
use crate::ledger::format::keys::Location;
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::{lookup, runs::Runs};
use crate::ledger::store::{Store, StoreError};
use crate::tlog::{Prover, Signed};
use cairn_proof::chain::{AgentKey, Field, Hash, Sequence, time};
use cairn_proof::evidence;

/// Which events.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of this agent.
    pub agent_id: String,
    /// Received at this millisecond or later.
    pub since_ms: Option<u64>,
    /// Received before this millisecond.
    pub until_ms: Option<u64>,
}

/// Why there is no package.
#[derive(Debug)]
pub enum Missing {
    /// There is no such agent.
    Agent,
    /// The agent has no event in that time.
    Events,
    /// The agent's events of that time are not yet under a checkpoint.
    Checkpoint,
}

impl Missing {
    /// In words.
    pub fn of(&self, agent_id: &str) -> String {
        match self {
            Missing::Agent => format!("there is no agent {agent_id:?}"),
            Missing::Events => format!("agent {agent_id:?} has no events of that time"),
            Missing::Checkpoint => format!("the events of agent {agent_id:?} are not yet under a signed checkpoint"),
        }
    }
}

/// Writes a package piece by piece: the events first, then, read a second time, their proofs.
pub struct Export {
    prover: Prover,
    agent: AgentKey,
    first: Sequence,
    last: Sequence,
    newer: u64,
    /// The members before the events, until they are written.
    head: String,
    /// The next event to write; behind `last` once all of them are.
    event: Sequence,
    /// The event whose proof is the next to write.
    proof: Sequence,
}

impl Export {
    /// Finds the events that a signed tree proves. `log_key` is a verifier key of the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn of(signed: Arc<Signed>, log_key: &str, wanted: &Wanted) -> Result<Result<Export, Missing>, StoreError> {
        let store = signed.store();
        let agent = AgentKey::of(&wanted.agent_id);
        let Some(head) = lookup::agent(store, agent)? else { return Ok(Err(Missing::Agent)) };
        // Times and positions rise along a chain.
        let is_before = |ms: Option<u64>| move |_: Location, record: RecordRef<'_>| record.received_ms() < ms;
        let first = match wanted.since_ms {
            None => Sequence(1),
            since => first_not(store, agent, head.sequence, is_before(since))?,
        };
        let behind = match wanted.until_ms {
            None => head.sequence.next(),
            until => first_not(store, agent, head.sequence, is_before(until))?,
        };
        if first >= behind {
            return Ok(Err(Missing::Events));
        }
        let unsigned = first_not(store, agent, head.sequence, |location, _| signed.covers(location))?;
        if first >= unsigned {
            return Ok(Err(Missing::Checkpoint));
        }
        let newer = behind.0.saturating_sub(unsigned.0);
        let behind = behind.min(unsigned);
        let anchor = at(store, agent, first, |_, record| record.link().prev_hash)?;
        let head = members_before_events(&signed, log_key, wanted, first, anchor);
        let last = Sequence(behind.0 - 1);
        Ok(Ok(Export { prover: Prover::new(signed), agent, first, last, newer, head, event: first, proof: first }))
    }

    /// How many events it has.
    pub fn events(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// How many events of that time are left out, because they are newer than the checkpoint.
    pub fn newer(&self) -> u64 {
        self.newer
    }

    /// How many events and proofs are written.
    pub fn written(&self) -> u64 {
        (self.event.0 - self.first.0) + (self.proof.0 - self.first.0)
    }

    /// Writes the next piece; says whether there is more.
    ///
    /// # Errors
    /// When the database cannot be read, or an event is missing: what was written is no package then.
    pub fn write_piece(&mut self, out: &mut Vec<u8>) -> Result<bool, StoreError> {
        out.extend_from_slice(std::mem::take(&mut self.head).as_bytes());
        if self.event <= self.last {
            let first = self.first;
            self.event = self.walk(self.event, out, |_, sequence, _, record, out| {
                out.extend_from_slice(if sequence == first { b"" } else { b"," });
                record.write_answer(out);
                Ok(())
            })?;
            if self.event > self.last {
                out.extend_from_slice(br#"],"merkle_proofs":["#);
            }
            return Ok(true);
        }
        let (first, size) = (self.first, self.prover.signed().size);
        self.proof = self.walk(self.proof, out, |prover, sequence, location, record, out| {
            out.extend_from_slice(if sequence == first { b"" } else { b"," });
            let proof = prover.prove(location, record)?;
            // As it was sent: its letters may be upper case.
            let id = record.value(Field::Id).map(String::from_utf8_lossy).unwrap_or_default();
            let hash = |node: &tlog_tiles::Hash| Hash(node.0).hex();
            out.extend_from_slice(format!(r#"{{"event_id":{id},"proof":{{"leaf_hash":""#).as_bytes());
            out.extend_from_slice(&hash(&proof.leaf_hash));
            out.extend_from_slice(format!(r#"","leaf_index":{},"siblings":["#, proof.leaf).as_bytes());
            for (number, sibling) in proof.siblings.iter().enumerate() {
                out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
                out.extend_from_slice(&hash(sibling));
                out.push(b'"');
            }
            out.extend_from_slice(format!(r#"],"tree_size":{size}}}}}"#).as_bytes());
            Ok(())
        })?;
        if self.proof > self.last {
            out.extend_from_slice(b"]}\n");
        }
        Ok(self.proof <= self.last)
    }

    /// Has the events from `from` on written, until the piece is long enough; says which is the next.
    fn walk(
        &mut self,
        from: Sequence,
        out: &mut Vec<u8>,
        mut write: impl FnMut(&mut Prover, Sequence, Location, RecordRef<'_>, &mut Vec<u8>) -> Result<(), StoreError>,
    ) -> Result<Sequence, StoreError> {
        let signed = Arc::clone(self.prover.signed());
        let store = signed.store();
        let mut runs = Runs::from(store, self.agent, from)?;
        let mut events = Events::new(store)?;
        let mut sequence = from;
        while sequence <= self.last && out.len() < CHUNK_BYTES {
            let missing = || missing(store, sequence);
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
            write(&mut self.prover, sequence, location, record, out)?;
            sequence = sequence.next();
        }
        Ok(sequence)
    }
}

fn missing(store: &Store, sequence: Sequence) -> StoreError {
    store.damaged(format!("the event {sequence} of a chain is missing: run `cairn verify --all`"))
}

/// The event at a place of a chain.
fn at<T>(
    store: &Store,
    agent: AgentKey,
    sequence: Sequence,
    look: impl FnOnce(Location, RecordRef<'_>) -> T,
) -> Result<T, StoreError> {
    let missing = || missing(store, sequence);
    let run = Runs::from(store, agent, sequence)?.run()?.filter(|run| run.first <= sequence).ok_or_else(missing)?;
    let mut location = run.location;
    location.position.0 += sequence.0 - run.first.0;
    let record = lookup::record(store, location)?.ok_or_else(missing)?;
    Ok(look(location, record.as_ref()))
}

/// The first sequence of a chain for which something does not hold that holds for all before it; behind the head if there
/// is none.
fn first_not(
    store: &Store,
    agent: AgentKey,
    head: Sequence,
    holds: impl Fn(Location, RecordRef<'_>) -> bool,
) -> Result<Sequence, StoreError> {
    let (mut low, mut high) = (1, head.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        if at(store, agent, Sequence(middle), &holds)? { low = middle + 1 } else { high = middle }
    }
    Ok(Sequence(low))
}

/// The package up to its events.
fn members_before_events(signed: &Signed, log_key: &str, wanted: &Wanted, first: Sequence, anchor: Hash) -> String {
    let text = |ms: u64| String::from_utf8_lossy(&time::format_ms(ms)).into_owned();
    let values = [
        json!(evidence::package::VERSION),
        json!(text(crate::runtime::now_ms())),
        json!({"agent_id": wanted.agent_id, "since": wanted.since_ms.map(text), "until": wanted.until_ms.map(text)}),
        json!(Hash(signed.root.0).to_string()),
        json!(signed.size),
        json!(String::from_utf8_lossy(&signed.note)),
        json!(log_key),
        json!(first.0),
        json!(anchor.to_string()),
    ];
    let mut head = String::from("{");
    for (name, value) in evidence::package::MEMBERS.iter().zip(values) {
        // Writing to a String cannot fail.
        let _ = write!(head, "\"{name}\":{value},");
    }
    head + "\"events\":["
}

impl ChunkSource for Export {
    fn make(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        self.write_piece(out).map_err(store_failed)
    }
}

/// `GET /v1/export?agent_id=&since=&until=`
pub async fn export(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    let mut params = QueryParams::of(&uri)?;
    let agent_id = params.take("agent_id")?;
    let (since_ms, until_ms) = filter::received(&mut params)?;
    params.end()?;
    let agent_id = agent_id.ok_or_else(|| ApiError::bad_request("agent_id: expected the id of an agent"))?;
    let wanted = Wanted { agent_id, since_ms, until_ms };
    let signed = audit.signed()?;
    let started = audit
        .read(move |audit, _| {
            let key = audit.log.verifier_keys().into_iter().next().unwrap_or_default();
            let export = Export::of(signed, &key, &wanted).map_err(store_failed)?.map_err(|missing| {
                let message = missing.of(&wanted.agent_id);
                match missing {
                    Missing::Agent | Missing::Events => ApiError::not_found(message),
                    Missing::Checkpoint => ApiError::unavailable(message),
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
