//! Follows a log from outside: reads every leaf up to each new checkpoint, and compares it with every checkpoint seen before.

use std::fmt;

use serde_json::{Value, json};
use tlog_tiles::{
    Error as TlogError, HASH_SIZE, Hash as NodeHash, HashReader, Tile, check_tree, prove_tree, split_stored_hash_index,
};

use super::monitor::{Monitor, MonitorState};
use crate::chain::AgentKey;
use crate::sanitize::sanitize;
use crate::tree::{HEIGHT, Head, TilePath, WIDTH, checkpoint};

/// The longest bundle of 256 leaves, in bytes.
const BUNDLE_MAX_BYTES: u64 = (WIDTH as u64) * (2 + u16::MAX as u64);
/// The longest checkpoint, and longer than any tile, in bytes.
const SMALL_MAX_BYTES: u64 = 1 << 20;
/// How many checkpoints are remembered whose leaves could not be read.
const KNOWN_MAX: usize = 100;

/// Why a log could not be read.
pub type LogError = Box<dyn std::error::Error + Send + Sync>;

/// Where a log is read from: files in the layout of C2SP tlog-tiles.
pub trait LogSource {
    /// What messages call it: a URL or a path.
    fn name(&self) -> &str;

    /// Reads a file of the log, such as `checkpoint` or `tile/entries/000`.
    ///
    /// # Errors
    /// When it cannot be read, or has more than `max_bytes` bytes.
    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, LogError>;
}

/// Follows one log.
pub struct Follower<S> {
    source: S,
    /// The verifier keys that the auditor trusts.
    keys: Vec<String>,
    /// The agent whose last sequence is reported.
    agent_id: Option<String>,
    monitor: Monitor,
    /// The checkpoint up to which the monitor has read, with its signed note.
    last: Option<(Head, String)>,
    /// Other checkpoints that the log has to extend, each with a name: one that was kept elsewhere, and those that the log has shown
    /// without showing all of its leaves.
    known: Vec<(String, Head)>,
}

/// The result of one reading.
pub struct Report {
    head: Head,
    new: u64,
    agents: usize,
    /// The agent that was asked for, and its last sequence; `None` if its sequences are wrong.
    agent: Option<(String, Option<u64>)>,
    /// How many findings there are; `findings` has the first of them.
    broken: u64,
    findings: Vec<String>,
}

impl<S: LogSource> Follower<S> {
    /// Follows the log in `source`. `known` are checkpoints of it that were kept elsewhere, each with a name.
    pub fn new(source: S, keys: Vec<String>, agent_id: Option<String>, known: Vec<(String, Head)>) -> Follower<S> {
        Follower { source, keys, agent_id, monitor: Monitor::default(), last: None, known }
    }

    /// Goes back to a state that [`Follower::state`] wrote; without one, to the first leaf. The checkpoint that was read last stays known.
    ///
    /// # Errors
    /// When the state was not written by this program, or its checkpoint is not signed with a trusted key.
    pub fn resume(&mut self, state: Option<MonitorState>) -> Result<(), String> {
        self.monitor = Monitor::default();
        if let Some((last, _)) = self.last.take() {
            self.remember("the last reading", last);
        }
        if let Some(state) = state {
            let note = state.checkpoint.clone();
            let (head, _) = checkpoint::open(note.as_bytes(), &self.keys)?;
            self.monitor = state.monitor(&head)?;
            self.last = Some((head, note));
        }
        Ok(())
    }

    /// The state after the last complete reading; `None` if leaves were read that no checkpoint covers.
    pub fn state(&self) -> Option<MonitorState> {
        let (head, note) = self.last.as_ref()?;
        (head.size == self.monitor.size()).then(|| MonitorState::of(&self.monitor, note.clone()))
    }

