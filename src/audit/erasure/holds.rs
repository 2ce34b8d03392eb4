//! Legal holds: events that are kept from erasure. They are rows of `meta`; adding and lifting are recorded in the chain of the
//! recorder, without the values of the selection, which may have to be erased later.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::selection::Selection;
use crate::audit::filter::Filter;
use crate::ledger::format::checks::{Check, CheckedRows};
use crate::ledger::format::keys::meta_keys::HOLD;
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::{Family, Store, StoreError};

/// A hold as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Row {
    selection: Selection,
    reason: String,
    added_at: String,
    added_by: Option<String>,
}

/// A hold.
pub struct Hold {
    /// Its id.
    pub id: Uuid,
    /// Which events it keeps.
    pub selection: Selection,
    /// Why.
    pub reason: String,
    /// When it was added (RFC 3339).
    pub added_at: String,
    /// The fingerprint of the key with which it was added.
    pub added_by: Option<String>,
    filter: Filter,
}

impl Hold {
    /// A hold of these events.
    pub fn new(id: Uuid, selection: Selection, reason: String, added_at: String, added_by: Option<String>) -> Hold {
        let filter = Filter::of(&selection);
        Hold { id, selection, reason, added_at, added_by, filter }
    }

    /// Whether it keeps an event.
    pub fn holds(&self, id: Option<Uuid>, record: RecordRef<'_>) -> bool {
        self.selection.id.is_none_or(|held| id == Some(held)) && self.filter.matches(record)
    }

    fn key(&self) -> Vec<u8> {
        [HOLD, self.id.as_bytes()].concat()
    }

    fn row(&self) -> Vec<u8> {
        let Hold { selection, reason, added_at, added_by, .. } = self;
        let (selection, reason) = (selection.clone(), reason.clone());
        let row = Row { selection, reason, added_at: added_at.clone(), added_by: added_by.clone() };
        // This type can always be serialized.
        serde_json::to_vec(&row).unwrap_or_default()
    }

    /// The hold as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "id": self.id.to_string(),
            "selection": self.selection,
            "reason": self.reason,
            "added_at": self.added_at,
            "added_by": self.added_by,
        })
    }
}

/// All holds.
///
/// # Errors
/// When the database cannot be read, or a row is damaged.
pub fn all(store: &Store) -> Result<Vec<Hold>, StoreError> {
    let damaged = || store.damaged("a hold cannot be read: nothing is erased until it can");
    let (mut rows, mut holds) = (store.rows(Family::Meta)?, Vec::new());
    rows.seek(HOLD);
    while let Some((key, value)) = rows.row()?.filter(|(key, _)| key.starts_with(HOLD)) {
        let id = Uuid::from_slice(&key[HOLD.len()..]).map_err(|_| damaged())?;
        let row: Row = serde_json::from_slice(value).map_err(|_| damaged())?;
        holds.push(Hold::new(id, row.selection, row.reason, row.added_at, row.added_by));
        rows.next();
    }
    Ok(holds)
}

/// Stores that these are all holds.
///
/// # Errors
/// When the database cannot be read or written.
pub fn store_all(store: &Store, holds: &[Hold]) -> Result<(), StoreError> {
    let (mut batch, mut check) = (store.batch(0), Check::default());
    for former in all(store)? {
        store.delete(&mut batch, Family::Meta, &former.key())?;
    }
    for hold in holds {
        check.add(&hold.key(), &hold.row());
        store.put(&mut batch, Family::Meta, &hold.key(), &hold.row())?;
    }
    CheckedRows::all_of(HOLD).put(store, &mut batch, check)?;
    store.write_synced(batch)
}
