//! Compares two lists of any length with bounded memory.
//!
//! A package has all its events first, and all their proofs after them. It is read once, and neither list is stored,
//! but each proof must belong to the event at its place. Therefore both lists are hashed item by item. Of the first
//! list, the hash after every n-th item is stored; these marks locate the first difference.

use sha2::{Digest, Sha256};

/// The maximum number of stored hashes, 32 bytes each.
const MARKS: usize = 4096;

/// The first list: a running hash with marks.
pub struct ListDigest {
    length: u64,
    hash: [u8; 32],
    /// The hash after every `stride` items.
    marks: Vec<[u8; 32]>,
    stride: u64,
}

impl Default for ListDigest {
    fn default() -> ListDigest {
        ListDigest { length: 0, hash: [0; 32], marks: Vec::new(), stride: 1 }
    }
}

impl ListDigest {
    /// The number of items.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends an item.
    pub fn push(&mut self, item: &[u8]) {
        self.step(item);
        if !self.length.is_multiple_of(self.stride) {
            return;
        }
        self.marks.push(self.hash);
        if self.marks.len() == MARKS {
            // Keep every second mark: those after an even number of strides.
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

/// The second list, compared with the first one item by item.
#[derive(Default)]
pub struct Comparison {
    second: ListDigest,
    /// The first and the last item, counted from 1, between which the first difference is.
    difference: Option<(u64, u64)>,
}

impl Comparison {
    /// The number of items.
    pub fn length(&self) -> u64 {
        self.second.length
    }

    /// Appends an item to the second list, and compares the list with `first` at the marks.
    pub fn push(&mut self, item: &[u8], first: &ListDigest) {
        self.second.step(item);
        let length = self.second.length;
        if self.difference.is_some() || !length.is_multiple_of(first.stride) {
            return;
        }
        let mark = usize::try_from(length / first.stride - 1).ok().and_then(|index| first.marks.get(index));
        if mark.is_some_and(|mark| *mark != self.second.hash) {
            self.difference = Some((length - first.stride + 1, length));
        }
    }

    /// The first and the last item, counted from 1, between which the first difference is; `None` if the lists are
    /// equal up to the end of the shorter one.
    pub fn first_difference(&self, first: &ListDigest) -> Option<(u64, u64)> {
        let after_the_last_mark = || {
            let is_equal = first.length != self.second.length || first.hash == self.second.hash;
            (!is_equal).then(|| (first.marks.len() as u64 * first.stride + 1, first.length))
        };
        self.difference.or_else(after_the_last_mark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_difference(first: impl Iterator<Item = u64>, second: impl Iterator<Item = u64>) -> Option<(u64, u64)> {
        let (mut digest, mut comparison) = (ListDigest::default(), Comparison::default());
        first.for_each(|item| digest.push(&item.to_be_bytes()));
        second.for_each(|item| comparison.push(&item.to_be_bytes(), &digest));
        assert!(digest.marks.len() < MARKS, "memory is bounded");
        comparison.first_difference(&digest)
    }

    #[test]
    fn the_first_difference_of_two_lists_is_located() {
        for length in [0, 1, 2, 100, 4095, 4096, 4097, 20_000] {
            assert_eq!(first_difference(0..length, 0..length), None, "{length}");
            for wrong in [0, 1, 50, 4095, 4096, 9_999, 19_999].into_iter().filter(|&wrong| wrong < length) {
                let other = (0..length).map(|item| if item == wrong { u64::MAX } else { item });
                let (from, to) = first_difference(0..length, other).unwrap();
                assert!((from..=to).contains(&(wrong + 1)), "item {wrong} of {length}: {from} to {to}");
                assert!(to - from < 16, "{from} to {to}");
                assert!(length > 4095 || from == to, "short lists are exact");
            }
        }
        // Exchanged items are two differences.
        assert_eq!(first_difference([1, 2, 3].into_iter(), [1, 3, 2].into_iter()), Some((2, 2)));
        let shorter = first_difference([1, 2, 3].into_iter(), [1, 2].into_iter());
        assert_eq!(shorter, None, "the caller compares the lengths");
    }
}
