//! The metadata of a ledger: format, number of shards and instance, which are written once when the ledger is created;
//! and the names of default labels.

use std::borrow::Cow;
use std::collections::BTreeSet;

use uuid::Uuid;

use super::checks::CheckedRows;
use super::floor::{Anchor, Floor};
use super::id_cursor;
use super::keys::meta_keys::{
    ANCHOR, ERASED, FLOOR, FORMAT as FORMAT_KEY, INSTANCE as INSTANCE_KEY, LABELS as LABELS_KEY, REPAIRED,
    SHARDS as SHARDS_KEY,
};
use super::keys::{Position, ShardId, join};
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{DefaultLabels, Sequence};

/// The version of the on-disk format. Raised when older programs cannot read what this one writes, or this one cannot
/// read what older programs wrote.
///
/// Format 4 compresses frames before the commit, and writes the ids of clients behind it. In format 5, events may have the fields
/// `redactions` and `salt`, which earlier programs take for damage.
const FORMAT: u32 = 5;
/// The format of a ledger that has lost content or events: earlier programs take that for damage. A ledger gets it with the first
/// erasure, or when retention drops events for the first time.
const FORMAT_WITH_GAPS: u32 = 6;
/// The formats before, which [`upgrade`] turns into the current one.
const FORMER_FORMATS: [u32; 2] = [3, 4];
/// The last format in which all ids of clients were written by the commit.
const IDS_IN_COMMITS: u32 = 3;

/// The repairs of a ledger: the time in ms since 1970, and the report, a JSON object.
///
/// # Errors
/// When the database cannot be read.
pub fn repairs(store: &Store) -> Result<Vec<(u64, serde_json::Value)>, StoreError> {
    let mut rows = store.rows(Family::Meta)?;
    rows.seek(REPAIRED);
    let mut repairs = Vec::new();
    while let Some((key, report)) = rows.row()? {
        let Some(ms) = key.strip_prefix(REPAIRED) else { break };
        let ms = ms.try_into().map_or(0, u64::from_be_bytes);
        repairs.push((ms, serde_json::from_slice(report).unwrap_or_default()));
        rows.next();
    }
    Ok(repairs)
}

/// The instance; `None` if the row is missing or damaged.
///
/// # Errors
/// When the database cannot be read.
pub fn instance(store: &Store) -> Result<Option<Uuid>, StoreError> {
    Ok(store.get(Family::Meta, INSTANCE_KEY)?.and_then(|row| Uuid::from_slice(&row).ok()))
}

/// The sequence of the last record of an erasure that is completed; 0 if there is none.
///
/// # Errors
/// When the database cannot be read, or the row is damaged.
pub fn erased(store: &Store) -> Result<Sequence, StoreError> {
    let Some(row) = store.get(Family::Meta, ERASED)? else { return Ok(Sequence(0)) };
    let sequence = Position::decode(&row).map(|sequence| Sequence(sequence.0));
    sequence.ok_or_else(|| store.damaged("the progress of erasures cannot be read"))
}

/// Stores that all erasures up to this record are completed.
///
/// # Errors
/// When the database cannot be read or written.
pub fn set_erased(store: &Store, record: Sequence) -> Result<(), StoreError> {
    let mut batch = store.batch(0);
    CheckedRows::meta(ERASED).put_row(store, &mut batch, ERASED, &Position(record.0).encode())?;
    store.write_synced(batch)
}

/// Whether the value of a row that is written once has the right form, in a ledger of `shards` shards; true for all other
/// rows.
pub fn is_well_formed(key: &[u8], value: &[u8], shards: u16) -> bool {
    match key {
        FORMAT_KEY => supported().any(|format| value == format.to_be_bytes()),
        SHARDS_KEY => value == shards.to_be_bytes(),
        INSTANCE_KEY => Uuid::from_slice(value).is_ok(),
        ERASED => Position::decode(value).is_some(),
        FLOOR => Floor::decode(value).is_some_and(|floor| floor.first.len() == usize::from(shards)),
        key if key.starts_with(ANCHOR) => Anchor::decode(value).is_some(),
        LABELS_KEY => serde_json::from_slice::<BTreeSet<String>>(value).is_ok(),
        _ => true,
    }
}

/// The key of the report of a repair.
pub fn repaired_key(ms: u64) -> [u8; 16] {
    join(&[REPAIRED, &ms.to_be_bytes()])
}

/// The key in `meta` of the number of agents of a shard.
pub fn agents_key(shard: ShardId) -> [u8; 8] {
    let [high, low] = shard.0.to_be_bytes();
    [b'a', b'g', b'e', b'n', b't', b's', high, low]
}

/// The metadata of a ledger that never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The number of shards. Fixed, because the agent key determines the shard of an agent.
    pub shards: u16,
    /// A random id that distinguishes this ledger from all others.
    pub instance: Uuid,
    /// The version of the on-disk format, which may be that of an earlier program.
    pub format: u32,
}

