//! What retention has dropped: the first events that are kept, the anchors at which chains begin, and whether the recorder's chain says
//! the same.

use super::pool::Share;
use crate::audit::retention::AnchorTree;
use crate::ledger::format::floor::{Anchor, Floor};
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::meta;
use crate::ledger::store::{Store, StoreError};
use crate::recorder;
use crate::tlog::prune::Pruned;
use cairn_proof::chain::{AgentKey, AgentMap, Hash, Sequence, Walk};
use cairn_proof::evidence::{self, HexHash};

/// What retention has dropped.
#[derive(Default)]
pub struct Dropped {
    floor: Option<Floor>,
    /// The first leaf that is kept.
    pub first_leaf: u64,
    /// Why the recorder's chain does not say the same; `None` if it does.
    pub broken: Option<String>,
}

impl Dropped {
    /// Reads what was dropped.
    ///
    /// # Errors
    /// When the database cannot be read. Damaged rows are in [`Dropped::broken`].
    pub fn read(store: &Store) -> Result<Dropped, StoreError> {
        let read = || {
            let Some(floor) = Floor::read(store)? else { return Ok(Dropped::default()) };
            let first_leaf = Pruned::read(store)?.first;
            let broken = check_record(store, &floor, first_leaf)?;
            Ok(Dropped { floor: Some(floor), first_leaf, broken })
        };
        match read() {
            Err(StoreError::Damaged { message, .. }) => {
                let (floor, first_leaf) = (Floor::read(store).ok().flatten(), 0);
                Ok(Dropped { floor, first_leaf, broken: Some(message) })
            }
            read => read,
        }
    }

    /// The number of events that were dropped.
    pub fn events(&self) -> u64 {
        self.floor.as_ref().map_or(0, |floor| floor.first.iter().map(|first| first.0).sum())
    }

    /// The position of the first event of a shard that is kept.
    pub fn first(&self, shard: ShardId) -> Position {
        self.floor.as_ref().map_or(Position(0), |floor| floor.first(shard))
    }

    /// The positions of the first events of `shards` shards that are kept.
    pub fn all_first(&self, shards: usize) -> Vec<Position> {
        (0..shards as u16).map(|shard| self.first(ShardId(shard))).collect()
    }

    /// Whether the event at `location` was dropped.
    pub fn has(&self, location: Location) -> bool {
        location.position < self.first(location.shard)
    }
}

/// Compares the floor and the anchors with the record in the recorder's chain. Returns what differs.
fn check_record(store: &Store, floor: &Floor, first_leaf: u64) -> Result<Option<String>, StoreError> {
    let instance = meta::instance(store)?.unwrap_or_default();
    let mut recorded = None;
    let read = recorder::read(store, instance, floor.record, |_, record| {
        if record.sequence() == floor.record {
            recorded = evidence::Dropped::read(|field| record.value(field)).ok().flatten();
        }
        // The first one is all that is needed.
        Err(StoreError::Cancelled)
    });
    match read {
        Ok(()) | Err(StoreError::Cancelled) => {}
        Err(error) => return Err(error),
    }
    let record = floor.record;
    let Some(recorded) = recorded else {
        return Ok(Some(format!("events were dropped, and event {record} of the recorder does not record it")));
    };
    let tree = AnchorTree::read(store, &Default::default(), None)?;
    let first: Vec<u64> = floor.first.iter().map(|first| first.0).collect();
    // A log that began anew has other leaves.
    let has_leaf = first_leaf == 0 || recorded.first_leaf == first_leaf;
    if !has_leaf || recorded.first_positions != first {
        return Ok(Some(format!("other events were dropped than event {record} of the recorder says")));
    }
    let has_anchors = recorded.agents == tree.size() && recorded.anchors == HexHash(Hash(tree.root().0));
    Ok((!has_anchors).then(|| format!("chains begin elsewhere than event {record} of the recorder says")))
}

/// The anchors of some agents.
#[derive(Default)]
pub struct Anchors(AgentMap<Anchor>);

impl Anchors {
    /// Reads the anchors of the agents in a share.
    ///
    /// # Errors
    /// When the database cannot be read. Damaged anchors are reported with [`Dropped`].
    pub fn read(store: &Store, share: Share) -> Result<Anchors, StoreError> {
        let mut anchors = AgentMap::default();
        let read = Anchor::for_each(store, |agent, anchor| {
            if share.contains(agent) {
                anchors.insert(agent, anchor);
            }
            Ok(())
        });
        match read {
            Ok(()) | Err(StoreError::Damaged { .. }) => Ok(Anchors(anchors)),
            Err(error) => Err(error),
        }
    }

    /// Whether an agent has lost events.
    pub fn has(&self, agent: AgentKey) -> bool {
        self.0.contains_key(&agent)
    }

    /// The state of the chain of an agent before its first event that is kept.
    pub fn start(&self, agent: AgentKey) -> Walk {
        self.0.get(&agent).map_or(Walk::default(), walk_from)
    }

    /// Removes the anchor of an agent whose row was compared.
    pub fn remove(&mut self, agent: AgentKey) {
        self.0.remove(&agent);
    }

    /// The agents whose anchors were not removed.
    pub fn agents(&self) -> impl Iterator<Item = AgentKey> + '_ {
        self.0.keys().copied()
    }
}

/// The state of a chain before its anchor.
pub fn walk_from(anchor: &Anchor) -> Walk {
    Walk { sequence: Sequence(anchor.sequence.0.saturating_sub(1)), hash: anchor.prev_hash }
}
