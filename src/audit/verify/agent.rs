//! Verifies the chain of one agent.

use serde_json::json;

use super::dropped::{Dropped, walk_from};
use super::erasures::ErasureCheck;
use crate::ledger::format::floor::Anchor;
use crate::ledger::format::keys::{Agent, Location};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::read::runs::Runs;
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{AgentKey, Break, BreakKind, Hash, Sequence, Walk};

/// The number of events between two calls of the progress callback.
const PROGRESS_EVENTS: u64 = 1024;

/// The result of the verification of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainVerdict {
    /// The agent.
    pub agent_id: String,
    /// The number of verified events, up to the break if there is one.
    pub events_verified: u64,
    /// The number of events before it that retention has dropped.
    pub dropped: u64,
    /// The hash of the last verified event.
    pub head_hash: Hash,
    /// The first break, if the chain is broken.
    pub broken: Option<Break>,
}

impl ChainVerdict {
    /// The verdict in the form of `GET /v1/verify`.
    pub fn to_json(&self) -> serde_json::Value {
        let mut verdict = match &self.broken {
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
        };
        if self.dropped > 0 {
            verdict["events_dropped"] = json!(self.dropped);
        }
        verdict
    }
}

/// Verifies the chain of an agent up to its current head; `None` if there is no such agent. `progress` is called with
/// the number of events verified since the last call, and returns whether to continue.
///
/// # Errors
/// When the database cannot be read, or `progress` returned false.
pub fn agent(
    store: &Store,
    key: AgentKey,
    mut progress: impl FnMut(u64) -> bool,
) -> Result<Option<ChainVerdict>, StoreError> {
    let Some(head) = lookup::agent(store, key)? else { return Ok(None) };
    // Before the events: what is erased meanwhile is found by reading the records again.
    let mut erasures = ErasureCheck::read(store)?;
    let mut runs = Runs::from(store, key, Sequence(1))?;
    let anchor = Anchor::read(store, key)?;
    let unrecorded = match anchor {
        // A second time, because a drop in between shows only half of it.
        Some(_) => unrecorded(store)?.and(unrecorded(store)?),
        None => None,
    };
    let mut walk = anchor.as_ref().map_or(Walk::default(), walk_from);
    let start = walk.sequence;
    let mut checker = Checker::default();
    let mut broken = None;
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
            let mut at = run.location;
            at.position.0 += offset;
            let verified =
                verify_event(&mut events, key, at, &mut walk, &mut checker, |record| erasures.recheck(store, record))?;
            if let Err(found) = verified {
                broken = Some(found);
                break 'runs;
            }
            if walk.sequence.0 % PROGRESS_EVENTS == 0 && !progress(PROGRESS_EVENTS) {
                return Err(StoreError::Cancelled);
            }
        }
        runs.forward()?;
    }
    progress(walk.sequence.0 % PROGRESS_EVENTS);
    if Anchor::read(store, key)? != anchor {
        return Err(store.failed("events of the agent were dropped meanwhile: verify it again"));
    }
    let broken = broken.or_else(|| check_head(&walk, &head));
    let broken = unrecorded.map(|why| Break { sequence: start, kind: BreakKind::Dropped(why) }).or(broken);
    let agent_id = head.agent_id.into();
    Ok(Some(ChainVerdict {
        agent_id,
        events_verified: walk.sequence.0 - start.0,
        dropped: start.0,
        head_hash: walk.hash,
        broken,
    }))
}

/// Why the anchors are not those that the recorder has recorded, if they are not.
fn unrecorded(store: &Store) -> Result<Option<String>, StoreError> {
    let dropped = Dropped::read(store)?;
    let why = || "events are missing, and nothing records that retention has dropped them".to_owned();
    let has_none = dropped.events() == 0;
    Ok(dropped.broken.or_else(|| has_none.then(why)))
}

/// Verifies one event.
fn verify_event(
    events: &mut Events<'_>,
    key: AgentKey,
    location: Location,
    walk: &mut Walk,
    checker: &mut Checker,
    check_erasure: impl FnOnce(RecordRef<'_>) -> Result<Result<(), Break>, StoreError>,
) -> Result<Result<(), Break>, StoreError> {
    let sequence = walk.sequence.next();
    let unreadable = |reason: &str| Ok(Err(Break { sequence, kind: BreakKind::Unreadable(reason.to_owned()) }));
    let Some(record) = events.at(location)? else { return unreadable("the event is missing") };
    match RecordRef::parse(record) {
        Ok(record) if record.agent() != key => unreadable("another agent's event is stored at this location"),
        Ok(record) => match walk.step(&record.link(), checker) {
            Ok(()) => check_erasure(record),
            broken => Ok(broken),
        },
        Err(reason) => unreadable(reason),
    }
}

/// Compares the end of a chain with the stored head.
pub fn check_head(walk: &Walk, head: &Agent) -> Option<Break> {
    let sequence = walk.sequence.next();
    let wrong_head = |reason: String| Some(Break { sequence, kind: BreakKind::WrongHead(reason) });
    if walk.sequence != head.sequence {
        return wrong_head(format!(
            "the chain ends at {}, but the stored head has sequence {}",
            walk.sequence, head.sequence
        ));
    }
    if walk.hash != head.hash {
        return wrong_head("the stored head has a different hash".to_owned());
    }
    None
}
