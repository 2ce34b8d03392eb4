//! Verifies the chain of one agent.

use serde_json::json;

use crate::ledger::format::keys::{Agent, Run};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::read::runs::Runs;
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{AgentKey, Break, BreakKind, Hash, Sequence, Walk};

/// How many events pass between two words of progress.
const PROGRESS_EVENTS: u64 = 1024;

/// What verification found out about one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainVerdict {
    /// Whose chain it is.
    pub agent_id: String,
    /// How many events were verified, up to the break if there is one.
    pub events_verified: u64,
    /// The hash of the last event that was verified.
    pub head_hash: Hash,
    /// The first break.
    pub broken: Option<Break>,
}

impl ChainVerdict {
    /// As `GET /v1/verify` answers it.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.broken {
            None => json!({
                "valid": true,
                "agent_id": self.agent_id,
                "events_verified": self.events_verified,
                "head_hash": self.head_hash.to_string(),
            }),
            Some(broken) => json!({
                "valid": false,
                "agent_id": self.agent_id,
                "error": broken.to_string(),
                "sequence": broken.sequence.0,
                "events_verified": self.events_verified,
            }),
        }
    }
}

/// Walks the chain of an agent as far as its head is now; `None` if there is no such agent. `goes_on` is told how
/// many events were verified since the last time, and may break off.
///
/// # Errors
/// When the database cannot be read, or `goes_on` broke off.
pub fn agent(
    store: &Store,
    key: AgentKey,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Option<ChainVerdict>, StoreError> {
    let Some(head) = lookup::agent(store, key)? else { return Ok(None) };
    let mut walk = Walk::default();
    let mut checker = Checker::default();
    let mut broken = None;
    let mut runs = Runs::from(store, key, Sequence(1))?;
    let mut events = Events::scan(store, 1)?;
    'runs: while walk.sequence < head.sequence {
        let Some(run) = runs.run()? else { break };
        let expected = walk.sequence.next();
        if run.first != expected {
            broken = Some(Break { sequence: expected, kind: BreakKind::SequenceGap { found: run.first } });
            break;
        }
        for offset in 0..u64::from(run.count) {
            if walk.sequence == head.sequence {
                break 'runs;
            }
            if let Err(found) = step(&mut events, key, run, offset, &mut walk, &mut checker)? {
                broken = Some(found);
                break 'runs;
            }
            if walk.sequence.0 % PROGRESS_EVENTS == 0 && !goes_on(PROGRESS_EVENTS) {
                return Err(StoreError::BrokenOff);
            }
        }
        runs.forward()?;
    }
    goes_on(walk.sequence.0 % PROGRESS_EVENTS);
    let broken = broken.or_else(|| wrong_head(&walk, &head));
    let agent_id = head.agent_id.into();
    Ok(Some(ChainVerdict { agent_id, events_verified: walk.sequence.0, head_hash: walk.hash, broken }))
}

/// Takes an event of a run.
fn step(
    events: &mut Events<'_>,
    key: AgentKey,
    run: Run,
    offset: u64,
    walk: &mut Walk,
    checker: &mut Checker,
) -> Result<Result<(), Break>, StoreError> {
    let mut location = run.location;
    location.position.0 += offset;
    let sequence = walk.sequence.next();
    let unreadable = |why: &str| Ok(Err(Break { sequence, kind: BreakKind::Unreadable(why.to_owned()) }));
    let Some(record) = events.at(location)? else { return unreadable("the event is missing") };
    match RecordRef::parse(record) {
        Ok(record) if record.agent() != key => unreadable("another agent's event stands here"),
        Ok(record) => Ok(walk.step(&record.link(), checker)),
        Err(why) => unreadable(why),
    }
}

/// Compares the end of a walk with the head that is stored.
pub fn wrong_head(walk: &Walk, head: &Agent) -> Option<Break> {
    let sequence = walk.sequence.next();
    let wrong = |why: String| Some(Break { sequence, kind: BreakKind::WrongHead(why) });
    if walk.sequence != head.sequence {
        return wrong(format!("the chain ends at {}, its head is stored as {}", walk.sequence, head.sequence));
    }
    if walk.hash != head.hash {
        return wrong("the hash that is stored for it is another one".to_owned());
    }
    None
}
