//! Follows a log from outside: reads every leaf up to each new checkpoint, and checks that the checkpoint extends every
//! checkpoint that is known.
//!
//! This is the procedure of `docs/verification.md`, "How a monitor checks a log". A [`LogSource`] supplies the files of
//! the log; the caller stores the state between runs.

use std::fmt;

use serde_json::{Value, json};
use tlog_tiles::{
    Error as TlogError, HASH_SIZE, Hash as NodeHash, HashReader, Tile, check_tree, prove_tree, split_stored_hash_index,
};

use super::monitor::{Monitor, MonitorState};
use crate::chain::AgentKey;
use crate::plural::plural;
use crate::sanitize::sanitize;
use crate::tree::{Edge, HEIGHT, Head, TilePath, WIDTH, checkpoint};

/// The maximum length of a bundle of 256 leaves, in bytes.
const MAX_BUNDLE_BYTES: u64 = (WIDTH as u64) * (2 + u16::MAX as u64);
/// The maximum length of a checkpoint or a tile, in bytes.
const MAX_SMALL_FILE_BYTES: u64 = 1 << 20;
/// The maximum number of checkpoints that are remembered while their leaves cannot be read.
const MAX_KNOWN_CHECKPOINTS: usize = 100;

/// Why a log could not be read.
pub type LogError = Box<dyn std::error::Error + Send + Sync>;

/// Access to the files of a log in the layout of C2SP tlog-tiles.
pub trait LogSource {
    /// The name of the source in messages: a URL or a path.
    fn name(&self) -> &str;

    /// Reads a file of the log, such as `checkpoint` or `tile/entries/000`.
    ///
    /// # Errors
    /// When the file cannot be read, or is longer than `max_bytes`.
    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, LogError>;

    /// The first leaf that can be read, if the log has dropped those before it: the minimum index of C2SP tlog-tiles.
    ///
    /// # Errors
    /// When it cannot be read.
    fn minimum_index(&self) -> Result<u64, LogError> {
        Ok(0)
    }
}

/// Follows one log: reads new leaves, and checks each new checkpoint.
pub struct Follower<S> {
    source: S,
    /// The verifier keys that the auditor trusts.
    keys: Vec<String>,
    /// The agent whose last sequence is reported.
    agent_id: Option<String>,
    monitor: Monitor,
    /// The checkpoint up to which the monitor has read, and its signed note.
    last_read: Option<(Head, String)>,
    /// Other checkpoints that the log must extend, each with a name for messages: those that were kept elsewhere, and
    /// those that the log has served without all of their leaves.
    known_checkpoints: Vec<(String, Head)>,
}

/// The result of one reading.
pub struct Report {
    head: Head,
    /// The first leaf that was read; greater than 0 if the log had dropped those before it.
    first_leaf: u64,
    new_events: u64,
    agents: usize,
    /// The requested agent and its last sequence; `None` if there is an error in its sequences.
    agent: Option<(String, Option<u64>)>,
    /// The number of findings; `findings` has the first of them.
    broken: u64,
    findings: Vec<String>,
}

impl<S: LogSource> Follower<S> {
    /// Follows the log in `source` from its first leaf.
    ///
    /// `keys` are the verifier keys that the auditor trusts. `agent_id` names an agent whose last sequence is reported.
    /// `known_checkpoints` are verified checkpoints of the log that were kept elsewhere, each with a name for messages.
    pub fn new(
        source: S,
        keys: Vec<String>,
        agent_id: Option<String>,
        known_checkpoints: Vec<(String, Head)>,
    ) -> Follower<S> {
        Follower { source, keys, agent_id, monitor: Monitor::default(), last_read: None, known_checkpoints }
    }

    /// Continues from a state that [`Follower::state`] returned; without one, from the first leaf.
    ///
    /// The checkpoint of the previous reading remains known: the log must still extend it.
    ///
    /// # Errors
    /// When the state is invalid, or its checkpoint is not signed with a trusted key.
    pub fn resume(&mut self, state: Option<MonitorState>) -> Result<(), String> {
        self.monitor = Monitor::default();
        if let Some((head, _)) = self.last_read.take() {
            self.remember("the previous reading", head);
        }
        if let Some(state) = state {
            let note = state.checkpoint.clone();
            let (head, _) = checkpoint::open(note.as_bytes(), &self.keys)?;
            self.monitor = state.restore(&head)?;
            self.last_read = Some((head, note));
        }
        Ok(())
    }

    /// The state after the last complete reading; `None` if there is none, or if leaves were read that its checkpoint
    /// does not cover.
    pub fn state(&self) -> Option<MonitorState> {
        let (head, note) = self.last_read.as_ref()?;
        (head.size == self.monitor.size()).then(|| MonitorState::new(&self.monitor, note.clone()))
    }

