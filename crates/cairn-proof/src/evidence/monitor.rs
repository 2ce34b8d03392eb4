//! The reader of every leaf: follows a log from outside, and sees what no single proof shows.
//!
//! Each agent's sequences have to be 1, 2, 3 ... once each, in the order of the leaves. So an operator who keeps two
//! chains of one agent, and shows each to somebody else, is found: both are leaves, or one of them has no proof.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tlog_tiles::{HASH_SIZE, record_hash};

use crate::chain::{AgentKey, Field, Hash, canonicalize, check_field, scan};
use crate::hex;
use crate::tree::{Edge, Head, WIDTH};

/// How many findings are kept; more are counted.
const FINDINGS: usize = 100;

/// What a reader knows of the leaves that it has read.
#[derive(Default)]
pub struct Monitor {
    edge: Edge,
    /// The last sequence of every agent; `None` once its sequences were wrong.
    agents: HashMap<AgentKey, Option<u64>>,
    /// What was wrong, in words.
    pub findings: Vec<String>,
    /// How many agents' sequences were wrong.
    pub broken: u64,
}

/// A leaf's data.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeafData {
    agent_id: String,
    hash: String,
    sequence: u64,
}

impl Monitor {
    /// How many leaves were read.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// The last sequence of an agent: 0 if it has no leaf, `None` if its sequences were wrong.
    pub fn last_sequence(&self, agent: AgentKey) -> Option<u64> {
        self.agents.get(&agent).copied().unwrap_or(Some(0))
    }

    /// How many agents they are of.
    pub fn agents(&self) -> usize {
        self.agents.len()
    }

    /// Whether the leaves that were read are those that a checkpoint signed.
    pub fn is_at(&self, head: &Head) -> bool {
        self.edge.size() == head.size && self.edge.root() == head.root
    }

    /// Takes a bundle of leaves, the first of which was read before that many times (C2SP tlog-tiles, entry bundles).
    ///
    /// # Errors
    /// When it is no bundle of `count` leaves.
    pub fn bundle(&mut self, mut bytes: &[u8], count: usize, read_before: usize) -> Result<(), String> {
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
            return self.found(format!("leaf {number} is no event's"));
        };
        let last = self.agents.entry(AgentKey::of(&agent_id)).or_insert(Some(0));
        match *last {
            Some(before) if before.checked_add(1) == Some(sequence) => *last = Some(sequence),
            Some(before) => {
                *last = None;
                let expected = before.saturating_add(1);
                self.found(format!("agent {agent_id:?}: leaf {number} has sequence {sequence}, expected {expected}"));
            }
            // It was told once.
            None => {}
        }
    }

    fn found(&mut self, what: String) {
        self.broken = self.broken.saturating_add(1);
        if self.findings.len() < FINDINGS {
            self.findings.push(what);
        }
    }
}

/// Reads a leaf's data; `None` if it is not in the form that every leaf has.
fn parse(data: &[u8]) -> Option<LeafData> {
    let parsed: LeafData = serde_json::from_slice(data).ok()?;
    // Three members in canonical form can be written in one way only.
    let is_canonical = canonicalize(std::str::from_utf8(data).ok()?).is_ok_and(|canonical| canonical == data);
    let is_agent = check_field(Field::AgentId, scan::member(data, "agent_id")?).is_ok();
    (is_canonical && is_agent && parsed.hash.parse::<Hash>().is_ok()).then_some(parsed)
}

/// Where a reader was when it stopped: kept in a file, so that it goes on from there.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorState {
    /// The checkpoint up to which everything was read: a signed note.
    pub checkpoint: String,
    /// The hashes of the tree's edge, level by level, in hex.
    edge: Vec<Vec<String>>,
    /// By agent key in hex, the last sequence; null once they were wrong.
    agents: HashMap<String, Option<u64>>,
    findings: Vec<String>,
    broken: u64,
}

impl MonitorState {
    /// Where a reader is.
    pub fn of(reader: &Monitor, checkpoint: String) -> MonitorState {
        let hashes =
            |bytes: &Vec<u8>| bytes.as_chunks::<HASH_SIZE>().0.iter().map(|hash| Hash(*hash).to_string()).collect();
        MonitorState {
            checkpoint,
            edge: reader.edge.levels().iter().map(hashes).collect(),
            agents: reader.agents.iter().map(|(key, last)| (format!("{key:?}"), *last)).collect(),
            findings: reader.findings.clone(),
            broken: reader.broken,
        }
    }

