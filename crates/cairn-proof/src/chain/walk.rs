//! Verifies a chain event by event, and reports the first break.
//!
//! The rules and the messages of breaks are specified in `docs/verification.md`, "Hash and chain" and "Breaks".

use std::fmt;

use super::canonical::FastChecker;
use super::fields::Field;
use super::json::{Parser, ParserScratch};
use super::link::{AgentKey, AgentMap, Hash, Sequence};
use super::scan;

/// The maximum number of agent ids that a [`Checker`] caches.
const MAX_AGENTS: usize = 4096;

/// One event as its chain states it. Nothing in it is verified.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// The agent of the chain.
    pub agent: AgentKey,
    /// The sequence of the event.
    pub sequence: Sequence,
    /// The hash of the event before it.
    pub prev_hash: Hash,
    /// The hash of the event.
    pub hash: Hash,
    /// The canonical bytes of its content; `None` if the content was erased.
    pub canonical: Option<&'a [u8]>,
}

impl Link<'_> {
    /// The hash of the content and the previous hash. That of an erased event is the stated one: whether its erasure is recorded
    /// is another check.
    pub fn computed_hash(&self) -> Hash {
        self.canonical.map_or(self.hash, |canonical| Hash::of_event(canonical, &self.prev_hash))
    }
}

/// The first break of a chain. Its `Display` form is the message that `docs/verification.md` specifies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The sequence that the next event of the chain should have had.
    pub sequence: Sequence,
    /// The rule that failed.
    pub kind: BreakKind,
}

/// The rule that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakKind {
    /// The event has another sequence than the next one.
    SequenceGap {
        /// The sequence of the event.
        found: Sequence,
    },
    /// `prev_hash` is not the hash of the event before it.
    BrokenLink,
    /// The stated hash is not that of the canonical bytes and `prev_hash`.
    HashMismatch,
    /// The hash is right, but the bytes are not an event of the agent in canonical form, for this reason.
    NotAnEvent(String),
    /// The event is missing or cannot be read, for this reason. Only in a ledger.
    Unreadable(String),
    /// The content is missing and no erasure of it is recorded, or it is there although its erasure is recorded.
    Erasure(String),
    /// Events are missing, and it is not recorded that retention has dropped them, or not these. Only in a ledger.
    Dropped(String),
    /// The chain does not end where the stored head states. Only in a ledger.
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
            BreakKind::Erasure(why) => write!(f, "wrong erasure at sequence {sequence}: {why}"),
            BreakKind::Dropped(why) => write!(f, "{why}"),
            BreakKind::WrongHead(why) => write!(f, "wrong head at sequence {sequence}: {why}"),
        }
    }
}

/// The state of verifying a chain: its last verified event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Walk {
    /// The sequence of the last verified event; 0 at the start.
    pub sequence: Sequence,
    /// The hash of the last verified event; [`Hash::GENESIS`] at the start.
    pub hash: Hash,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk { sequence: Sequence(0), hash: Hash::GENESIS }
    }
}

impl Walk {
    /// Verifies the next event: its sequence, its previous hash, its hash, and that the hashed bytes are an event of
    /// the agent in canonical form.
    ///
    /// # Errors
    /// When one of these rules fails: the first one, in this order. The walk is unchanged then, and ends there.
    pub fn step(&mut self, link: &Link<'_>, checker: &mut Checker) -> Result<(), Break> {
        let fault = link.canonical.and_then(|canonical| checker.check(canonical, link.agent).err());
        self.step_checked(link, link.computed_hash(), fault.as_deref())
    }

    /// Verifies the next event like [`Walk::step`], with results that were computed before, for example in parallel.
    ///
    /// `hash` is [`Link::computed_hash`]; `fault` is the error of [`Checker::check`].
    ///
    /// # Errors
    /// As for [`Walk::step`].
    pub fn step_checked(&mut self, link: &Link<'_>, hash: Hash, fault: Option<&str>) -> Result<(), Break> {
        let before = *self;
        self.step_hashed(link, hash)?;
        if let Some(fault) = fault {
            *self = before;
            return Err(Break { sequence: link.sequence, kind: BreakKind::NotAnEvent(fault.to_owned()) });
        }
        Ok(())
    }

    /// Verifies the sequence, the previous hash and the hash of the next event, for bytes that the caller knows to be
    /// canonical.
    ///
    /// # Errors
    /// When one of these rules fails: the first one, in this order. The walk is unchanged then, and ends there.
    pub fn step_link(&mut self, link: &Link<'_>) -> Result<(), Break> {
        self.step_hashed(link, link.computed_hash())
    }

    fn step_hashed(&mut self, link: &Link<'_>, hash: Hash) -> Result<(), Break> {
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

/// The canonical values of the fields of an event.
#[derive(Default)]
pub struct FieldValues<'a>([Option<&'a [u8]>; Field::ALL.len()]);

