//! `cairn repair`: derives rows again from the events, and records that it did. `docs/failures.md` describes when to use
//! it.
//!
//! It only trusts events that are whole: every chain is unbroken, and the log shows that none is missing. It never
//! changes events or what the log signed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::verify::{self, Observer, Repair, RowFault, Summary};
use crate::ledger::format::checks::{self, CheckedRows};
use crate::ledger::format::keys::meta_keys::REPAIRED;
use crate::ledger::format::meta;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::Break;
use cairn_proof::tree::Head;

/// The most rounds: each repairs as many rows as a verification names.
const MAX_ROUNDS: usize = 1000;

/// The result of a repair.
#[derive(Debug, Default)]
pub struct Repaired {
    /// What was repaired or, without `apply`, what would be repaired first.
    pub rows: Vec<RowFault>,
    /// What is wrong and cannot be derived from the events.
    pub left: Vec<RowFault>,
    /// Why nothing was repaired; `None` if the events are whole.
    pub refused: Option<String>,
}

/// Collects the rows that differ.
#[derive(Default)]
struct Faults {
    rows: Vec<RowFault>,
    first_break: Option<String>,
    progress: Option<Box<dyn FnMut(u64)>>,
}

impl Observer for Faults {
    fn progress(&mut self, events: u64) {
        self.progress.iter_mut().for_each(|progress| progress(events));
    }

    fn broken(&mut self, agent_id: &str, found: &Break) {
        self.first_break.get_or_insert_with(|| format!("{agent_id}: {found}"));
    }

    fn row(&mut self, fault: &RowFault) {
        self.rows.push(fault.clone());
    }
}

/// Finds the rows that differ from what the events of a ledger of `shards` shards give and, with `apply`, writes
/// them anew. `store` must then be open for writing. `checkpoints` and `jobs` are those of [`verify::all`], `apply` is the
/// time in ms since 1970, `progress` is called with the number of events that were read.
///
/// # Errors
/// When the database cannot be read or written.
pub fn repair(
    store: &Arc<Store>,
    shards: u16,
    checkpoints: &[(String, Head)],
    jobs: usize,
    apply: Option<u64>,
    progress: impl FnMut(u64) + Clone + 'static,
) -> Result<Repaired, StoreError> {
    let mut repaired = Repaired::default();
    for round in 0..MAX_ROUNDS as u64 {
        let mut faults = Faults { progress: Some(Box::new(progress.clone())), ..Faults::default() };
        let summary = verify::all(store, shards, checkpoints, jobs, &mut faults)?;
        let (left, rows): (Vec<_>, Vec<_>) = faults.rows.into_iter().partition(|row| row.repair == Repair::Impossible);
        repaired.left = left;
        repaired.refused = refusal(&summary, faults.first_break);
        if repaired.refused.is_some() || rows.is_empty() {
            return Ok(repaired);
        }
        if let Some(now_ms) = apply {
            write(store, shards, &rows, now_ms + round)?;
        }
        repaired.rows.extend(rows);
        if apply.is_none() {
            return Ok(repaired);
        }
    }
    Err(store.damaged(format!("after {MAX_ROUNDS} rounds of repair there are still rows that differ")))
}

/// Why the events cannot be trusted; `None` if they are whole.
fn refusal(summary: &Summary, first_break: Option<String>) -> Option<String> {
    if !summary.events_whole {
        return Some(format!("a chain is broken: {}", first_break.unwrap_or_default()));
    }
    summary.log.as_ref().and_then(|log| log.broken.as_ref()).map(|why| format!("the log is broken: {why}"))
}

/// Writes rows anew, together with a report of it.
fn write(store: &Store, shards: u16, faults: &[RowFault], now_ms: u64) -> Result<(), StoreError> {
    let mut batch = store.batch(faults.len() * 64);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let mut kept = Vec::new();
    for fault in faults {
        *counts.entry(fault.family.name()).or_default() += 1;
        match &fault.repair {
            Repair::Put(value) => store.put(&mut batch, fault.family, &fault.key, value)?,
            Repair::Delete => store.delete(&mut batch, fault.family, &fault.key)?,
            Repair::Keep => kept.push(fault.row()),
            Repair::RebuildIndex | Repair::Impossible => {}
        }
    }
    if faults.iter().any(|fault| fault.repair == Repair::RebuildIndex) {
        store.clear(Family::Index)?;
    }
    let report = json!({"version": env!("CARGO_PKG_VERSION"), "rows": counts, "kept_without_check": kept}).to_string();
    CheckedRows::all_of(REPAIRED).put_row(store, &mut batch, &meta::repaired_key(now_ms), report.as_bytes())?;
    store.write_synced(batch)?;
    tracing::warn!(%report, "rows were derived again from the events");
    // After the rows they check.
    if faults.iter().any(|fault| fault.family == Family::Meta || fault.repair == Repair::Keep) {
        checks::write(store, shards)?;
    }
    Ok(())
}