    /// The reader that goes on from here; the checkpoint is what the place's own says.
    ///
    /// # Errors
    /// When the file is not what was written.
    pub fn monitor(self, head: &Head) -> Result<Monitor, String> {
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
            bytes.cloned().ok_or_else(|| "its edge is not that of its checkpoint".to_owned())
        })?;
        let agent = |(key, last): (String, Option<u64>)| {
            let key = hex::parse(key.as_bytes()).ok_or("agents: expected a key of 32 lower-case hex digits")?;
            Ok::<_, String>((AgentKey(key), last))
        };
        let agents = self.agents.into_iter().map(agent).collect::<Result<_, _>>()?;
        let reader = Monitor { edge, agents, findings: self.findings, broken: self.broken };
        if reader.is_at(head) { Ok(reader) } else { Err("its edge is not that of its checkpoint".to_owned()) }
    }
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
        let mut reader = Monitor::default();
        reader.bundle(&bundle(leaves), leaves.len(), 0).unwrap();
        reader
    }

    #[test]
    fn sequences_that_are_not_1_2_3_once_each_are_found_once_an_agent() {
        let whole = read(&[("a", 1), ("b", 1), ("a", 2), ("b", 2), ("a", 3)]);
        assert_eq!((whole.broken, whole.agents(), whole.size()), (0, 2, 5));
        for (leaves, found) in [
            (&[("a", 1), ("b", 1), ("a", 1), ("a", 2)][..], "agent \"a\": leaf 2 has sequence 1, expected 2"),
            (&[("a", 1), ("a", 3), ("a", 2), ("b", 1)][..], "agent \"a\": leaf 1 has sequence 3, expected 2"),
            (&[("a", 2)][..], "agent \"a\": leaf 0 has sequence 2, expected 1"),
        ] {
            let reader = read(leaves);
            assert_eq!((reader.broken, &*reader.findings), (1, &[found.to_owned()][..]));
        }
    }

    #[test]
    fn what_is_no_leaf_of_ours_is_found_and_what_is_no_bundle_is_refused() {
        let mut reader = Monitor::default();
        let hash = Hash([7; 32]);
        let escaped = format!(r#"{{"agent_id":"\u0061","hash":"{hash}","sequence":1}}"#);
        for data in ["{}", r#"{"agent_id":"a","hash":"x","sequence":1}"#, &escaped] {
            let mut bytes = (data.len() as u16).to_be_bytes().to_vec();
            bytes.extend_from_slice(data.as_bytes());
            reader.bundle(&bytes, 1, 0).unwrap();
        }
        assert_eq!((reader.broken, reader.size()), (3, 3));
        let whole = bundle(&[("a", 1), ("a", 2)]);
        for (bytes, count) in [(&whole[..whole.len() - 1], 2), (&whole[..], 1), (&whole[..], 3), (&whole[..1], 1)] {
            assert!(Monitor::default().bundle(bytes, count, 0).is_err());
        }
    }

    #[test]
    fn a_reader_goes_on_from_its_place_as_if_it_had_not_stopped() {
        let leaves: Vec<(String, u64)> = (0..700).map(|n| (format!("a{}", n % 7), n / 7 + 1)).collect();
        let leaves: Vec<(&str, u64)> = leaves.iter().map(|(agent, n)| (agent.as_str(), *n)).collect();
        let whole = read(&leaves);
        for stop in [0, 1, 255, 256, 257, 512, 700] {
            let before = read(&leaves[..stop]);
            let head = Head { origin: "x".to_owned(), size: stop as u64, root: before.edge.root() };
            let file = serde_json::to_string(&MonitorState::of(&before, "note".to_owned())).unwrap();
            let place: MonitorState = serde_json::from_str(&file).unwrap();
            let mut after = place.monitor(&head).unwrap();
            after.bundle(&bundle(&leaves[stop..]), leaves.len() - stop, 0).unwrap();
            assert_eq!((after.edge.root(), after.broken), (whole.edge.root(), 0), "{stop}");
            let other = Head { root: tlog_tiles::Hash([9; 32]), ..head };
            let place: MonitorState = serde_json::from_str(&file).unwrap();
            assert!(place.monitor(&other).is_err(), "a place that was edited is refused");
        }
    }
}