impl Meta {
    /// Reads the metadata; `None` if the ledger is new.
    ///
    /// # Errors
    /// When the ledger has a different format, or the database cannot be read.
    pub fn read(store: &Store) -> Result<Option<Meta>, StoreError> {
        let Some(format) = store.get(Family::Meta, FORMAT_KEY)? else { return Ok(None) };
        let format = format[..].try_into().map(u32::from_be_bytes);
        let format = format.map_err(|_| store.damaged("its format cannot be read"))?;
        if !supported().any(|supported| supported == format) {
            let first = FORMER_FORMATS[0];
            return Err(StoreError::Mismatch {
                path: store.path().to_owned(),
                message: format!(
                    "its format is {format}, and this program supports formats {first} to {FORMAT_WITH_GAPS}"
                ),
            });
        }
        let damaged = || store.damaged("its metadata cannot be read");
        let shards = store.get(Family::Meta, SHARDS_KEY)?.ok_or_else(damaged)?;
        let instance = store.get(Family::Meta, INSTANCE_KEY)?.ok_or_else(damaged)?;
        Ok(Some(Meta {
            shards: shards[..].try_into().map(u16::from_be_bytes).map_err(|_| damaged())?,
            instance: Uuid::from_slice(&instance).map_err(|_| damaged())?,
            format,
        }))
    }

    /// Whether the ledger has the format of an earlier program.
    pub fn is_former(&self) -> bool {
        self.format < FORMAT
    }

    /// Whether the ids of clients were written by the commits, so that every event with one has its row.
    pub fn has_ids_in_commits(&self) -> bool {
        self.format == IDS_IN_COMMITS
    }

    /// Reads the metadata, or writes it if the ledger is new.
    ///
    /// # Errors
    /// When the ledger has a different number of shards, or the database cannot be read or written.
    pub fn open(store: &Store, shards: u16) -> Result<Meta, StoreError> {
        if let Some(meta) = Meta::read(store)? {
            if meta.shards != shards {
                return Err(StoreError::Mismatch {
                    path: store.path().to_owned(),
                    message: format!(
                        "it was created with shards: {}, and the configuration sets {shards}: set it back, it is fixed",
                        meta.shards
                    ),
                });
            }
            return Ok(meta);
        }
        let meta = Meta { shards, instance: Uuid::new_v4(), format: FORMAT };
        let mut batch = store.batch(0);
        store.put(&mut batch, Family::Meta, FORMAT_KEY, &FORMAT.to_be_bytes())?;
        store.put(&mut batch, Family::Meta, SHARDS_KEY, &shards.to_be_bytes())?;
        store.put(&mut batch, Family::Meta, INSTANCE_KEY, meta.instance.as_bytes())?;
        store.write_durable(batch).map_err(|error| store.failed(&error.to_string()))?;
        Ok(meta)
    }
}

/// The formats that this program can read.
fn supported() -> impl Iterator<Item = u32> {
    FORMER_FORMATS.into_iter().chain([FORMAT, FORMAT_WITH_GAPS])
}

/// Gives a ledger of the format `former` the current one. `ends` are the positions after the last events of its shards: in format
/// 3, all ids before them are in the database.
///
/// # Errors
/// When the database cannot be read or written.
pub fn upgrade(store: &Store, former: u32, ends: &[Position]) -> Result<(), StoreError> {
    let mut batch = store.batch(0);
    for (shard, end) in ends.iter().enumerate().filter(|_| former == IDS_IN_COMMITS) {
        // The number of shards has 16 bits.
        let (key, value) = id_cursor::row(ShardId(shard as u16), *end);
        store.put(&mut batch, Family::ClientIds, &key, &value)?;
    }
    CheckedRows::meta(FORMAT_KEY).put_row(store, &mut batch, FORMAT_KEY, &FORMAT.to_be_bytes())?;
    store.write_synced(batch)?;
    tracing::info!("the ledger had format {former} and has format {FORMAT} now: earlier versions cannot open it");
    Ok(())
}

/// Gives a ledger the format that it has when content or events are missing, so that an earlier program does not open it.
///
/// # Errors
/// When the database cannot be read or written.
pub fn set_with_gaps(store: &Store) -> Result<(), StoreError> {
    if Meta::read(store)?.is_some_and(|meta| meta.format == FORMAT_WITH_GAPS) {
        return Ok(());
    }
    let mut batch = store.batch(0);
    CheckedRows::meta(FORMAT_KEY).put_row(store, &mut batch, FORMAT_KEY, &FORMAT_WITH_GAPS.to_be_bytes())?;
    store.write_synced(batch)
}

/// Returns the names of all current and former default labels, and stores those of `current`. The names distinguish
/// labels that the server added from labels that the client sent when an event with a known id arrives again. See
/// `docs/adr/0031-default-labels-do-not-change-identity.md`.
///
/// # Errors
/// When the database cannot be read or written.
pub fn label_names(store: &Store, current: &DefaultLabels) -> Result<BTreeSet<String>, StoreError> {
    let damaged = |_| store.damaged("the names of its default labels cannot be read");
    let stored = store.get(Family::Meta, LABELS_KEY)?;
    let stored: BTreeSet<String> =
        stored.map_or(Ok(BTreeSet::new()), |row| serde_json::from_slice(&row)).map_err(damaged)?;
    let all: BTreeSet<String> = stored.iter().cloned().chain(current.names().map(Cow::into_owned)).collect();
    if all != stored {
        let mut batch = store.batch(0);
        // Strings can always be serialized as JSON.
        let row = serde_json::to_vec(&all).unwrap_or_default();
        CheckedRows::meta(LABELS_KEY).put_row(store, &mut batch, LABELS_KEY, &row)?;
        store.write_durable(batch).map_err(|error| store.failed(&error.to_string()))?;
    }
    Ok(all)
}