    /// Reads the current checkpoint and all new leaves. `progress` is called with the number of new leaves read, and
    /// their total.
    ///
    /// # Errors
    /// When the log cannot be read. Violations of its rules are in the report.
    pub fn read(&mut self, progress: impl FnMut(u64, u64)) -> Result<Report, LogError> {
        let minimum = self.source.minimum_index()?;
        let note = self.source.read("checkpoint", MAX_SMALL_FILE_BYTES)?;
        let before = self.monitor.size();
        checkpoint::parse_unverified(&note).map_err(|why| format!("{}: checkpoint: {why}", self.source.name()))?;
        let head = match checkpoint::open(&note, &self.keys) {
            Ok((head, _)) => head,
            Err(why) => {
                let origin = self.source.name().to_owned();
                let head = Head { origin, size: before, root: NodeHash([0; HASH_SIZE]) };
                return Ok(self.report(head, before, Some(format!("checkpoint: {why}"))));
            }
        };
        if let Some(why) = self.rollback(&head) {
            return Ok(self.report(head, before, Some(why)));
        }
        // Remembered even if the rest of the log cannot be read: the log must not replace this checkpoint later.
        self.remember("a checkpoint that the log served earlier", head.clone());
        for (name, known) in &self.known_checkpoints {
            if let Some(why) = self.check_consistency(name, known, &head)? {
                return Ok(self.report(head, before, Some(why)));
            }
        }
        if let Some(why) = self.skip_dropped(minimum, &head)? {
            return Ok(self.report(head, before, Some(why)));
        }
        if let Some(why) = self.read_leaves(&head, progress)? {
            return Ok(self.report(head, before, Some(why)));
        }
        // The new checkpoint extends all known ones, so it replaces them.
        self.known_checkpoints.clear();
        self.last_read = Some((head.clone(), String::from_utf8_lossy(&note).into_owned()));
        Ok(self.report(head, before, None))
    }

    fn remember(&mut self, name: &str, head: Head) {
        if self.known_checkpoints.len() < MAX_KNOWN_CHECKPOINTS
            && self.known_checkpoints.iter().all(|(_, known)| *known != head)
        {
            self.known_checkpoints.push((name.to_owned(), head));
        }
    }

    /// Continues at the first leaf that can be read, with the tree before it as the tiles above give it. That is right if the tree then
    /// matches the checkpoint. Returns why the log does not extend the previous reading, if it does not.
    fn skip_dropped(&mut self, minimum: u64, head: &Head) -> Result<Option<String>, LogError> {
        if self.monitor.size() >= minimum {
            return Ok(None);
        }
        if minimum > head.size || !minimum.is_multiple_of(WIDTH as u64) {
            return Err(format!("the minimum index of the log cannot be {minimum}").into());
        }
        if let Some((last, _)) = &self.last_read
            && let Some(why) = self.check_consistency("the previous reading", last, head)?
        {
            return Ok(Some(why));
        }
        let edge = Edge::rebuild(minimum, |level, first, count| {
            let index = first / WIDTH as u64;
            let on_level = head.size >> (HEIGHT * level);
            let width = on_level.saturating_sub(index * WIDTH as u64).min(WIDTH as u64) as usize;
            let path = TilePath { level: Some(level), index, width };
            let mut tile = self.source.read(&format!("tile/{path}"), MAX_SMALL_FILE_BYTES)?;
            if tile.len() != width * HASH_SIZE {
                return Err(format!("tile/{path} has {} bytes, expected {}", tile.len(), width * HASH_SIZE).into());
            }
            tile.truncate(count * HASH_SIZE);
            Ok::<_, LogError>(tile)
        })?;
        self.monitor.begin_after(edge);
        Ok(None)
    }

    /// Reads the leaves up to a checkpoint. Returns why they do not match it, if they do not.
    fn read_leaves(&mut self, head: &Head, mut progress: impl FnMut(u64, u64)) -> Result<Option<String>, LogError> {
        let before = self.monitor.size();
        while self.monitor.size() < head.size {
            progress(self.monitor.size() - before, head.size - before);
            let index = self.monitor.size() / WIDTH as u64;
            let first = index * WIDTH as u64;
            let width = (head.size - first).min(WIDTH as u64) as usize;
            let path = TilePath { level: None, index, width };
            let bundle = self.source.read(&format!("tile/{path}"), MAX_BUNDLE_BYTES)?;
            let read_before = (self.monitor.size() - first) as usize;
            if let Err(why) = self.monitor.read_bundle(&bundle, width, read_before) {
                return Ok(Some(format!("leaves from {first} on: {why}")));
            }
        }
        Ok(match (self.monitor.matches(head), before) {
            (true, _) => None,
            (false, 0) => Some(format!("the {} leaves do not match the signed root", head.size)),
            (false, before) => Some(format!(
                "the checkpoint of {} events does not extend the {before} events of the previous reading, or the \
                 leaves do not match the signed root",
                head.size
            )),
        })
    }

