//! Whether two long lists are the same, without keeping either.
//!
//! A package has all its events first and then all their proofs. Whoever reads it once and keeps neither needs to know
//! that the proofs are those of the events, in their order. So both lists are hashed as they come, item by item; of the
//! first one the hash at every n-th item is kept, so that it can be said where they part.

use sha2::{Digest, Sha256};

/// How many hashes are kept, 32 bytes each.
const MARKS: usize = 4096;

/// A list that was hashed as it came.
pub struct ListDigest {
    length: u64,
    hash: [u8; 32],
    /// The hashes behind every `stride` items.
    marks: Vec<[u8; 32]>,
    stride: u64,
}

impl Default for ListDigest {
    fn default() -> ListDigest {
        ListDigest { length: 0, hash: [0; 32], marks: Vec::new(), stride: 1 }
    }
}

impl ListDigest {
    /// How many items there are.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next item.
    pub fn push(&mut self, item: &[u8]) {
        self.step(item);
        if !self.length.is_multiple_of(self.stride) {
            return;
        }
        self.marks.push(self.hash);
        if self.marks.len() == MARKS {
            // Every second one is kept: those behind an even number of strides.
            self.marks = self.marks.iter().skip(1).step_by(2).copied().collect();
            self.stride *= 2;
        }
    }

    fn step(&mut self, item: &[u8]) {
        let mut hasher = Sha256::new();
        hasher.update(self.hash);
        hasher.update(item);
        self.hash = hasher.finalize().into();
        self.length += 1;
    }
}

/// A second list, compared with the first as it comes.
#[derive(Default)]
pub struct Comparison {
    second: ListDigest,
    /// The items, counted from 1, among which the first difference is.
    parted: Option<(u64, u64)>,
}

impl Comparison {
    /// How many items there were.
    pub fn length(&self) -> u64 {
        self.second.length
    }

    /// Takes the next item of the second list.
    pub fn push(&mut self, item: &[u8], first: &ListDigest) {
        self.second.step(item);
        let length = self.second.length;
        if self.parted.is_some() || !length.is_multiple_of(first.stride) {
            return;
        }
        let mark = usize::try_from(length / first.stride - 1).ok().and_then(|index| first.marks.get(index));
        if mark.is_some_and(|mark| *mark != self.second.hash) {
            self.parted = Some((length - first.stride + 1, length));
        }
    }

    /// Among which items, counted from 1, the first difference is; `None` if the lists are the same as far as both go.
    pub fn parted(&self, first: &ListDigest) -> Option<(u64, u64)> {
        let behind_the_last_mark = || {
            let is_same = first.length != self.second.length || first.hash == self.second.hash;
            (!is_same).then(|| (first.marks.len() as u64 * first.stride + 1, first.length))
        };
        self.parted.or_else(behind_the_last_mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted(first: impl Iterator<Item = u64>, second: impl Iterator<Item = u64>) -> Option<(u64, u64)> {
        let (mut trail, mut comparison) = (ListDigest::default(), Comparison::default());
        first.for_each(|item| trail.push(&item.to_be_bytes()));
        second.for_each(|item| comparison.push(&item.to_be_bytes(), &trail));
        assert!(trail.marks.len() < MARKS, "memory is bounded");
        comparison.parted(&trail)
    }

    #[test]
    fn the_first_difference_is_found_and_nothing_else() {
        for length in [0, 1, 2, 100, 4095, 4096, 4097, 20_000] {
            assert_eq!(parted(0..length, 0..length), None, "{length}");
            for wrong in [0, 1, 50, 4095, 4096, 9_999, 19_999].into_iter().filter(|&wrong| wrong < length) {
                let other = (0..length).map(|item| if item == wrong { u64::MAX } else { item });
                let (from, to) = parted(0..length, other).unwrap();
                assert!((from..=to).contains(&(wrong + 1)), "item {wrong} of {length}: {from} to {to}");
                assert!(to - from < 16, "{from} to {to}");
                assert!(length > 4095 || from == to, "short lists are exact");
            }
        }
        // Exchanged items are two differences.
        assert_eq!(parted([1, 2, 3].into_iter(), [1, 3, 2].into_iter()), Some((2, 2)));
        assert_eq!(parted([1, 2, 3].into_iter(), [1, 2].into_iter()), None, "the lengths are compared elsewhere");
    }
}
