//! Checks every leaf of a log, and finds what no single proof shows.
//!
//! The sequences of each agent must be 1, 2, 3 ... once each, in the order of the leaves. This detects an operator who
//! maintains two chains of one agent and shows each to a different auditor: either both chains are in the leaves, or
//! one of them has no proof. The rules are specified in `docs/verification.md`, "How a monitor checks a log".
//!
//! The module verifies no signature and reads no file; [`super::follow`] does both.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tlog_tiles::{HASH_SIZE, record_hash};

use crate::chain::{AgentKey, Field, Hash, canonicalize, check_field, scan};
use crate::hex;
use crate::tree::{Edge, Head, WIDTH};

/// The maximum number of findings that are stored. Further ones are only counted.
const MAX_FINDINGS: usize = 100;

/// The state of a monitor: everything that it must know about the leaves read so far.
#[derive(Default)]
pub struct Monitor {
    edge: Edge,
    /// The first leaf that was read.
    first_leaf: u64,
    /// The last sequence of each agent; `None` after the first error in its sequences.
    agents: HashMap<AgentKey, Option<u64>>,
    /// The same as of leaves that could not be read, for the agents that have no later leaf yet.
    before_gap: HashMap<AgentKey, Option<u64>>,
    /// Descriptions of the errors found, at most 100.
    pub findings: Vec<String>,
    /// The number of errors found. Of each agent, only the first error in its sequences counts.
    pub broken: u64,
}

/// The data of a leaf.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafData {
    agent_id: String,
    hash: String,
    sequence: u64,
}

impl Monitor {
    /// The number of leaves read.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// The first leaf that was read: those before it could not be read any more.
    pub fn first_leaf(&self) -> u64 {
        self.first_leaf
    }

    /// Continues after a tree whose last leaves cannot be read. The next leaf of an agent may have any sequence after its last one.
    pub(super) fn begin_after(&mut self, edge: Edge) {
        self.first_leaf = edge.size();
        self.edge = edge;
        self.before_gap.extend(self.agents.drain());
    }

    /// The last sequence of an agent: 0 if it has no leaf, `None` if there was an error in its sequences.
    pub fn last_sequence(&self, agent: AgentKey) -> Option<u64> {
        self.agents.get(&agent).or_else(|| self.before_gap.get(&agent)).copied().unwrap_or(Some(0))
    }

    /// The number of agents that have leaves.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Whether the leaves read so far form exactly the tree of a checkpoint.
    pub fn matches(&self, head: &Head) -> bool {
        self.edge.size() == head.size && self.edge.root() == head.root
    }

    /// Reads a bundle of `count` leaves (C2SP tlog-tiles), and skips the first `read_before`, which were read earlier.
    ///
    /// Errors in the leaves are added to the findings.
    ///
    /// # Errors
    /// When it is not a bundle of `count` leaves. Some of its leaves may have been read.
    pub fn read_bundle(&mut self, mut bytes: &[u8], count: usize, read_before: usize) -> Result<(), String> {
        for number in 0..count {
            let (length, rest) = bytes.split_first_chunk::<2>().ok_or("the bundle is too short")?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (data, rest) = rest.split_at_checked(length).ok_or("the bundle is too short")?;
            bytes = rest;
            if number >= read_before {
                self.leaf(data);
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err("the bundle is too long".to_owned()) }
    }

    fn leaf(&mut self, data: &[u8]) {
        let number = self.edge.size();
        self.edge.push(record_hash(data), |_| {});
        let Some(LeafData { agent_id, sequence, .. }) = parse(data) else {
            return self.add_finding(format!("leaf {number} is not the canonical form of agent_id, hash and sequence"));
        };
        let agent = AgentKey::of(&agent_id);
        let last =
            self.agents.entry(agent).or_insert_with(|| match self.before_gap.remove(&agent).unwrap_or(Some(0)) {
                // Of leaves that were dropped, the sequences are not known.
                Some(before) if self.first_leaf > 0 => Some(before.max(sequence.saturating_sub(1))),
                before => before,
            });
        match *last {
            Some(before) if before.checked_add(1) == Some(sequence) => *last = Some(sequence),
            Some(before) => {
                *last = None;
                let expected = before.saturating_add(1);
                self.add_finding(format!(
                    "agent {agent_id:?}: leaf {number} has sequence {sequence}, expected {expected}"
                ));
            }
            // The first error of this agent was reported.
            None => {}
        }
    }

    fn add_finding(&mut self, finding: String) {
        self.broken = self.broken.saturating_add(1);
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }
}

/// Parses the data of a leaf; `None` if it does not have the form of a leaf.
fn parse(data: &[u8]) -> Option<LeafData> {
    let parsed: LeafData = serde_json::from_slice(data).ok()?;
    // Any other encoding of the same members is not a leaf.
    let is_canonical = canonicalize(std::str::from_utf8(data).ok()?).is_ok_and(|canonical| canonical == data);
    let is_agent = check_field(Field::AgentId, scan::member(data, "agent_id")?).is_ok();
    (is_canonical && is_agent && parsed.hash.parse::<Hash>().is_ok()).then_some(parsed)
}

/// The state of a [`Monitor`] as it is stored in a file, with the checkpoint up to which it has read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorState {
    /// The signed note of that checkpoint.
    pub checkpoint: String,
    /// The hashes of the edge of the tree, by level, in hex.
    edge: Vec<Vec<String>>,
    /// The last sequence by agent key in hex; null after an error in the sequences of the agent.
    agents: HashMap<String, Option<u64>>,
    findings: Vec<String>,
    broken: u64,
    /// The first leaf that was read; absent if it was the first of the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_leaf: Option<u64>,
    /// As `agents`, of leaves that could not be read; absent if there are none.
    #[serde(default, skip_serializing_if = "HashMap::is_empty")]
    before_gap: HashMap<String, Option<u64>>,
}

