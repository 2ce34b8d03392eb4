//! What the parts of an evidence package share: which events are asked for, where they are, and their proofs.

use crate::ledger::format::floor::Anchor;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::runs::Runs;
use crate::ledger::store::{Store, StoreError};
use crate::tlog::Prover;
use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// The events that a package shall contain.
#[derive(Debug, Clone)]
pub struct ExportRange {
    /// The agent.
    pub agent_id: String,
    /// Only events received at this time or later, in ms since 1970.
    pub since_ms: Option<u64>,
    /// Only events received before this time, in ms since 1970.
    pub until_ms: Option<u64>,
    /// Whether the package has the events of the recorder in this interval as well.
    pub with_recorder: bool,
}

/// Appends the proof of an event.
pub fn write_proof(
    prover: &mut Prover,
    location: Location,
    record: RecordRef<'_>,
    out: &mut Vec<u8>,
) -> Result<(), StoreError> {
    let (proof, size) = (prover.prove(location, record)?, prover.signed().size);
    let hash = |node: &tlog_tiles::Hash| Hash(node.0).hex();
    out.extend_from_slice(br#"{"leaf_hash":""#);
    out.extend_from_slice(&hash(&proof.leaf_hash));
    out.extend_from_slice(format!(r#"","leaf_index":{},"siblings":["#, proof.leaf).as_bytes());
    for (number, sibling) in proof.siblings.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
        out.extend_from_slice(&hash(sibling));
        out.push(b'"');
    }
    out.extend_from_slice(format!(r#"],"tree_size":{size}}}"#).as_bytes());
    Ok(())
}

/// The error of an event that is missing.
pub fn missing(store: &Store, agent: AgentKey, sequence: Sequence) -> StoreError {
    match Anchor::read(store, agent) {
        Ok(Some(anchor)) if sequence < anchor.sequence => {
            store.failed("events of the agent were dropped meanwhile: export the package again")
        }
        _ => store.damaged(format!("event {sequence} of the agent's chain is missing: run `cairn verify --all`")),
    }
}

/// The location of the event with this sequence.
///
/// # Errors
/// When the database cannot be read, or there is none.
pub fn location(store: &Store, agent: AgentKey, sequence: Sequence) -> Result<Location, StoreError> {
    let run = Runs::from(store, agent, sequence)?.run()?.filter(|run| run.first <= sequence);
    let run = run.ok_or_else(|| missing(store, agent, sequence))?;
    let position = Position(run.location.position.0 + (sequence.0 - run.first.0));
    Ok(Location { position, ..run.location })
}
