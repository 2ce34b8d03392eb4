//! Walking a chain from its first event to its head, and naming the first break.

use std::fmt;

use super::canonical::Canonical;
use super::fields::Field;
use super::json::{Canonicalizer, Parser};
use super::link::{AgentKey, AgentMap, Hash, Sequence};
use super::scan;

/// How many agents' ids are remembered.
const AGENTS: usize = 4096;

/// What a chain says of one event.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// The agent whose chain it stands in.
    pub agent: AgentKey,
    /// Its place there.
    pub sequence: Sequence,
    /// The hash of the event before it.
    pub prev_hash: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// Its content.
    pub canonical: &'a [u8],
}

/// The first event of a chain that does not follow from the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The place in the chain where it breaks.
    pub sequence: Sequence,
    /// Which rule failed.
    pub kind: BreakKind,
}

/// The rule that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakKind {
    /// Another sequence stands where this one belongs.
    SequenceGap {
        /// What stands there.
        found: Sequence,
    },
    /// `prev_hash` is not the hash of the event before.
    BrokenLink,
    /// The hash is not that of the canonical bytes and `prev_hash`.
    HashMismatch,
    /// The hash is right, but the bytes are no event in canonical form: what is wrong with them.
    NotAnEvent(String),
    /// There is no such event, or what is stored cannot be read: why.
    Unreadable(String),
    /// The chain ends here, or goes on, against what is stored about its head: what that says.
    WrongHead(String),
}

impl std::error::Error for Break {}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sequence = self.sequence;
        match &self.kind {
            BreakKind::SequenceGap { found } => write!(f, "sequence gap: expected {sequence}, found {found}"),
            BreakKind::BrokenLink => write!(f, "broken link at sequence {sequence}"),
            BreakKind::HashMismatch => write!(f, "hash mismatch at sequence {sequence}"),
            BreakKind::NotAnEvent(why) => write!(f, "not an event at sequence {sequence}: {why}"),
            BreakKind::Unreadable(why) => write!(f, "unreadable at sequence {sequence}: {why}"),
            BreakKind::WrongHead(why) => write!(f, "wrong head at sequence {sequence}: {why}"),
        }
    }
}

/// A chain that has been followed so far without a break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The last event's place; 0 at the start.
    pub sequence: Sequence,
    /// The last event's hash; [`Hash::GENESIS`] at the start.
    pub hash: Hash,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk { sequence: Sequence(0), hash: Hash::GENESIS }
    }
}

impl Walk {
    /// Takes the next event: checks its sequence, its link, its hash, and then that the hashed bytes are an event.
    ///
    /// # Errors
    /// The first of these that fails. The walk is over then.
    pub fn step(&mut self, link: &Link<'_>, checker: &mut Checker) -> Result<(), Break> {
        let fault = checker.check(link.canonical, link.agent).err();
        self.step_checked(link, Hash::of_event(link.canonical, &link.prev_hash), fault.as_deref())
    }

    /// Takes the next event, whose hash was computed and whose bytes were checked before: `hash` is that of the canonical bytes and of the
    /// previous hash that the link names, `fault` is what [`Checker::check`] found.
    ///
    /// # Errors
    /// As for [`Walk::step`].
    pub fn step_checked(&mut self, link: &Link<'_>, hash: Hash, fault: Option<&str>) -> Result<(), Break> {
        let before = *self;
        self.follow_hashed(link, hash)?;
        if let Some(fault) = fault {
            *self = before;
            return Err(Break { sequence: link.sequence, kind: BreakKind::NotAnEvent(fault.to_owned()) });
        }
        Ok(())
    }

    /// Takes the next event: its sequence, its link and its hash. That its content is an event in canonical form is for
    /// the caller to know.
    ///
    /// # Errors
    /// The first of these that fails. The walk is over then.
    pub fn follow(&mut self, link: &Link<'_>) -> Result<(), Break> {
        self.follow_hashed(link, Hash::of_event(link.canonical, &link.prev_hash))
    }

    fn follow_hashed(&mut self, link: &Link<'_>, hash: Hash) -> Result<(), Break> {
        let sequence = self.sequence.next();
        let broken = |kind| Err(Break { sequence, kind });
        if link.sequence != sequence {
            return broken(BreakKind::SequenceGap { found: link.sequence });
        }
        if link.prev_hash != self.hash {
            return broken(BreakKind::BrokenLink);
        }
        if hash != link.hash {
            return broken(BreakKind::HashMismatch);
        }
        *self = Walk { sequence, hash: link.hash };
        Ok(())
    }
}

/// Checks that bytes are an event in canonical form, with memory that is reused from one event to the next.
#[derive(Default)]
pub struct Checker {
    fast: Canonical,
    memory: Canonicalizer,
    again: Vec<u8>,
    /// The canonical ids of agents that were seen.
    agents: AgentMap<Box<[u8]>>,
}

impl Checker {
    /// Bytes are an event of `agent` if they are their own canonical form, have no fields but those of the
    /// schema, and name that agent.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&mut self, canonical: &[u8], agent: AgentKey) -> Result<(), String> {
        let text = std::str::from_utf8(canonical).map_err(|error| error.to_string())?;
        let mut agent_id = None;
        let is_event = self.fast.is_event(text, |field, value| {
            if field == Field::AgentId {
                agent_id = Some(value);
            }
        });
        if is_event && agent_id.is_some_and(|id| self.is_agent(id, agent)) {
            return Ok(());
        }
        self.check_slowly(text, agent)
    }

    /// Whether a canonical value is an agent's id. Its hash is the same for every event of the agent.
    fn is_agent(&mut self, id: &[u8], agent: AgentKey) -> bool {
        if self.agents.get(&agent).is_some_and(|known| **known == *id) {
            return true;
        }
        let is_it = scan::text(id).is_some_and(|text| AgentKey::of(&text) == agent);
        if is_it {
            if self.agents.len() >= AGENTS {
                self.agents.clear();
            }
            self.agents.insert(agent, id.into());
        }
        is_it
    }

    /// The same for whatever the fast way does not know, and with the reason.
    fn check_slowly(&mut self, text: &str, agent: AgentKey) -> Result<(), String> {
        let canonical = text.as_bytes();
        self.again.clear();
        let mut parser = Parser::new(text, 0, &mut self.memory, usize::MAX);
        parser.value(&mut self.again).and_then(|()| parser.end()).map_err(|error| error.to_string())?;
        if self.again != canonical {
            return Err("not in canonical form".to_owned());
        }
        if canonical.first() != Some(&b'{') {
            return Err("not an object".to_owned());
        }
        let mut agent_id = None;
        for (key, value) in scan::members(canonical) {
            match Field::from_name(key) {
                Some(Field::AgentId) => agent_id = scan::text(value),
                Some(_) => {}
                None => return Err(format!("unknown field {:?}", String::from_utf8_lossy(key))),
            }
        }
        let agent_id = agent_id.ok_or("no agent_id")?;
        if AgentKey::of(&agent_id) != agent {
            return Err(format!("it is an event of agent {agent_id:?}"));
        }
        Ok(())
    }
}
