//! Checks the member `retention` of a package: that retention has dropped the events before its first one, as the recorder says.
//!
//! The rules are specified in `docs/verification.md`, "Dropped events".

use std::collections::BTreeMap;

use serde::Deserialize;
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

/// What the events of the recorder in a package say about dropped events.
#[derive(Default)]
pub struct Retained(BTreeMap<u64, Record>);

/// The record of dropped events.
struct Record {
    received_at: String,
    anchors: Anchors,
}

/// The tree of anchors, as a record states it.
#[derive(Deserialize)]
struct Anchors {
    agents: u64,
    anchors: HexHash,
}

impl Retained {
    /// Adds an event of the recorder: its canonical content and its sequence.
    ///
    /// # Errors
    /// When it records dropped events and cannot be read.
    pub fn add(&mut self, canonical: &[u8], sequence: Sequence) -> Result<(), String> {
        let text = |field: Field| scan::member(canonical, field.name()).and_then(scan::text);
        if text(Field::ActionName).as_deref() != Some(action::RETENTION) {
            return Ok(());
        }
        let output = scan::member(canonical, Field::ActionOutput.name()).unwrap_or_default();
        let anchors = serde_json::from_slice(output).map_err(|error| format!("action_output: {error}"))?;
        let received_at = text(Field::ReceivedAt).unwrap_or_default().into_owned();
        self.0.insert(sequence.0, Record { received_at, anchors });
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
        let Some(Record { received_at, anchors }) = self.0.get(&sequence) else {
            return Finding::Fails(format!(
                "event {sequence} of the recorder, which records it, is not in the package"
            ));
        };
        let leaf = record_hash(&anchor_leaf(agent, first, &prev_hash));
        let siblings = proof.siblings.iter().map(|hash| Node(hash.0.0)).collect();
        let is_in_tree = proof.siblings.len() <= MAX_SIBLINGS
            && anchors.agents <= MAX_TREE_SIZE
            && check_record(&siblings, anchors.agents, Node(anchors.anchors.0.0), proof.index, leaf).is_ok();
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