impl MonitorState {
    /// Captures the state of a monitor. `checkpoint` is the signed note up to which it has read.
    pub fn new(monitor: &Monitor, checkpoint: String) -> MonitorState {
        let hashes =
            |bytes: &Vec<u8>| bytes.as_chunks::<HASH_SIZE>().0.iter().map(|hash| Hash(*hash).to_string()).collect();
        MonitorState {
            checkpoint,
            edge: monitor.edge.levels().iter().map(hashes).collect(),
            agents: by_text(&monitor.agents),
            findings: monitor.findings.clone(),
            broken: monitor.broken,
            first_leaf: Some(monitor.first_leaf).filter(|first| *first > 0),
            before_gap: by_text(&monitor.before_gap),
        }
    }

    /// Restores the monitor. `head` is the content of [`MonitorState::checkpoint`], which the caller has verified.
    ///
    /// # Errors
    /// When the state does not match the checkpoint, or has a malformed hash or agent key.
    pub fn restore(self, head: &Head) -> Result<Monitor, String> {
        let hash = |text: &String| text.parse::<Hash>().map_err(|error| error.to_string());
        let mut levels = Vec::new();
        for level in &self.edge {
            let mut bytes = Vec::with_capacity(WIDTH * HASH_SIZE);
            for text in level {
                bytes.extend_from_slice(&hash(text)?.0);
            }
            levels.push(bytes);
        }
        let edge = Edge::rebuild(head.size, |level, _, count| {
            let bytes = levels.get(usize::from(level)).filter(|bytes| bytes.len() == count * HASH_SIZE);
            bytes.cloned().ok_or_else(|| "the edge of the tree does not match the checkpoint".to_owned())
        })?;
        let agent = |(key, last): (String, Option<u64>)| {
            let key = hex::parse(key.as_bytes()).ok_or("agents: expected a key of 32 lower-case hex digits")?;
            Ok::<_, String>((AgentKey(key), last))
        };
        let agents = self.agents.into_iter().map(agent).collect::<Result<_, _>>()?;
        let before_gap = self.before_gap.into_iter().map(agent).collect::<Result<_, _>>()?;
        let first_leaf = self.first_leaf.unwrap_or(0);
        let monitor = Monitor { edge, first_leaf, agents, before_gap, findings: self.findings, broken: self.broken };
        if monitor.matches(head) {
            Ok(monitor)
        } else {
            Err("the edge of the tree does not match the checkpoint".to_owned())
        }
    }
}

