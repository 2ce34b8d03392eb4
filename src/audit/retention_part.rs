//! The member `retention` of an evidence package: proves that retention has dropped the events before the first one.

use serde_json::json;

use super::package_parts::location;
use super::retention::AnchorTree;
use crate::ledger::format::floor::Floor;
use crate::ledger::format::meta;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;
use crate::recorder;
use crate::tlog::SignedTree;
use cairn_proof::chain::{AgentKey, Hash, Sequence};
use cairn_proof::evidence::{Dropped, HexHash};

/// The member `retention`.
pub struct RetentionPart {
    /// The sequence of the record in the chain of the recorder.
    pub record: Sequence,
    /// The member with its name, as JSON.
    pub member: String,
}

impl RetentionPart {
    /// Proves the anchor of an agent; `None` if the record of it is not under this tree yet.
    ///
    /// # Errors
    /// When the database cannot be read, or events were dropped meanwhile.
    pub fn prepare(signed: &SignedTree, agent: AgentKey) -> Result<Option<RetentionPart>, StoreError> {
        let store = signed.store();
        let meanwhile = || store.failed("events were dropped meanwhile: export the package again");
        let record = Floor::read(store)?.ok_or_else(meanwhile)?.record;
        let instance = meta::instance(store)?.unwrap_or_default();
        let at = location(store, AgentKey::of(&recorder::id_of(instance)), record)?;
        if !signed.covers(at) {
            return Ok(None);
        }
        let event = lookup::record(store, at)?.ok_or_else(meanwhile)?;
        let recorded = Dropped::read(|field| event.as_ref().value(field)).map_err(|why| store.damaged(why))?;
        let tree = AnchorTree::read(store, &Default::default(), Some(agent))?;
        if recorded.is_none_or(|recorded| recorded.anchors != HexHash(Hash(tree.root().0))) {
            return Err(meanwhile());
        }
        let failed = |error: tlog_tiles::Error| store.damaged(format!("the anchors cannot be read: {error}"));
        let (index, siblings) = tree.prove().map_err(failed)?.ok_or_else(meanwhile)?;
        let siblings: Vec<String> = siblings.iter().map(|hash| Hash(hash.0).to_string()).collect();
        let proof = json!({"record": record.0, "index": index, "siblings": siblings});
        Ok(Some(RetentionPart { record, member: format!(r#","retention":{proof}"#) }))
    }
}
