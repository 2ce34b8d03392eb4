//! What other families hold of an event, computed from its canonical bytes.

use std::sync::Arc;

use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::ledger::format::keys::{Location, Position};
use crate::ledger::format::terms::{self, Term, Terms};
use cairn_proof::chain::walk::FieldValues;
use cairn_proof::chain::{Field, scan, time};

/// The most terms of an event of which none is allocated.
const FEW_TERMS: usize = 16;

/// What other families hold of an event, except for its postings in the index.
#[derive(Debug, Default, Clone, Copy)]
pub struct Facts {
    /// The time of receipt in ms since 1970; 0 if it cannot be read.
    pub received_ms: u64,
    /// The id; nil if it is not a UUID.
    pub id: Uuid,
}

impl Facts {
    /// The time of receipt in ms since 1970; `None` if it cannot be read.
    pub fn received_ms(&self) -> Option<u64> {
        Some(self.received_ms).filter(|ms| *ms > 0)
    }

    /// The id; `None` if it is not a UUID.
    pub fn id(&self) -> Option<Uuid> {
        Some(self.id).filter(|id| !id.is_nil())
    }
}

/// What other families hold of an event with these fields.
pub fn facts(fields: &FieldValues<'_>, times: &mut ReceiptTimes) -> Facts {
    let received_ms = fields.get(Field::ReceivedAt).and_then(|value| times.parse(value)).unwrap_or_default();
    // A UUID has no escapes.
    let id = fields.get(Field::Id).and_then(|id| id.strip_prefix(b"\"")?.strip_suffix(b"\""));
    Facts { received_ms, id: id.and_then(|id| Uuid::try_parse_ascii(id).ok()).unwrap_or_default() }
}

/// The terms of an event with these fields, each once.
fn terms(fields: &FieldValues<'_>) -> Terms {
    let mut found = Terms::new();
    for field in terms::FIELDS {
        fields.get(field).into_iter().for_each(|value| terms::for_each(field, value, |term| found.push(term)));
    }
    // Two labels can be made to have one term.
    found.sort_unstable();
    found.dedup();
    found
}

/// Reads times of receipt. Most are of the same second as the one before.
#[derive(Default)]
pub struct ReceiptTimes {
    /// The canonical value up to the seconds, and the time that it begins with, in ms since 1970.
    second: Option<([u8; SECOND_LEN], u64)>,
}

/// The length of the canonical value up to the seconds.
const SECOND_LEN: usize = r#""2026-02-17T10:30:00."#.len();

impl ReceiptTimes {
    /// The time in ms since 1970; `None` if the canonical value is not a time.
    fn parse(&mut self, value: &[u8]) -> Option<u64> {
        let (second, rest) = value.split_first_chunk::<SECOND_LEN>()?;
        let millis = match rest {
            [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'Z', b'"'] => {
                [a, b, c].into_iter().fold(0, |ms, digit| 10 * ms + u64::from(digit - b'0'))
            }
            _ => return time::parse_ms(&scan::text(value)?),
        };
        match self.second {
            Some((known, start)) if known == *second => Some(start + millis),
            _ => {
                let ms = time::parse_ms(&scan::text(value)?)?;
                self.second = Some((*second, ms - millis));
                Some(ms)
            }
        }
    }
}

/// Digests rows under random seeds that no writer of rows knew, so that the rows that the events give and the stored
/// rows are compared by the sums of their digests.
///
/// The digest of a row is a hash of its key times a hash of its location, so the postings of an event are digested
/// together.
#[derive(Clone)]
pub struct Digests {
    seeds: [u64; 2],
    /// The position of the first event of each shard that is not in the index.
    indexed: Arc<[Position]>,
    /// The position of the first event of each shard that retention has not dropped.
    first: Arc<[Position]>,
}

impl Digests {
    /// Digests under new seeds, for an index that has the events before `indexed`, in a ledger that has lost those before `first`.
    pub fn new(indexed: &[Position], first: &[Position]) -> Digests {
        Digests { seeds: [fastrand::u64(..), fastrand::u64(..)], indexed: indexed.into(), first: first.into() }
    }

    /// Whether retention has not dropped the event at `location`: rows that lead to others are not removed at once.
    pub fn is_kept(&self, location: Location) -> bool {
        self.first.get(usize::from(location.shard.0)).is_none_or(|first| location.position >= *first)
    }

    /// Whether the index has the event at `location`.
    pub fn is_indexed(&self, location: Location) -> bool {
        self.indexed.get(usize::from(location.shard.0)).is_some_and(|next| location.position < *next)
    }

    /// The digest of a row of `client_ids`.
    pub fn id(&self, id: Uuid, location: Location) -> u128 {
        self.of_key(id.as_u128()).wrapping_mul(self.of_location(location))
    }

    /// The sum of the digests of the postings of a term at these locations, as far as their events are kept.
    pub fn row(&self, term: Term, locations: impl Iterator<Item = Location>) -> u128 {
        let locations = locations.filter(|location| self.is_kept(*location));
        let sum = locations.fold(0u128, |sum, location| sum.wrapping_add(self.of_location(location)));
        self.of_key(term.0).wrapping_mul(sum)
    }

    /// The sum of the digests of the postings of the event at `location`; 0 if the index does not have the event.
    pub fn postings(&self, location: Location, fields: &FieldValues<'_>) -> u128 {
        if !self.is_indexed(location) {
            return 0;
        }
        let mut seen = [0; FEW_TERMS];
        let (mut count, mut sum) = (0, 0u128);
        for field in terms::FIELDS {
            let Some(value) = fields.get(field) else { continue };
            terms::for_each(field, value, |term| {
                // Two labels can be made to have one term, which has one posting.
                let is_new = !seen[..count.min(FEW_TERMS)].contains(&term.0);
                if is_new {
                    seen[count % FEW_TERMS] = term.0;
                    count += 1;
                    sum = sum.wrapping_add(self.of_key(term.0));
                }
            });
        }
        if count > FEW_TERMS {
            sum = terms(fields).iter().fold(0, |sum, term| sum.wrapping_add(self.of_key(term.0)));
        }
        sum.wrapping_mul(self.of_location(location))
    }

    fn of_key(&self, key: u128) -> u128 {
        xxh3_64_with_seed(&key.to_ne_bytes(), self.seeds[0]).into()
    }

    fn of_location(&self, location: Location) -> u128 {
        xxh3_64_with_seed(&location.encode(), self.seeds[1]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_one_second_are_read_as_any_other_time() {
        let mut times = ReceiptTimes::default();
        for text in ["2026-02-17T10:30:00.000Z", "2026-02-17T10:30:00.999Z", "2026-02-17T10:30:01.001Z", "2026-02-17"] {
            let value = format!("\"{text}\"");
            assert_eq!(times.parse(value.as_bytes()), time::parse_ms(text), "{text}");
        }
        assert_eq!(times.parse(br#""2026-02-17T10:30:01.0x1Z""#), None);
    }
}
