//! The tree of all anchors, whose root is in the record of dropped events: it proves where the chain of one agent begins.

use std::collections::{BTreeMap, HashMap};

use crate::ledger::format::floor::Anchor;
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::AgentKey;
use cairn_proof::evidence::anchor_leaf;
use cairn_proof::tree::{Edge, Hashes, TileBytes, Tiles};
use tlog_tiles::{Error, Hash, prove_record, record_hash};

/// The tree of the anchors of all agents, in the order of their keys.
#[derive(Default)]
pub struct AnchorTree {
    edge: Edge,
    tiles: FullTiles,
    /// The index of the agent whose anchor is to be proven.
    index: Option<u64>,
}

/// Full tiles by level and index.
#[derive(Default)]
struct FullTiles(HashMap<(u8, u64), TileBytes>);

impl Tiles for FullTiles {
    fn tile(&self, level: u8, index: u64) -> Result<TileBytes, String> {
        self.0.get(&(level, index)).cloned().ok_or_else(|| "a tile of the anchors is missing".to_owned())
    }
}

impl AnchorTree {
    /// The tree of the stored anchors, with those in `added` instead of or besides them. To prove the anchor of `agent`, if that is
    /// given; otherwise only for its root.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read(
        store: &Store,
        added: &BTreeMap<AgentKey, Anchor>,
        agent: Option<AgentKey>,
    ) -> Result<AnchorTree, StoreError> {
        let mut tree = AnchorTree::default();
        let mut added = added.iter().map(|(agent, anchor)| (*agent, *anchor)).peekable();
        Anchor::for_each(store, |of, anchor| {
            while let Some((of, anchor)) = added.next_if(|(added, _)| *added < of) {
                tree.push(of, anchor, agent);
            }
            let newer = added.next_if(|(added, _)| *added == of);
            tree.push(of, newer.map_or(anchor, |(_, newer)| newer), agent);
            Ok::<_, StoreError>(())
        })?;
        added.for_each(|(of, anchor)| tree.push(of, anchor, agent));
        Ok(tree)
    }

    fn push(&mut self, of: AgentKey, anchor: Anchor, agent: Option<AgentKey>) {
        if agent == Some(of) {
            self.index = Some(self.edge.size());
        }
        let leaf = record_hash(&anchor_leaf(of, anchor.sequence, &anchor.prev_hash));
        let tiles = &mut self.tiles.0;
        self.edge.push(leaf, |tile| {
            if agent.is_some() {
                tiles.insert((tile.level, tile.index), tile.bytes);
            }
        });
    }

    /// The number of anchors.
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// The root.
    pub fn root(&self) -> Hash {
        self.edge.root()
    }

    /// The index of the agent, and its audit path; `None` if it has no anchor.
    ///
    /// # Errors
    /// When the proof cannot be made.
    pub fn prove(&self) -> Result<Option<(u64, Vec<Hash>)>, Error> {
        let Some(index) = self.index else { return Ok(None) };
        let hashes = Hashes { tiles: &self.tiles, edge: &self.edge };
        prove_record(self.size(), index, &hashes).map(|siblings| Some((index, siblings)))
    }
}
