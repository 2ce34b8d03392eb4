//! Erases the content of committed events: rewrites the frames that have them, with a stub in the place of each, and removes them
//! from the index.
//!
//! What is true if the process ends after each step of [`erase`]: the erasure is recorded, and is repeated as a whole at the next
//! start. Each step leaves alone what was done before:
//!
//! 1. postings are removed, in memory: after a crash the index has them again, and the events still have their terms;
//! 2. the index is on disk: its rows are not in the write-ahead log;
//! 3. frames are rewritten, some at a time: the events in them have no content and no terms any more;
//! 4. [`Store::purge`](super::store::Store::purge) has synced the frames, and removed the former rows from all files.

mod frames;
mod postings;

pub use frames::Rewritten;

use super::format::keys::Location;
use super::store::{Compression, Family, Store, StoreError};
use cairn_proof::chain::ErasedBy;

/// Erases the content of the events at these locations, which are sorted. The index must have all of them. The keys of the
/// rewritten rows are added to `rewritten`. Only one thread may erase.
///
/// # Errors
/// When the database cannot be read or written, or an event or its frame is missing or damaged.
pub fn erase(
    store: &Store,
    locations: &[Location],
    by: &ErasedBy,
    compression: Compression,
    rewritten: &mut Rewritten,
) -> Result<(), StoreError> {
    postings::remove(store, locations)?;
    store.flush(Family::Index)?;
    frames::rewrite(store, locations, by, compression, rewritten)
}