/// Agent keys in hex.
fn by_text(agents: &HashMap<AgentKey, Option<u64>>) -> HashMap<String, Option<u64>> {
    agents.iter().map(|(key, last)| (format!("{key:?}"), *last)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Sequence;
    use crate::tree::leaf;

    fn bundle(leaves: &[(&str, u64)]) -> Vec<u8> {
        let mut bundle = Vec::new();
        for (agent, sequence) in leaves {
            let data = leaf::data(format!("\"{agent}\"").as_bytes(), Hash([7; 32]), Sequence(*sequence));
            bundle.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bundle.extend_from_slice(&data);
        }
        bundle
    }

    fn read(leaves: &[(&str, u64)]) -> Monitor {
        let mut monitor = Monitor::default();
        monitor.read_bundle(&bundle(leaves), leaves.len(), 0).unwrap();
        monitor
    }

    #[test]
    fn the_first_wrong_sequence_of_each_agent_is_reported() {
        let whole = read(&[("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)]);
        assert_eq!((whole.broken, whole.agents(), whole.size()), (0, 2, 5));
        for (leaves, found) in [
            (&[("a", 1), ("b", 1), ("a", 1), ("a", 2)][..], "agent \"a\": leaf 2 has sequence 1, expected 2"),
            (&[("a", 1), ("a", 3), ("a", 2), ("b", 1)][..], "agent \"a\": leaf 1 has sequence 3, expected 2"),
            (&[("a", 2)][..], "agent \"a\": leaf 0 has sequence 2, expected 1"),
        ] {
            let monitor = read(leaves);
            assert_eq!((monitor.broken, &*monitor.findings), (1, &[found.to_owned()][..]));
        }
    }

    #[test]
    fn after_leaves_that_cannot_be_read_the_sequences_of_an_agent_still_rise() {
        let after_gap = |leaves: &[(&str, u64)]| {
            let mut monitor = read(&[("a", 1), ("a", 2), ("b", 1), ("c", 2)]);
            let whole: Vec<(&str, u64)> = (1..=512).map(|n| ("d", n)).collect();
            monitor.begin_after(read(&whole).edge);
            monitor.read_bundle(&bundle(leaves), leaves.len(), 0).unwrap();
            (monitor.broken, monitor.last_sequence(AgentKey::of("a")), monitor.last_sequence(AgentKey::of("b")))
        };
        assert_eq!(after_gap(&[("a", 7), ("a", 8), ("e", 9)]), (1, Some(8), Some(1)), "the error of c stays");
        assert_eq!(after_gap(&[("a", 7), ("a", 9)]), (2, None, Some(1)));
        assert_eq!(after_gap(&[("a", 1)]), (2, None, Some(1)), "a second chain");
        assert_eq!(after_gap(&[("c", 9)]), (1, Some(2), Some(1)), "the first error of an agent is reported once");
    }

    #[test]
    fn malformed_leaves_are_reported_and_malformed_bundles_are_rejected() {
        let mut monitor = Monitor::default();
        let hash = Hash([7; 32]);
        let escaped = format!(r#"{{"agent_id":"\u0061","hash":"{hash}","sequence":1}}"#);
        for data in ["{}", r#"{"agent_id":"a","hash":"x","sequence":1}"#, &escaped] {
            let mut bytes = (data.len() as u16).to_be_bytes().to_vec();
            bytes.extend_from_slice(data.as_bytes());
            monitor.read_bundle(&bytes, 1, 0).unwrap();
        }
        assert_eq!((monitor.broken, monitor.size()), (3, 3));
        let whole = bundle(&[("a", 1), ("a", 2)]);
        for (bytes, count) in [(&whole[..whole.len() - 1], 2), (&whole[..], 1), (&whole[..], 3), (&whole[..1], 1)] {
            assert!(Monitor::default().read_bundle(bytes, count, 0).is_err());
        }
    }

    #[test]
    fn a_restored_monitor_continues_as_if_it_had_not_stopped() {
        let leaves: Vec<(String, u64)> = (0..700).map(|n| (format!("a{}", n % 7), n / 7 + 1)).collect();
        let leaves: Vec<(&str, u64)> = leaves.iter().map(|(agent, n)| (agent.as_str(), *n)).collect();
        let whole = read(&leaves);
        for stop in [0, 1, 255, 256, 257, 512, 700] {
            let before = read(&leaves[..stop]);
            let head = Head { origin: "x".to_owned(), size: stop as u64, root: before.edge.root() };
            let file = serde_json::to_string(&MonitorState::new(&before, "note".to_owned())).unwrap();
            let state: MonitorState = serde_json::from_str(&file).unwrap();
            let mut after = state.restore(&head).unwrap();
            after.read_bundle(&bundle(&leaves[stop..]), leaves.len() - stop, 0).unwrap();
            assert_eq!((after.edge.root(), after.broken), (whole.edge.root(), 0), "{stop}");
            let other = Head { root: tlog_tiles::Hash([9; 32]), ..head };
            let state: MonitorState = serde_json::from_str(&file).unwrap();
            assert!(state.restore(&other).is_err(), "an edited state is rejected");
        }
    }
}
