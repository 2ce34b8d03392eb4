//! Checks the member `retention` of a package: that retention has dropped the events before its first one, as the recorder says.
//!
//! The rules are specified in `docs/verification.md`, "Dropped events".

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tlog_tiles::{Hash as Node, check_record, record_hash};

use super::claims::{HexHash, MAX_SIBLINGS, MAX_TREE_SIZE};
use super::recorder::action;
use super::verdict::Finding;
use crate::chain::{AgentKey, Field, Hash, Sequence, scan};
use crate::plural::plural;

/// The data of the leaf of an agent in the tree of anchors: its key, the sequence of its first event that is kept, and the hash before
/// that event.
pub fn anchor_leaf(agent: AgentKey, first: Sequence, prev_hash: &Hash) -> [u8; 56] {
    let mut leaf = [0; 56];
    leaf[..16].copy_from_slice(&agent.0);
    leaf[16..24].copy_from_slice(&first.0.to_be_bytes());
    leaf[24..].copy_from_slice(&prev_hash.0);
    leaf
}

/// The member `retention` of a package.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorProof {
    /// The sequence of the record in the chain of the recorder.
    pub record: u64,
    /// The index of the agent in the tree of anchors.
    pub index: u64,
    /// The audit path in that tree (RFC 9162, section 2.1.3).
    pub siblings: Vec<HexHash>,
}

/// What retention has dropped: the member `action_output` of its record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The first leaf of the log that is kept.
    pub first_leaf: u64,
    /// The position of the first event of each shard that is kept.
    pub first_positions: Vec<u64>,
    /// The number of events that were dropped with this record.
    pub events: u64,
    /// The number of agents that have lost events, now or before.
    pub agents: u64,
    /// The root of the tree of their anchors.
    pub anchors: HexHash,
}

impl Dropped {
    /// Reads an event of the recorder; `None` if it does not record dropped events.
    ///
    /// # Errors
    /// When it does and cannot be read.
    pub fn read<'a>(value: impl Fn(Field) -> Option<&'a [u8]>) -> Result<Option<Dropped>, String> {
        if value(Field::ActionName).and_then(scan::text).as_deref() != Some(action::RETENTION) {
            return Ok(None);
        }
        let dropped = serde_json::from_slice(value(Field::ActionOutput).unwrap_or_default());
        dropped.map(Some).map_err(|error| format!("action_output: {error}"))
    }
}

/// What the events of the recorder in a package say about dropped events.
#[derive(Default)]
pub struct Retained(BTreeMap<u64, Record>);

/// The record of dropped events.
struct Record {
    received_at: String,
    dropped: Dropped,
}

impl Retained {
    /// Adds an event of the recorder: its canonical content and its sequence.
    ///
    /// # Errors
    /// When it records dropped events and cannot be read.
    pub fn add(&mut self, canonical: &[u8], sequence: Sequence) -> Result<(), String> {
        let value = |field: Field| scan::member(canonical, field.name());
        let Some(dropped) = Dropped::read(value)? else { return Ok(()) };
        let received_at = value(Field::ReceivedAt).and_then(scan::text).unwrap_or_default().into_owned();
        self.0.insert(sequence.0, Record { received_at, dropped });
        Ok(())
    }

    /// The verdict on the proof that the chain of `agent` begins with `first`, after an event with the hash `prev_hash`. `recorder` is
    /// the id of the recorder.
    pub fn finding(
        &self,
        proof: &AnchorProof,
        agent: AgentKey,
        (first, prev_hash): (Sequence, Hash),
        recorder: &str,
    ) -> Finding {
        let sequence = proof.record;
        let Some(Record { received_at, dropped }) = self.0.get(&sequence) else {
            return Finding::Fails(format!(
                "event {sequence} of the recorder, which records it, is not in the package"
            ));
        };
        let leaf = record_hash(&anchor_leaf(agent, first, &prev_hash));
        let siblings = proof.siblings.iter().map(|hash| Node(hash.0.0)).collect();
        let is_in_tree = proof.siblings.len() <= MAX_SIBLINGS
            && dropped.agents <= MAX_TREE_SIZE
            && check_record(&siblings, dropped.agents, Node(dropped.anchors.0.0), proof.index, leaf).is_ok();
        match is_in_tree {
            true => Finding::Holds(format!(
                "{} before sequence {first} dropped on {received_at} or earlier, as recorded in {recorder}, sequence {sequence}",
                plural(first.0.saturating_sub(1), "event")
            )),
            false => Finding::Fails(format!(
                "the record in {recorder}, sequence {sequence}, does not say that the chain begins with sequence {first}"
            )),
        }
    }
}
