//! A filter of all ids: it tells of nearly every new id that no event has it, with one access to memory. The tables of the
//! database have filters, too, but each id would be looked up in every table.
//!
//! It is a split block Bloom filter as in Apache Parquet: an id sets bits in different words of one block. Parquet sets one
//! in each of eight words; four are fewer errors if there are less than ten bits for an id, which is when errors cost time.
//! It never forgets an id. With more ids than it is made for it errs more often, and the database is asked.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use uuid::Uuid;

/// The number of words of a block: as many as a cache line has.
const WORDS: usize = 8;
/// The number of words in which an id sets a bit.
const BITS: usize = 4;

/// A set of ids that may contain more than was inserted.
pub struct Filter {
    blocks: Box<[[u64; WORDS]]>,
    /// Random, so a client cannot choose ids that fill one block.
    hasher: RandomState,
}

impl Filter {
    /// An empty filter of this size in bytes.
    pub fn new(bytes: usize) -> Filter {
        let blocks = (bytes / size_of::<[u64; WORDS]>()).max(1);
        Filter { blocks: vec![[0; WORDS]; blocks].into(), hasher: RandomState::default() }
    }

    /// The memory of the filter, in bytes.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.blocks)
    }

    /// Adds an id.
    pub fn insert(&mut self, id: Uuid) {
        let (block, bits) = self.place(id);
        bits.into_iter().for_each(|(word, bit)| self.blocks[block][word] |= bit);
    }

    /// Whether an id may have been added; false only if it was not.
    pub fn may_contain(&self, id: Uuid) -> bool {
        let (block, bits) = self.place(id);
        bits.into_iter().all(|(word, bit)| self.blocks[block][word] & bit != 0)
    }

    /// The block of an id, and its words and bits there.
    fn place(&self, id: Uuid) -> (usize, [(usize, u64); BITS]) {
        let hash = self.hasher.hash_one(id);
        // The high part selects the block, without a division; it is less than the number of blocks.
        let block = ((u128::from(hash) * self.blocks.len() as u128) >> 64) as usize;
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // One word of each pair, and one of its 64 bits.
        let place = |pair: usize| {
            let bits = mixed >> (7 * pair + 36);
            (2 * pair + (bits & 1) as usize, 1 << (bits >> 1 & 63))
        };
        (block, std::array::from_fn(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_and_nearly_no_other() {
        for (bits_per_id, most_errors) in [(14, 100), (8, 350), (4, 2000)] {
            let mut random = fastrand::Rng::with_seed(1);
            let mut ids = || Uuid::from_u128(random.u128(..));
            let inserted: Vec<Uuid> = (0..100_000).map(|_| ids()).collect();
            let mut filter = Filter::new(inserted.len() * bits_per_id / 8);
            inserted.iter().for_each(|id| filter.insert(*id));
            assert!(inserted.iter().all(|id| filter.may_contain(*id)));
            let errors = (0..10_000).filter(|_| filter.may_contain(ids())).count();
            assert!(errors <= most_errors, "{errors} of 10,000 with {bits_per_id} bits per id");
        }
    }
}