    /// Reads what is new. `progress` is called with the number of leaves read and the number to read.
    ///
    /// # Errors
    /// When the log cannot be read. What it shows that is wrong is in the report.
    pub fn read(&mut self, progress: impl FnMut(u64, u64)) -> Result<Report, LogError> {
        let note = self.source.read("checkpoint", SMALL_MAX_BYTES)?;
        let before = self.monitor.size();
        checkpoint::told(&note).map_err(|why| format!("{}: checkpoint: {why}", self.source.name()))?;
        let head = match checkpoint::open(&note, &self.keys) {
            Ok((head, _)) => head,
            Err(why) => {
                let origin = self.source.name().to_owned();
                let head = Head { origin, size: before, root: NodeHash([0; HASH_SIZE]) };
                return Ok(self.report(head, before, Some(format!("its checkpoint: {why}"))));
            }
        };
        if let Some(why) = self.rollback(&head) {
            return Ok(self.report(head, before, Some(why)));
        }
        // Known from here on, whether or not the rest of the log can be read.
        self.remember("a checkpoint that it has shown", head.clone());
        for (name, known) in &self.known {
            if let Some(why) = self.compare(name, known, &head)? {
                return Ok(self.report(head, before, Some(why)));
            }
        }
        if let Some(why) = self.read_leaves(&head, progress)? {
            return Ok(self.report(head, before, Some(why)));
        }
        // The new checkpoint extends all of them.
        self.known.clear();
        self.last = Some((head.clone(), String::from_utf8_lossy(&note).into_owned()));
        Ok(self.report(head, before, None))
    }

    fn remember(&mut self, name: &str, head: Head) {
        if self.known.len() < KNOWN_MAX && self.known.iter().all(|(_, known)| *known != head) {
            self.known.push((name.to_owned(), head));
        }
    }

    /// Reads the leaves up to a checkpoint; returns what is wrong with them.
    fn read_leaves(&mut self, head: &Head, mut progress: impl FnMut(u64, u64)) -> Result<Option<String>, LogError> {
        let before = self.monitor.size();
        while self.monitor.size() < head.size {
            progress(self.monitor.size() - before, head.size - before);
            let index = self.monitor.size() / WIDTH as u64;
            let first = index * WIDTH as u64;
            let width = (head.size - first).min(WIDTH as u64) as usize;
            let path = TilePath { level: None, index, width };
            let bundle = self.source.read(&format!("tile/{path}"), BUNDLE_MAX_BYTES)?;
            let read_before = (self.monitor.size() - first) as usize;
            if let Err(why) = self.monitor.bundle(&bundle, width, read_before) {
                return Ok(Some(format!("the leaves from {first} on: {why}")));
            }
        }
        Ok(match (self.monitor.is_at(head), before) {
            (true, _) => None,
            (false, 0) => Some(format!("its {} leaves are not those that were signed", head.size)),
            (false, before) => Some(format!(
                "its checkpoint of {} events does not extend the {before} events of the last reading, or its leaves are not \
                 those that were signed",
                head.size
            )),
        })
    }

    /// Why a checkpoint is older than a known one, or of another log.
    fn rollback(&self, head: &Head) -> Option<String> {
        let last = self.last.iter().map(|(last, _)| ("the last reading", last));
        let known = self.known.iter().map(|(name, known)| (name.as_str(), known));
        last.chain(known).find_map(|(name, known)| {
            if known.origin != head.origin {
                return Some(format!("its origin is {:?}, and was {:?} in {name}", head.origin, known.origin));
            }
            (known.size > head.size).then(|| {
                format!("it was set back: {} events were signed in {name}, and now there are {}", known.size, head.size)
            })
        })
    }