impl<'a> FieldValues<'a> {
    /// The fields in canonical bytes.
    pub fn of(canonical: &'a [u8]) -> FieldValues<'a> {
        let mut values = FieldValues::default();
        for (key, value) in scan::members(canonical) {
            if let Some(field) = Field::from_name(key) {
                values.0[field as usize] = Some(value);
            }
        }
        values
    }

    /// The value of a field; `None` if the event does not have it.
    pub fn get(&self, field: Field) -> Option<&'a [u8]> {
        self.0[field as usize]
    }
}

/// Checks that bytes are an event in canonical form. Its buffers are reused from event to event.
#[derive(Default)]
pub struct Checker {
    fast: FastChecker,
    scratch: ParserScratch,
    /// The canonical form of the bytes, on the slow path.
    rewritten: Vec<u8>,
    /// The canonical agent ids that were verified, by key.
    agent_ids: AgentMap<Box<[u8]>>,
}

impl Checker {
    /// Checks that bytes are an event of `agent`: they are their own canonical form, have no other fields than those of
    /// the schema, and their `agent_id` is that of the agent.
    ///
    /// # Errors
    /// When they are not. The text states why.
    pub fn check(&mut self, canonical: &[u8], agent: AgentKey) -> Result<(), String> {
        self.check_fields(canonical, agent, &mut FieldValues::default())
    }

    /// Checks bytes like [`Checker::check`], and sets the value of each field in `values`. If the bytes are not an event,
    /// some values may be missing.
    ///
    /// # Errors
    /// As for [`Checker::check`].
    pub fn check_fields<'a>(
        &mut self,
        canonical: &'a [u8],
        agent: AgentKey,
        values: &mut FieldValues<'a>,
    ) -> Result<(), String> {
        let text = std::str::from_utf8(canonical).map_err(|error| error.to_string())?;
        let is_event = self.fast.is_canonical_event(text, |field, value| values.0[field as usize] = Some(value));
        if is_event && values.get(Field::AgentId).is_some_and(|id| self.is_agent(id, agent)) {
            return Ok(());
        }
        *values = FieldValues::of(canonical);
        self.check_slow_path(text, agent)
    }

    /// Whether a canonical value is the id of an agent. The result is cached, because hashing the id is slow.
    fn is_agent(&mut self, id: &[u8], agent: AgentKey) -> bool {
        if self.agent_ids.get(&agent).is_some_and(|cached| **cached == *id) {
            return true;
        }
        let is_agent = scan::text(id).is_some_and(|text| AgentKey::of(&text) == agent);
        if is_agent {
            if self.agent_ids.len() >= MAX_AGENTS {
                self.agent_ids.clear();
            }
            self.agent_ids.insert(agent, id.into());
        }
        is_agent
    }

    /// Checks what the fast path does not accept, and returns the reason for a rejection.
    fn check_slow_path(&mut self, text: &str, agent: AgentKey) -> Result<(), String> {
        let canonical = text.as_bytes();
        self.rewritten.clear();
        let mut parser = Parser::new(text, 0, &mut self.scratch, usize::MAX);
        parser.value(&mut self.rewritten).and_then(|()| parser.end()).map_err(|error| error.to_string())?;
        if self.rewritten != canonical {
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
        let agent_id = agent_id.ok_or("agent_id is missing")?;
        if AgentKey::of(&agent_id) != agent {
            return Err(format!("it belongs to agent {agent_id:?}"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_ends_the_walk_when_it_fails() {
        let agent = AgentKey::of("a");
        let canonical: &[u8] = br#"{"action_type":"CUSTOM","agent_id":"a"}"#;
        let hash = Hash::of_event(canonical, &Hash::GENESIS);
        let link = Link { agent, sequence: Sequence(1), prev_hash: Hash::GENESIS, hash, canonical: Some(canonical) };
        let other = Hash([7; 32]);
        let not_an_event = br#"{"agent_id": "a"}"#;
        let cases = [
            (Link { sequence: Sequence(2), ..link }, "sequence gap: expected 1, found 2"),
            (Link { prev_hash: other, hash: Hash::of_event(canonical, &other), ..link }, "broken link at sequence 1"),
            (Link { hash: other, ..link }, "hash mismatch at sequence 1"),
            (
                Link { canonical: Some(br#"{"action_type":"CUSTOM","agent_id":"b"}"#), ..link },
                "hash mismatch at sequence 1",
            ),
            (
                Link { canonical: Some(not_an_event), hash: Hash::of_event(not_an_event, &Hash::GENESIS), ..link },
                "not an event at sequence 1",
            ),
        ];
        for (wrong, message) in cases {
            let mut walk = Walk::default();
            let found = walk.step(&wrong, &mut Checker::default()).unwrap_err().to_string();
            assert!(found.starts_with(message), "{found}");
            assert_eq!(walk, Walk::default(), "the walk stays where it was: {message}");
            walk.step(&link, &mut Checker::default()).unwrap();
        }
    }
}
