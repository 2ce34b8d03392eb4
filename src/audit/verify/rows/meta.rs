//! Checks `meta`: the number of agents of each shard, and the rows that have checks: see
//! [`checks`](crate::ledger::format::checks). The steps of the clock are in [`super::times`].

use super::super::report::Report;
use super::fault::{FaultKind, Repair, RowFault};
use crate::ledger::format::checks::{self, CheckedRows};
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::floor::Anchor;
use crate::ledger::format::keys::{Position, ShardId, meta_keys};
use crate::ledger::format::meta::{self, agents_key};
use crate::ledger::store::{Family, Store, StoreError};

/// Reports the rows that differ, of a ledger whose shards have this many agents.
///
/// # Errors
/// When the database cannot be read.
pub fn report_faults(store: &Store, agents: &[u64], report: &mut Report<'_>) -> Result<(), StoreError> {
    for (shard, &count) in (0..).map(ShardId).zip(agents) {
        let (key, value) = (agents_key(shard), Position(count).encode());
        let stored = store.get(Family::Meta, &key)?;
        if stored.as_deref() != Some(&value[..]) && (stored.is_some() || count > 0) {
            report.row(RowFault::expected(Family::Meta, &key, stored.is_some(), &value));
        }
    }
    let (checked, added) = (checks::all(agents.len() as u16), checks::added());
    if checks::has_any(store, &checked)? {
        // An earlier version has none of these rows, and so no checks of them.
        let has_added = checks::has_any(store, &added)?;
        for rows in checked.iter().filter(|rows| has_added || !added.contains(rows)) {
            report_check(store, rows, report)?;
        }
    }
    report_unknown(store, agents.len() as u16, &checked, report)
}

/// Compares some rows with their check.
fn report_check(store: &Store, rows: &CheckedRows, report: &mut Report<'_>) -> Result<(), StoreError> {
    let (key, found, stored) = (rows.key(), rows.compute(store)?, rows.stored(store)?);
    let Some(Some(stored)) = stored else {
        report.row(RowFault::expected(Family::Meta, &key, stored.is_some(), &found.encode(&key)));
        return Ok(());
    };
    if found != stored {
        let kind = match found.count.cmp(&stored.count) {
            std::cmp::Ordering::Less => FaultKind::Missing,
            std::cmp::Ordering::Equal => FaultKind::Wrong,
            std::cmp::Ordering::Greater => FaultKind::Unexpected,
        };
        report.row(RowFault::new(rows.family, &rows.prefix, kind, Repair::Keep));
    }
    Ok(())
}

/// Reports rows that no version writes, and those that cannot be decoded.
fn report_unknown(
    store: &Store,
    shards: u16,
    checked: &[CheckedRows],
    report: &mut Report<'_>,
) -> Result<(), StoreError> {
    let mut rows = store.rows(Family::Meta)?;
    rows.seek_first();
    while let Some((key, value)) = rows.row()? {
        let is_own = |rows: &CheckedRows| rows.family == Family::Meta && rows.is_single && rows.prefix == key;
        let is_step = |shard| ClockStep::decode(ShardId(shard), key, value).is_some();
        let is_known = checked.iter().any(|rows| is_own(rows) || rows.key() == key)
            || (0..shards).any(|shard| agents_key(ShardId(shard)) == key || is_step(shard))
            || key.len() == meta_keys::REPAIRED.len() + 8 && key.starts_with(meta_keys::REPAIRED)
            || key.len() == meta_keys::HOLD.len() + 16 && key.starts_with(meta_keys::HOLD)
            || key.len() == Anchor::KEY_LEN && key.starts_with(meta_keys::ANCHOR);
        if !is_known {
            report.row(RowFault::unexpected(Family::Meta, key));
        } else if !meta::is_well_formed(key, value, shards) {
            report.row(RowFault::new(Family::Meta, key, FaultKind::Wrong, Repair::Impossible));
        }
        rows.next();
    }
    Ok(())
}