    /// Why the log does not extend a known checkpoint.
    fn compare(&self, name: &str, known: &Head, head: &Head) -> Result<Option<String>, LogError> {
        if known.size == 0 {
            return Ok(None);
        }
        let wrong = || Some(format!("its first {} events are not those that were signed in {name}", known.size));
        if known.size == head.size {
            return Ok(if known.root == head.root { None } else { wrong() });
        }
        let hashes = SourceHashes { source: &self.source, size: head.size };
        let proof = match prove_tree(head.size, known.size, &hashes) {
            Ok(proof) => proof,
            Err(TlogError::InvalidInput(why)) => return Err(why.into()),
            Err(_) => return Ok(wrong()),
        };
        let checked = check_tree(&proof, head.size, head.root, known.size, known.root);
        Ok(if checked.is_ok() { None } else { wrong() })
    }

    fn report(&self, head: Head, before: u64, wrong: Option<String>) -> Report {
        let mut findings: Vec<String> = wrong.into_iter().collect();
        let broken = self.monitor.broken.saturating_add(findings.len() as u64);
        findings.extend(self.monitor.findings.iter().cloned());
        let last_sequence = |agent_id: &String| self.monitor.last_sequence(AgentKey::of(agent_id));
        let agent = self.agent_id.as_ref().map(|agent_id| (agent_id.clone(), last_sequence(agent_id)));
        let new = self.monitor.size().saturating_sub(before);
        Report { head, new, agents: self.monitor.agents(), agent, broken, findings }
    }
}

/// Any hash of a log's tree, read from its tiles. Nothing is trusted: a wrong hash makes a proof that does not verify.
struct SourceHashes<'s, S> {
    source: &'s S,
    size: u64,
}

impl<S: LogSource> HashReader for SourceHashes<'_, S> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<NodeHash>, TlogError> {
        let read = |index: &u64| {
            let (level, n) = split_stored_hash_index(*index);
            let (tile_level, height) = (level / HEIGHT, level % HEIGHT);
            let first = n << height;
            let (index, offset) = (first / WIDTH as u64, (first % WIDTH as u64) as usize);
            let on_level = self.size >> (HEIGHT * tile_level);
            let width = on_level.saturating_sub(index * WIDTH as u64).min(WIDTH as u64) as usize;
            let path = TilePath { level: Some(tile_level), index, width };
            let tile = self.source.read(&format!("tile/{path}"), SMALL_MAX_BYTES);
            let tile = tile.map_err(|error| TlogError::InvalidInput(error.to_string()))?;
            let hashes = tile.get(offset * HASH_SIZE..(offset + (1 << height)) * HASH_SIZE);
            hashes.map(Tile::subtree_hash).ok_or(TlogError::IndexesNotInTree)
        };
        indexes.iter().map(read).collect()
    }
}

impl Report {
    /// Whether nothing is wrong with the log as far as it was read.
    pub fn is_valid(&self) -> bool {
        self.broken == 0
    }

    /// The report for programs.
    pub fn to_json(&self) -> Value {
        json!({
            "valid": self.is_valid(), "origin": self.head.origin, "tree_size": self.head.size, "new_events": self.new,
            "agents": self.agents, "broken": self.broken, "findings": self.findings,
            "agent_id": self.agent.as_ref().map(|(agent_id, _)| agent_id),
            "last_sequence": self.agent.as_ref().and_then(|(_, last)| *last),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "BROKEN: {}", sanitize(finding))?;
        }
        if self.broken > self.findings.len() as u64 {
            writeln!(f, "BROKEN: and {} more", self.broken - self.findings.len() as u64)?;
        }
        match &self.agent {
            Some((agent_id, Some(last))) => writeln!(f, "agent {agent_id:?}: the last sequence in the log is {last}")?,
            Some((agent_id, None)) => writeln!(f, "agent {agent_id:?}: its sequences are wrong")?,
            None => {}
        }
        let Report { head, new, agents, broken, .. } = self;
        write!(f, "{}: {} events of {agents} agents, {new} of them new: ", sanitize(&head.origin), head.size)?;
        match broken {
            0 => f.write_str("the sequences of each agent are 1, 2, 3 ... without a gap or repetition: valid"),
            broken => write!(f, "{broken} BROKEN"),
        }
    }
}