    /// Why a checkpoint is smaller than a known one, or has another origin, if so.
    fn rollback(&self, head: &Head) -> Option<String> {
        let last = self.last_read.iter().map(|(head, _)| ("the previous reading", head));
        let known = self.known_checkpoints.iter().map(|(name, known)| (name.as_str(), known));
        last.chain(known).find_map(|(name, known)| {
            if known.origin != head.origin {
                return Some(format!("the origin is {:?}, but was {:?} in {name}", head.origin, known.origin));
            }
            (known.size > head.size).then(|| {
                let (signed, now) = (known.size, head.size);
                format!("the log was rolled back: {signed} events were signed in {name}, but it now has {now}")
            })
        })
    }

    /// Why the log does not extend a known checkpoint, if it does not.
    fn check_consistency(&self, name: &str, known: &Head, head: &Head) -> Result<Option<String>, LogError> {
        if known.size == 0 {
            return Ok(None);
        }
        let mismatch = || Some(format!("the first {} events are not those that were signed in {name}", known.size));
        if known.size == head.size {
            return Ok(if known.root == head.root { None } else { mismatch() });
        }
        let hashes = SourceHashes { source: &self.source, size: head.size };
        let proof = match prove_tree(head.size, known.size, &hashes) {
            Ok(proof) => proof,
            Err(TlogError::InvalidInput(why)) => return Err(why.into()),
            Err(_) => return Ok(mismatch()),
        };
        let checked = check_tree(&proof, head.size, head.root, known.size, known.root);
        Ok(if checked.is_ok() { None } else { mismatch() })
    }

    fn report(&self, head: Head, before: u64, error: Option<String>) -> Report {
        let mut findings: Vec<String> = error.into_iter().collect();
        let broken = self.monitor.broken.saturating_add(findings.len() as u64);
        findings.extend(self.monitor.findings.iter().cloned());
        let last_sequence = |agent_id: &String| self.monitor.last_sequence(AgentKey::of(agent_id));
        let agent = self.agent_id.as_ref().map(|agent_id| (agent_id.clone(), last_sequence(agent_id)));
        let first_leaf = self.monitor.first_leaf();
        let new_events = self.monitor.size().saturating_sub(before.max(first_leaf));
        Report { head, first_leaf, new_events, agents: self.monitor.agents(), agent, broken, findings }
    }
}

/// Reads any hash of the tree of a log from its tiles. The hashes are untrusted: a wrong one results in a proof that
/// does not verify.
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
            let tile = self.source.read(&format!("tile/{path}"), MAX_SMALL_FILE_BYTES);
            let tile = tile.map_err(|error| TlogError::InvalidInput(error.to_string()))?;
            let hashes = tile.get(offset * HASH_SIZE..(offset + (1 << height)) * HASH_SIZE);
            hashes.map(Tile::subtree_hash).ok_or(TlogError::IndexesNotInTree)
        };
        indexes.iter().map(read).collect()
    }
}

impl Report {
    /// Whether there are no findings, now or in earlier readings of the same state.
    pub fn is_valid(&self) -> bool {
        self.broken == 0
    }

    /// The report as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "valid": self.is_valid(), "origin": self.head.origin, "tree_size": self.head.size, "first_leaf": self.first_leaf,
            "new_events": self.new_events, "agents": self.agents, "broken": self.broken, "findings": self.findings,
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
            Some((agent_id, Some(0))) if self.first_leaf > 0 => {
                writeln!(f, "agent {agent_id:?}: it has no leaf from leaf {} on", self.first_leaf)?;
            }
            Some((agent_id, Some(last))) => writeln!(f, "agent {agent_id:?}: the last sequence in the log is {last}")?,
            Some((agent_id, None)) => writeln!(f, "agent {agent_id:?}: its sequences are not 1, 2, 3 ...")?,
            None => {}
        }
        let Report { head, new_events, agents, broken, .. } = self;
        let (events, agents) = (plural(head.size, "event"), plural(agents, "agent"));
        write!(f, "{}: {events} of {agents}, {new_events} new: ", sanitize(&head.origin))?;
        match broken {
            0 if self.first_leaf > 0 => write!(
                f,
                "the leaves before leaf {} were dropped; after them the sequences of each agent are without gaps or repetitions: valid",
                self.first_leaf
            ),
            0 => f.write_str("the sequences of each agent are 1, 2, 3 ... without gaps or repetitions: valid"),
            broken => write!(f, "{broken} BROKEN"),
        }
    }
}
