//! What is written once, when a ledger is made: its format, its number of shards, its name.

use uuid::Uuid;

use super::commit::Commit;
use super::store::{Family, Store, StoreError};

/// Raised when older programs could not read what this one writes, or the other way round.
const FORMAT: u32 = 1;

const FORMAT_KEY: &[u8] = b"format";
const SHARDS_KEY: &[u8] = b"shards";
const INSTANCE_KEY: &[u8] = b"instance";

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
        store.commit(batch).map_err(|error| store.failed(&error.to_string()))?;
        Ok(meta)
    }
}
