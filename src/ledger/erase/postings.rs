//! Removes events from the index.

use std::collections::BTreeMap;

use crate::ledger::format::keys::Location;
use crate::ledger::format::terms::{self, Term};
use crate::ledger::read::events::Events;
use crate::ledger::read::index::{self, Postings};
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};

/// The most rows of the index that are held in memory.
const MAX_ROWS: usize = 16_384;

/// Rows of the index: what each will contain.
type Rows = BTreeMap<[u8; index::ROW_KEY_LEN], Vec<[u8; 2]>>;

/// Removes the events at these locations, which are sorted, from all rows of the index. Erased events have none.
pub fn remove(store: &Store, locations: &[Location]) -> Result<(), StoreError> {
    let (mut events, mut rows) = (Events::new(store)?, Rows::new());
    for &location in locations {
        let Some(record) = events.at(location)? else { continue };
        let record = lookup::parse(store, location, record)?;
        if record.is_erased() {
            continue;
        }
        for term in terms::of_event(record.canonical()) {
            remove_from_row(store, term, location, &mut rows)?;
        }
        if rows.len() >= MAX_ROWS {
            write(store, &mut rows)?;
        }
    }
    write(store, &mut rows)
}

fn remove_from_row(store: &Store, term: Term, location: Location, rows: &mut Rows) -> Result<(), StoreError> {
    // A row that was changed already still has its old offsets in the database.
    let Some((key, offsets)) = Postings::new(store, term, location.shard)?.row_of(location.position)? else {
        return Ok(());
    };
    let offsets = rows.entry(key).or_insert(offsets);
    offsets.retain(|offset| index::position_of(&key, *offset) != location.position);
    Ok(())
}

fn write(store: &Store, rows: &mut Rows) -> Result<(), StoreError> {
    let mut batch = store.batch(rows.len() * 64);
    for (key, offsets) in std::mem::take(rows) {
        match offsets.is_empty() {
            true => store.delete(&mut batch, Family::Index, &key)?,
            false => store.put(&mut batch, Family::Index, &key, offsets.as_flattened())?,
        }
    }
    store.write_derived(batch)
}
