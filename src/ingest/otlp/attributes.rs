//! The attributes of one span, log record or resource, with an index of those that the mapping names.

use std::borrow::Cow;

use super::any_value::{Attribute, any_text};
use super::mapping::compiled::{KeyId, Mapping, Present};
use super::request::Signal;
use super::value::{Fault, Json, METADATA_MEMBER_LEVEL, scalar_text, too_many};

/// The number of attributes for which memory is taken at first: most messages have fewer.
const FEW: usize = 16;

/// The attributes of one message.
#[derive(Debug, Default)]
pub struct Attributes<'a> {
    list: Vec<Listed<'a>>,
    /// The attributes of the last message. Most messages of a request have attributes with the same names in the same
    /// order, so the name at the same place is compared before it is looked up.
    last: Vec<Listed<'a>>,
    /// Per [`KeyId`], its index in `list` plus one; 0 if it is absent.
    positions: Vec<u32>,
    /// The rows of the mapping whose attribute is there.
    present: Present,
}

#[derive(Debug)]
struct Listed<'a> {
    attribute: Attribute<'a>,
    /// The number of its name, if the mapping names it.
    key: Option<KeyId>,
    /// Whether it became a field of the event. Such attributes are not repeated in `metadata`.
    is_used: bool,
}

impl<'a> Attributes<'a> {
    /// Removes all attributes, and keeps the memory for the next message.
    pub fn clear(&mut self) {
        std::mem::swap(&mut self.list, &mut self.last);
        self.list.clear();
        self.positions.fill(0);
        self.present.fill(0);
    }

    /// Adds an attribute, an encoded `KeyValue`. Of several with the same name, the last one applies and the others are
    /// dropped.
    ///
    /// # Errors
    /// When it is malformed, or there are `max` attributes already.
    pub fn push(&mut self, message: &'a [u8], mapping: &Mapping, signal: Signal, max: usize) -> Result<(), Fault> {
        let at = self.list.len();
        if at == max {
            return Err(too_many(max));
        }
        if self.list.capacity() == 0 {
            self.list.reserve(FEW);
        }
        let last = self.last.get(at);
        let (attribute, is_same) = Attribute::read_after(message, last.map(|last| &last.attribute.key))?;
        let key = match last {
            Some(last) if is_same => last.key,
            _ => mapping.find_key(&attribute.key),
        };
        if let Some(key) = key {
            self.mark_used(key);
            self.positions.resize(mapping.key_count(), 0);
            self.positions[usize::from(key.0)] = at as u32 + 1;
            mapping.note(signal, key, &mut self.present);
        }
        self.list.push(Listed { attribute, key, is_used: false });
        Ok(())
    }

    fn index(&self, key: KeyId) -> Option<usize> {
        (*self.positions.get(usize::from(key.0))? as usize).checked_sub(1)
    }

    /// The rows of the mapping whose attribute is there, and those that were noted.
    pub fn present(&self) -> &Present {
        &self.present
    }

    /// For noting further rows.
    pub fn present_mut(&mut self) -> &mut Present {
        &mut self.present
    }

    /// Whether an attribute is there.
    #[inline]
    pub fn has(&self, key: KeyId) -> bool {
        self.positions.get(usize::from(key.0)).is_some_and(|position| *position != 0)
    }

    /// The value of an attribute: an encoded `AnyValue`.
    pub fn any(&self, key: KeyId) -> Option<&'a [u8]> {
        self.index(key).map(|index| self.list[index].attribute.value)
    }

    /// The text of an attribute, if it is a non-empty string.
    pub fn text(&self, key: KeyId) -> Option<Cow<'a, str>> {
        self.any(key).and_then(any_text)
    }

    /// The text of an attribute: a non-empty string, or a number or boolean as JSON.
    pub fn scalar_text(&self, key: KeyId) -> Option<Cow<'a, str>> {
        self.any(key).and_then(scalar_text)
    }

    /// The attributes in the order in which they were sent, each with its index.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Attribute<'a>)> {
        self.list.iter().map(|listed| &listed.attribute).enumerate()
    }

    /// Marks an attribute as a field of the event.
    pub fn mark_used(&mut self, key: KeyId) {
        if let Some(index) = self.index(key) {
            self.list[index].is_used = true;
        }
    }

    /// Marks the attribute with this index as a field of the event.
    pub fn mark_index_used(&mut self, index: usize) {
        self.list[index].is_used = true;
    }

    /// Whether any attribute is not a field of the event.
    pub fn has_unused(&self) -> bool {
        self.list.iter().any(|listed| !listed.is_used)
    }

    /// Writes the attributes that are not a field of the event as an object in `metadata`.
    pub fn write_unused(&self, json: &mut Json) -> Result<(), Fault> {
        let unused = self.list.iter().filter(|listed| !listed.is_used).map(|listed| &listed.attribute);
        json.object(unused.collect(), METADATA_MEMBER_LEVEL)
    }
}
