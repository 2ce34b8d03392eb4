//! Groups the terms of many events: for each term, the events that have it. Events share most of their terms, so this takes
//! a third of the time of sorting them.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::ledger::format::terms::Term;

/// The terms of some events, each with the offsets of its events.
#[derive(Default)]
pub struct TermGroups {
    /// The index of each term in `groups`.
    indexes: HashMap<Term, u32, RandomState>,
    groups: Vec<Group>,
    /// The index of the group and the offset of the event, in the order in which they were added.
    postings: Vec<(u32, u16)>,
    /// The offsets by group, each as 2 bytes.
    offsets: Vec<[u8; 2]>,
}

struct Group {
    term: Term,
    count: usize,
    last: u16,
}

impl TermGroups {
    /// Removes everything and keeps the memory.
    pub fn clear(&mut self) {
        self.indexes.clear();
        self.groups.clear();
        self.postings.clear();
    }

    /// The number of postings.
    pub fn len(&self) -> usize {
        self.postings.len()
    }

    /// Adds a term of the event with this offset. Offsets must not decrease; a term of an event counts once.
    pub fn add(&mut self, term: Term, offset: u16) {
        // An event has far fewer than 2^32 terms.
        let next = self.groups.len() as u32;
        let index = *self.indexes.entry(term).or_insert(next);
        match self.groups.get_mut(index as usize) {
            Some(group) if group.last == offset => return,
            Some(group) => {
                group.count += 1;
                group.last = offset;
            }
            None => self.groups.push(Group { term, count: 1, last: offset }),
        }
        self.postings.push((index, offset));
    }

    /// The terms in ascending order, each with the offsets of its events, 2 bytes each, in ascending order.
    pub fn sorted(&mut self) -> impl Iterator<Item = (Term, &[u8])> {
        let mut ends: Vec<usize> = Vec::with_capacity(self.groups.len());
        for group in &self.groups {
            ends.push(ends.last().copied().unwrap_or(0));
            *ends.last_mut().unwrap_or(&mut 0) += group.count;
        }
        // From the end, so that each end becomes the start of its group.
        self.offsets.clear();
        self.offsets.resize(self.postings.len(), [0; 2]);
        for (index, offset) in self.postings.iter().rev() {
            let at = &mut ends[*index as usize];
            *at -= 1;
            self.offsets[*at] = offset.to_be_bytes();
        }
        let mut order: Vec<(Term, usize)> = self.groups.iter().map(|group| group.term).zip(0..).collect();
        order.sort_unstable();
        let (groups, offsets) = (&self.groups, &self.offsets);
        order.into_iter().map(move |(term, index)| {
            let start = ends[index];
            (term, offsets[start..start + groups[index].count].as_flattened())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_term_has_its_events_once_in_order(events in prop::collection::vec(prop::collection::vec(0..40u128, 0..12), 0..60)) {
            let (mut groups, mut expected) = (TermGroups::default(), BTreeMap::<u128, Vec<u8>>::new());
            groups.add(Term(7), 3);
            groups.clear();
            for (offset, terms) in (0..).zip(&events) {
                terms.iter().for_each(|term| groups.add(Term(*term), offset));
                let distinct: std::collections::BTreeSet<_> = terms.iter().collect();
                distinct.into_iter().for_each(|term| expected.entry(*term).or_default().extend(offset.to_be_bytes()));
            }
            let found: Vec<_> = groups.sorted().map(|(term, offsets)| (term.0, offsets.to_vec())).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
