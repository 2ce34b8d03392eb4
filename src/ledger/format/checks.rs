//! Checks of the rows that no event gives: rows of `meta`, so that a changed or removed row is found.
//!
//! A check is a row of `meta` with the key `check/` · family · `/` · first bytes of the keys. Its value is the number of
//! the rows whose keys begin so as u64, the sum of their digests as u128, and the first 4 bytes of SHA-256 over its own key
//! and these numbers. The digest of a row is the first 16 bytes of SHA-256 over the length of its key as u64, its key and
//! its value. Checks show damage and careless changes; who changes a row on purpose can change its check as well.
//!
//! Earlier versions of the program write no checks. The first start of this one adds them.

use sha2::{Digest, Sha256};

use super::keys::{ShardId, join};
use crate::ledger::store::{Batch, Family, Store, StoreError};

/// What the keys of checks begin with.
pub const PREFIX: &[u8] = b"check/";

/// Rows that have a check together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedRows {
    /// The family of the rows.
    pub family: Family,
    /// What their keys begin with.
    pub prefix: Vec<u8>,
    /// Whether the prefix is the key of one row.
    pub is_single: bool,
}

/// The number of some rows, and the sum of their digests.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// The number of the rows.
    pub count: u64,
    sum: u128,
}

impl Check {
    /// Adds a row.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        let digest = Sha256::new().chain_update((key.len() as u64).to_be_bytes()).chain_update(key);
        let digest = digest.chain_update(value).finalize();
        let (first, _) = digest.split_first_chunk::<16>().unwrap_or((&[0; 16], &[]));
        self.count += 1;
        self.sum = self.sum.wrapping_add(u128::from_be_bytes(*first));
    }

    /// The value of the row with this key.
    pub fn encode(&self, key: &[u8]) -> [u8; 28] {
        let numbers: [u8; 24] = join(&[&self.count.to_be_bytes(), &self.sum.to_be_bytes()]);
        join(&[&numbers, &own_check(key, &numbers)])
    }

    /// Decodes the row with this key; `None` if it is damaged.
    pub fn decode(key: &[u8], row: &[u8]) -> Option<Check> {
        let (numbers, own) = row.split_first_chunk::<24>()?;
        let (count, sum) = numbers.split_first_chunk::<8>()?;
        let check = Check { count: u64::from_be_bytes(*count), sum: u128::from_be_bytes(sum.try_into().ok()?) };
        (own_check(key, numbers) == own).then_some(check)
    }
}

impl CheckedRows {
    /// One row of `meta`.
    pub fn meta(key: &[u8]) -> CheckedRows {
        CheckedRows { family: Family::Meta, prefix: key.to_vec(), is_single: true }
    }

    /// Rows of `meta` whose keys begin with `prefix`.
    pub fn all_of(prefix: &[u8]) -> CheckedRows {
        CheckedRows { is_single: false, ..CheckedRows::meta(prefix) }
    }

    /// The key of the check.
    pub fn key(&self) -> Vec<u8> {
        [PREFIX, self.family.name().as_bytes(), b"/", &self.prefix].concat()
    }

    /// The check as the rows give it now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn compute(&self, store: &Store) -> Result<Check, StoreError> {
        let mut check = Check::default();
        let mut rows = store.rows(self.family)?;
        rows.seek(&self.prefix);
        while let Some((key, value)) = rows.row()?.filter(|(key, _)| key.starts_with(&self.prefix)) {
            if !self.is_single || key.len() == self.prefix.len() {
                check.add(key, value);
            }
            rows.next();
        }
        Ok(check)
    }

    /// The stored check; `None` if there is none. The inner `None` is a row that cannot be decoded.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn stored(&self, store: &Store) -> Result<Option<Option<Check>>, StoreError> {
        let key = self.key();
        Ok(store.get(Family::Meta, &key)?.map(|row| Check::decode(&key, &row)))
    }

    /// Adds the check to a batch.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn put(&self, store: &Store, batch: &mut Batch, check: Check) -> Result<(), StoreError> {
        let key = self.key();
        store.put(batch, Family::Meta, &key, &check.encode(&key))
    }

    /// Adds a new row and the check with it to a batch. Rows without a check remain without.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn put_row(&self, store: &Store, batch: &mut Batch, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        store.put(batch, self.family, key, value)?;
        match self.stored(store)?.flatten() {
            Some(mut check) => {
                if self.is_single {
                    check = Check::default();
                }
                check.add(key, value);
                self.put(store, batch, check)
            }
            None => Ok(()),
        }
    }
}

/// The check of a row by itself: the first bytes of SHA-256 over its key and its value.
pub(super) fn own_check(key: &[u8], numbers: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(key).chain_update(numbers).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

/// All rows that have checks, in a ledger of `shards` shards.
pub fn all(shards: u16) -> Vec<CheckedRows> {
    use super::clock_step::ClockStep;
    use super::keys::meta_keys::{FORMAT, INSTANCE, LABELS, REPAIRED, SHARDS};
    let mut all: Vec<_> = [FORMAT, SHARDS, INSTANCE, LABELS].map(CheckedRows::meta).into();
    all.push(origin());
    all.push(CheckedRows::all_of(REPAIRED));
    all.extend(added());
    all.extend((0..shards).map(|shard| CheckedRows::all_of(&ClockStep::prefix(ShardId(shard)))));
    all
}

/// The row with the origin of the log: see `tlog::rows`.
pub fn origin() -> CheckedRows {
    CheckedRows { family: Family::Log, prefix: b"o".to_vec(), is_single: true }
}

/// Those that a ledger of an earlier version does not have although it has others.
pub fn added() -> [CheckedRows; 3] {
    use super::keys::meta_keys::{ERASED, FLOOR, HOLD};
    [CheckedRows::meta(ERASED), CheckedRows::all_of(HOLD), CheckedRows::meta(FLOOR)]
}

/// Whether a ledger has one of these checks.
///
/// # Errors
/// When the database cannot be read.
pub fn has_any(store: &Store, rows: &[CheckedRows]) -> Result<bool, StoreError> {
    for rows in rows {
        if rows.stored(store)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes all checks, unless the ledger has some. Those that an earlier version did not have are written if none of them is there.
///
/// # Errors
/// When the database cannot be read or written.
pub fn write_if_none(store: &Store, shards: u16) -> Result<(), StoreError> {
    if !has_any(store, &all(shards))? {
        return write(store, shards);
    }
    if has_any(store, &added())? {
        return Ok(());
    }
    let mut batch = store.batch(0);
    for rows in added() {
        rows.put(store, &mut batch, rows.compute(store)?)?;
    }
    store.write_durable(batch).map_err(|error| store.failed(&error.to_string()))
}

/// Writes all checks as the rows give them now.
///
/// # Errors
/// When the database cannot be read or written.
pub fn write(store: &Store, shards: u16) -> Result<(), StoreError> {
    let mut batch = store.batch(0);
    for rows in all(shards) {
        rows.put(store, &mut batch, rows.compute(store)?)?;
    }
    store.write_durable(batch).map_err(|error| store.failed(&error.to_string()))
}
