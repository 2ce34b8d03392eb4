//! Finds out what can be dropped: a first leaf of the log, the position of it in each shard, and the anchors at which chains begin then.

use std::collections::BTreeMap;

use super::anchors::AnchorTree;
use super::limits::Blocked;
use crate::audit::erasure::holds::Hold;
use crate::ledger::format::floor::{Anchor, Floor};
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::meta::Meta;
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use crate::recorder;
use crate::tlog::prune::Pruned;
use crate::tlog::rows::LogRows;
use cairn_proof::chain::{AgentKey, Field, scan};
use cairn_proof::evidence::Erased;
use cairn_proof::evidence::recorder::action;
use cairn_proof::tree::WIDTH;
use tlog_tiles::Hash as Node;

/// What is to be dropped.
pub struct Plan {
    /// The first leaf that is kept, a multiple of 256.
    pub first_leaf: u64,
    /// The position of the first event of each shard that is kept.
    pub first: Vec<Position>,
    /// The number of events that are dropped.
    pub events: u64,
    /// The anchors of the agents that lose events.
    pub anchors: BTreeMap<AgentKey, Anchor>,
    /// The number of all anchors then, and the root of the tree of them.
    pub all_anchors: (u64, Node),
}

/// Plans to drop the leaves before `target`, or fewer: the first one that is kept is a multiple of 256, and nothing that a hold keeps,
/// that is damaged, or that is needed by what is kept is dropped. `None` if there is nothing to drop.
///
/// # Errors
/// When the database cannot be read.
pub fn plan(rows: &LogRows, target: u64, holds: &[Hold]) -> Result<Result<Option<Plan>, Blocked>, StoreError> {
    let store = rows.store();
    let (mut target, dropped, mut blocked) = (target, Pruned::read(store)?.first, None);
    loop {
        target = target / WIDTH as u64 * WIDTH as u64;
        if target <= dropped {
            return Ok(blocked.map_or(Ok(None), Err));
        }
        let first = rows.positions_at(target)?;
        match Scanned::read(store, &first, holds)? {
            Ok(Scanned { events, anchors, .. }) => {
                let tree = AnchorTree::read(store, &anchors, None)?;
                let all_anchors = (tree.size(), tree.root());
                return Ok(Ok(Some(Plan { first_leaf: target, first, events, anchors, all_anchors })));
            }
            Err((at, why)) => {
                target = rows.leaf_of(at)?;
                blocked = Some(why);
            }
        }
    }
}

/// What is known of the events that are to be dropped.
#[derive(Default)]
struct Scanned {
    events: u64,
    anchors: BTreeMap<AgentKey, Anchor>,
    /// The records of erasures among them.
    erasures: Vec<(Location, Erased)>,
}

/// Why not all events can be dropped, and the first one that cannot.
type Kept = (Location, Blocked);

impl Scanned {
    /// Reads the events from the floor to before `first`.
    fn read(store: &Store, first: &[Position], holds: &[Hold]) -> Result<Result<Scanned, Kept>, StoreError> {
        let recorder = Meta::read(store)?.map(|meta| AgentKey::of(&recorder::id_of(meta.instance)));
        let (mut scanned, mut events) = (Scanned::default(), Events::scan(store, 1)?);
        for (shard, end) in (0..).map(ShardId).zip(first) {
            let mut next = Location { shard, position: Floor::of(store, shard)? };
            events.seek(next);
            while next.position < *end {
                let record = events.event()?.filter(|event| event.location == Some(next));
                let record = record.and_then(|event| RecordRef::parse(event.bytes).ok());
                let Some(record) = record else { return Ok(Err((next, Blocked::Damaged))) };
                if !holds.is_empty() && holds.iter().any(|hold| hold.holds(lookup::id(record), record)) {
                    return Ok(Err((next, Blocked::Hold)));
                }
                if recorder == Some(record.agent()) && !scanned.add_erasure(next, record) {
                    return Ok(Err((next, Blocked::Damaged)));
                }
                let anchor = Anchor { sequence: record.sequence().next(), prev_hash: record.hash() };
                scanned.anchors.insert(record.agent(), anchor);
                scanned.events += 1;
                next.position = next.position.next();
                events.next();
            }
        }
        scanned.needed_erasure(store).map(|needed| match needed {
            Some(at) => Err((at, Blocked::Log)),
            None => Ok(scanned),
        })
    }

    /// Adds an event of the recorder, if it is the record of an erasure. Returns false if it cannot be read.
    fn add_erasure(&mut self, location: Location, record: RecordRef<'_>) -> bool {
        if record.value(Field::ActionName).and_then(scan::text).as_deref() != Some(action::ERASURE) {
            return true;
        }
        let erased = serde_json::from_slice(record.value(Field::ActionOutput).unwrap_or_default());
        erased.map(|erased| self.erasures.push((location, erased))).is_ok()
    }

    /// The first record of an erasure that has to be kept, because an event that it erased is kept: a leaf may follow that of a later
    /// event of another shard.
    fn needed_erasure(&self, store: &Store) -> Result<Option<Location>, StoreError> {
        for (location, erased) in &self.erasures {
            for (agent_id, ranges) in &erased.agents {
                let agent = AgentKey::of(agent_id);
                let anchor = match self.anchors.get(&agent) {
                    Some(anchor) => Some(*anchor),
                    None => Anchor::read(store, agent)?,
                };
                let kept_from = anchor.map_or(1, |anchor| anchor.sequence.0);
                if ranges.iter().any(|(_, last)| *last >= kept_from) {
                    return Ok(Some(*location));
                }
            }
        }
        Ok(None)
    }
}
