//! What the conversion from JSON notes about single items: why one could not be converted, and warnings.

use std::ops::Range;
use std::sync::Arc;

/// A note about an item.
#[derive(Debug, Clone)]
pub struct Note {
    item: usize,
    /// The note.
    pub text: Arc<str>,
}

/// Notes about the items of a request.
#[derive(Debug, Default)]
pub struct Notes {
    /// In the order of the items.
    list: Vec<Note>,
}

impl Notes {
    /// The notes about ranges of items.
    pub fn new(ranges: Vec<(Range<usize>, String)>) -> Notes {
        let mut list = Vec::new();
        for (items, text) in ranges {
            let text: Arc<str> = text.into();
            list.extend(items.map(|item| Note { item, text: Arc::clone(&text) }));
        }
        list.sort_by_key(|note| note.item);
        Notes { list }
    }

    /// The notes about one item.
    pub fn of(&self, item: usize) -> &[Note] {
        let start = self.list.partition_point(|note| note.item < item);
        let len = self.list[start..].iter().take_while(|note| note.item == item).count();
        &self.list[start..start + len]
    }
}
