//! What is written once, when a ledger is made: its format, its number of shards, its name.

use std::borrow::Cow;
use std::collections::BTreeSet;

use uuid::Uuid;

use super::keys::ShardId;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::DefaultLabels;

/// Raised when older programs could not read what this one writes, or the other way round.
const FORMAT: u32 = 3;

const FORMAT_KEY: &[u8] = b"format";
const SHARDS_KEY: &[u8] = b"shards";
const INSTANCE_KEY: &[u8] = b"instance";
/// A JSON array of texts.
const LABELS_KEY: &[u8] = b"labels";

/// The key in `meta` of the number of a shard's agents.
pub fn agents_key(shard: ShardId) -> [u8; 8] {
    let [high, low] = shard.0.to_be_bytes();
    [b'a', b'g', b'e', b'n', b't', b's', high, low]
}

/// What a ledger says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// How many shards it has. Fixed, because an agent belongs to the shard that its key gives.
    pub shards: u16,
    /// A random id that tells this ledger from all others.
    pub instance: Uuid,
}

impl Meta {
    /// Reads it; `None` if nothing was written yet.
    ///
    /// # Errors
    /// When the ledger has another format, or cannot be read.
    pub fn read(store: &Store) -> Result<Option<Meta>, StoreError> {
        let Some(format) = store.get(Family::Meta, FORMAT_KEY)? else { return Ok(None) };
        let format = format[..].try_into().map(u32::from_be_bytes);
        let format = format.map_err(|_| store.damaged("its format cannot be read"))?;
        if format != FORMAT {
            return Err(StoreError::Mismatch {
                path: store.path().to_owned(),
                message: format!("its format is {format}, this program knows {FORMAT}"),
            });
        }
        let damaged = || store.damaged("what it says of itself cannot be read");
        let shards = store.get(Family::Meta, SHARDS_KEY)?.ok_or_else(damaged)?;
        let instance = store.get(Family::Meta, INSTANCE_KEY)?.ok_or_else(damaged)?;
        Ok(Some(Meta {
            shards: shards[..].try_into().map(u16::from_be_bytes).map_err(|_| damaged())?,
            instance: Uuid::from_slice(&instance).map_err(|_| damaged())?,
        }))
    }

    /// Reads it, or writes it if the ledger is new.
    ///
    /// # Errors
    /// When the ledger has another number of shards, or cannot be read or written.
    pub fn open(store: &Store, shards: u16) -> Result<Meta, StoreError> {
        if let Some(meta) = Meta::read(store)? {
            if meta.shards != shards {
                return Err(StoreError::Mismatch {
                    path: store.path().to_owned(),
                    message: format!(
                        "it was made with shards: {}, and the configuration says {shards}; set it back, the number is fixed",
                        meta.shards
                    ),
                });
            }
            return Ok(meta);
        }
        let meta = Meta { shards, instance: Uuid::new_v4() };
        let mut batch = store.batch(0);
        store.put(&mut batch, Family::Meta, FORMAT_KEY, &FORMAT.to_be_bytes())?;
        store.put(&mut batch, Family::Meta, SHARDS_KEY, &shards.to_be_bytes())?;
        store.put(&mut batch, Family::Meta, INSTANCE_KEY, meta.instance.as_bytes())?;
        store.write_durable(batch).map_err(|error| store.failed(&error.to_string()))?;
        Ok(meta)
    }
}

/// The names that default labels ever had, those that they have now among them, which are kept from now on: an event that
/// comes again is known by what its client sent, and nothing else tells that apart.
///
/// # Errors
/// When the database cannot be read or written.
pub fn label_names(store: &Store, now: &DefaultLabels) -> Result<BTreeSet<String>, StoreError> {
    let damaged = |_| store.damaged("the names of its labels cannot be read");
    let kept = store.get(Family::Meta, LABELS_KEY)?;
    let kept: BTreeSet<String> =
        kept.map_or(Ok(BTreeSet::new()), |row| serde_json::from_slice(&row)).map_err(damaged)?;
    let all: BTreeSet<String> = kept.iter().cloned().chain(now.names().map(Cow::into_owned)).collect();
    if all != kept {
        let mut batch = store.batch(0);
        // Texts always have a form in JSON.
        let row = serde_json::to_vec(&all).unwrap_or_default();
        store.put(&mut batch, Family::Meta, LABELS_KEY, &row)?;
        store.write_durable(batch).map_err(|error| store.failed(&error.to_string()))?;
    }
    Ok(all)
}
