//! Rewrites the frames of erased events.

use std::collections::BTreeSet;

use crate::ledger::format::frame::{self, Frame, FrameBuilder};
use crate::ledger::format::keys::Location;
use crate::ledger::format::record::RecordRef;
use crate::ledger::format::stub;
use crate::ledger::read::lookup;
use crate::ledger::store::{Compression, Family, Store, StoreError};
use cairn_proof::chain::ErasedBy;

/// The keys of the rows of `events` that were rewritten.
pub type Rewritten = BTreeSet<[u8; 10]>;

/// The most bytes of frames that are written at a time, so that commits wait for little.
const BATCH_BYTES: usize = 256 << 10;

/// Puts a stub in the place of each event at these locations, which are sorted. Erased ones are left as they are. A loss of power may
/// bring the last ones back until [`Store::purge`] has returned.
pub fn rewrite(
    store: &Store,
    locations: &[Location],
    by: &ErasedBy,
    compression: Compression,
    rewritten: &mut Rewritten,
) -> Result<(), StoreError> {
    let (mut builder, mut unpacked) = (FrameBuilder::new(compression), Vec::new());
    let (mut batch, mut batch_bytes) = (store.batch(0), 0);
    let mut rest = locations;
    while let Some(first) = rest.first() {
        let mut rows = store.rows(Family::Events)?;
        rows.seek(&first.encode());
        let Some((key, value)) = rows.row()? else { return Err(missing(store, *first)) };
        let frame = frame::unpack(value, &mut unpacked).and_then(|()| Frame::decode(key, value, &unpacked));
        let frame = frame.filter(|frame| frame.first <= *first).ok_or_else(|| missing(store, *first))?;
        let count = rest.partition_point(|location| *location <= frame.last());
        let (of_frame, after) = rest.split_at(count);
        let mut erased = of_frame.iter().peekable();
        for index in 0..frame.count() {
            let (location, bytes) = (frame.location(index), frame.record(index));
            if bytes.is_empty() {
                // Its end is damaged: the frame must stay as it is.
                return Err(missing(store, location));
            }
            match erased.next_if(|erased| **erased == location) {
                None => builder.add(bytes),
                Some(_) => builder.add(&without_content(store, location, bytes, by)?),
            }
        }
        builder.put(store, &mut batch, frame.last())?;
        rewritten.insert(frame.last().encode());
        batch_bytes += value.len();
        rest = after;
        if batch_bytes >= BATCH_BYTES || rest.is_empty() {
            store.write(std::mem::replace(&mut batch, store.batch(0)))?;
            batch_bytes = 0;
        }
    }
    Ok(())
}

/// The record of an event without its content.
fn without_content(store: &Store, location: Location, bytes: &[u8], by: &ErasedBy) -> Result<Vec<u8>, StoreError> {
    let record = lookup::parse(store, location, bytes)?;
    if record.is_erased() {
        return Ok(bytes.to_vec());
    }
    let stub = stub::erased(record, by).ok_or_else(|| missing(store, location))?;
    Ok(RecordRef::bytes(stub.as_ref()).to_vec())
}

fn missing(store: &Store, location: Location) -> StoreError {
    let (shard, position) = (location.shard.0, location.position.0);
    store.damaged(format!(
        "the event at position {position} of shard {shard} cannot be erased: run `cairn verify --all`"
    ))
}
