//! Events that retention has dropped, and rows that lead only to them. These are not deleted row by row: the floor rises, readers ignore
//! what is before it, whole files of events are deleted, and compactions leave out the rest. So dropping costs no writes that could
//! fill a disk, and old events are not rewritten together with new ones.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The key of the row of `meta` that has the floors, as [`crate::ledger::format::floor`] describes it.
pub const FLOOR: &[u8] = b"floor";

/// The floor of each shard: the position of its first event that is kept. Unset while none was dropped.
#[derive(Debug, Default)]
pub struct Expired {
    floors: OnceLock<Box<[AtomicU64]>>,
}

impl Expired {
    /// Raises the floors of the shards, in their order.
    pub fn raise(&self, floors: &[u64]) {
        let known = self.floors.get_or_init(|| floors.iter().map(|_| AtomicU64::new(0)).collect());
        for (known, floor) in known.iter().zip(floors) {
            known.fetch_max(*floor, Ordering::Release);
        }
    }

    /// The position of the first event of a shard that is kept.
    pub fn first_kept(&self, shard: u16) -> u64 {
        let floor = self.floors.get().and_then(|floors| floors.get(usize::from(shard)));
        floor.map_or(0, |floor| floor.load(Ordering::Acquire))
    }

    /// Whether the event at this position of a shard was dropped.
    fn is_dropped(&self, shard: [u8; 2], position: u64) -> bool {
        position < self.first_kept(u16::from_be_bytes(shard))
    }

    /// Whether all events of a row of `events` were dropped. Its key is the location of the last one.
    pub fn is_expired_frame(&self, key: &[u8]) -> bool {
        match key {
            [high, low, position @ ..] => {
                position.try_into().is_ok_and(|position| self.is_dropped([*high, *low], u64::from_be_bytes(position)))
            }
            _ => false,
        }
    }

    /// Whether all events of a row of `chain` were dropped. Its value is the location of the first one, and their number u32.
    pub fn is_expired_run(&self, value: &[u8]) -> bool {
        let Some((location, count)) = value.split_at_checked(10) else { return false };
        let Ok(count) = count.try_into().map(u32::from_be_bytes) else { return false };
        let (shard, position) = location.split_at(2);
        let (Ok(shard), Ok(position)) = (shard.try_into(), position.try_into()) else { return false };
        let last = u64::from_be_bytes(position).saturating_add(u64::from(count)).saturating_sub(1);
        self.is_dropped(shard, last)
    }

    /// Whether a row of `client_ids` leads to a dropped event. Its value is a location; cursors have other lengths.
    pub fn is_expired_id(&self, key: &[u8], value: &[u8]) -> bool {
        match (key.len(), value) {
            (16, [high, low, position @ ..]) => {
                position.try_into().is_ok_and(|position| self.is_dropped([*high, *low], u64::from_be_bytes(position)))
            }
            _ => false,
        }
    }

    /// Whether a row of `index` has postings of dropped events only. Its key ends with a location, to which the offsets in the
    /// value are added; the last one is the greatest.
    pub fn is_expired_posting(&self, key: &[u8], value: &[u8]) -> bool {
        let location = key.get(16..).and_then(|location| location.split_first_chunk::<2>());
        let Some((shard, position)) = location else { return false };
        let (Ok(position), Some(offset)) = (position.try_into(), value.last_chunk::<2>()) else { return false };
        self.is_dropped(*shard, u64::from_be_bytes(position).saturating_add(u16::from_be_bytes(*offset).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_expire_when_all_their_events_are_dropped() {
        let expired = Expired::default();
        let location = |position: u64| [&1u16.to_be_bytes()[..], &position.to_be_bytes()].concat();
        let posting = |position: u64| [&[7; 16][..], &location(position)].concat();
        let is_expired = |position, offset: [u8; 2]| {
            let id = expired.is_expired_id(&[7; 16], &location(position));
            (id, expired.is_expired_posting(&posting(position), &[[0, 0], offset].concat()))
        };
        assert_eq!(is_expired(5, [0, 2]), (false, false), "nothing was dropped");
        expired.raise(&[0, 8]);
        assert_eq!(is_expired(5, [0, 2]), (true, true));
        assert_eq!(is_expired(5, [0, 3]), (true, false), "the last event is the first that is kept");
        assert_eq!(is_expired(8, [0, 0]), (false, false));
        expired.raise(&[0, 3]);
        assert_eq!(is_expired(5, [0, 2]), (true, true), "a floor never sinks");
        let run =
            |position, count: u32| expired.is_expired_run(&[&location(position)[..], &count.to_be_bytes()].concat());
        assert_eq!((run(5, 3), run(5, 4), expired.is_expired_run(&location(5))), (true, false, false));
        assert_eq!([7, 8].map(|position| expired.is_expired_frame(&location(position))), [true, false]);
        assert!(!expired.is_expired_id(b"cursor\0\x01", &location(0)), "a cursor");
        assert!(!expired.is_expired_posting(b"cursor\0\x01", &location(0)), "a cursor");
        assert!(!expired.is_expired_id(&[7; 16], &[]) && !expired.is_expired_posting(&posting(0), &[]), "damaged rows");
    }
}
