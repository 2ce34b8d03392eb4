//! Writes attributes and their values as JSON. `docs/otlp.md`, section "Values", specifies the conversion.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use buffa::DecodeError;

use super::any_value::{Attribute, any_text, attributes, last_value, short_string};
use super::ids::Id;
use super::wire::{Field, Fields, text};
use cairn_proof::chain::json::{MAX_DEPTH, Parser, ParserScratch};
use cairn_proof::chain::string::{compare_keys, write_string};
use cairn_proof::chain::{EventSource, Field as EventField, Slot, Slots};
use cairn_proof::hex;

/// Why a request, or an item of it, is refused.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The request is malformed.
    #[error("not OTLP: {0}")]
    Malformed(#[from] DecodeError),
    /// The request is too large.
    #[error("{0}")]
    TooLarge(String),
    /// One span or log record is too long for an event.
    #[error("{0}")]
    TooLong(String),
    /// One span or log record can never be an event.
    #[error("{0}")]
    Refused(String),
}

/// Writer of JSON. It records where the fields of an event are.
#[derive(Debug)]
pub struct Json {
    /// The maximum number of members of an object. Two bytes can encode a member, and each takes many more while
    /// members are sorted.
    max_members: usize,
    /// The JSON written so far.
    pub bytes: Vec<u8>,
    /// The positions in `bytes` of the fields of the event.
    pub slots: Slots,
    /// The field that is being written, and the position at which it begins.
    open: Option<(EventField, usize)>,
    /// Whether any text was not UTF-8 and was replaced.
    pub has_replacements: bool,
    /// The maximum length of a text, in bytes. A longer one is replaced by `omit`.
    max_text: usize,
    omit: fn(&str) -> String,
    /// The number of texts that were replaced.
    pub omitted: usize,
}

/// Whether part of a text was not UTF-8 and was replaced: a text that is borrowed is unchanged.
#[expect(clippy::ptr_arg, reason = "whether the text is borrowed or owned is the information")]
pub fn has_replacements(text: &Cow<'_, str>) -> bool {
    matches!(text, Cow::Owned(_)) && text.contains(char::REPLACEMENT_CHARACTER)
}

/// The maximum length of an event before it is shortened, as a multiple of `limits.event_bytes`.
const MAX_UNSHORTENED: usize = 8;

/// The maximum number of members of an object that is looked into, rather than stored.
const MAX_LOOKUP_MEMBERS: usize = 1024;

/// The nesting level of an object in the `metadata` of an event. The event itself is level 1.
pub const METADATA_MEMBER_LEVEL: u32 = 3;

/// Checks that an event can contain an object or array at this nesting level.
fn check_level(level: u32) -> Result<(), Fault> {
    if level <= MAX_DEPTH {
        return Ok(());
    }
    Err(Fault::Refused(format!("an attribute makes the event nested deeper than {MAX_DEPTH} levels")))
}

/// The error for a list with too many attributes.
pub fn too_many(max_attributes: usize) -> Fault {
    Fault::TooLong(format!("it has a list of more than {max_attributes} attributes (limits.event_bytes)"))
}

impl Json {
    /// An empty writer. `max_members` bounds each object.
    pub fn new(max_members: usize) -> Json {
        Json {
            max_members,
            bytes: Vec::new(),
            slots: Slots::default(),
            open: None,
            has_replacements: false,
            max_text: usize::MAX,
            omit: |_| String::new(),
            omitted: 0,
        }
    }

    /// Writes a string.
    pub fn text(&mut self, text: Cow<'_, str>) {
        self.str(&text);
    }

    /// Writes a string.
    #[expect(clippy::ptr_arg, reason = "whether the text is borrowed or owned is the information")]
    pub fn str(&mut self, text: &Cow<'_, str>) {
        self.has_replacements |= has_replacements(text);
        if text.len() > self.max_text {
            self.omitted += 1;
            let replacement = (self.omit)(text);
            self.raw(replacement.as_bytes());
            return;
        }
        write_string(text, &mut self.bytes);
    }

    /// Discards what was written.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slots = Slots::default();
        self.open = None;
        self.has_replacements = false;
        self.omitted = 0;
    }

    /// Replaces texts of more than `max_text` bytes by what `omit` returns, which is canonical JSON.
    #[must_use]
    pub fn with_long_texts(self, max_text: usize, omit: fn(&str) -> String) -> Json {
        Json { max_text, omit, ..self }
    }

    /// Begins a field of an event. The caller writes its value next.
    pub fn field(&mut self, field: EventField) {
        self.end_field();
        self.open = Some((field, self.bytes.len()));
    }

    /// What was written of a field of the event.
    pub fn value(&self, field: EventField) -> Option<&[u8]> {
        if let Some((open, start)) = self.open
            && open == field
        {
            return Some(&self.bytes[start..]);
        }
        self.slots[field as usize].map(|slot| &self.bytes[slot.start..slot.end])
    }

    /// Ends the last field and returns the positions of all fields.
    pub fn fields(&mut self) -> Slots {
        self.end_field();
        self.slots
    }

    /// Removes secrets from what was written.
    pub fn redact(&mut self, source: EventSource<'_>) {
        self.end_field();
        let written = self.bytes.len();
        source.redact(&mut self.bytes, &mut self.slots);
        if self.bytes.len() == written {
            return;
        }
        // The length of what is written decides what an event is shortened to, so replaced values may not remain.
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for slot in self.slots.iter_mut().flatten() {
            bytes.extend_from_slice(&self.bytes[slot.start..slot.end]);
            *slot = Slot { start: bytes.len() - (slot.end - slot.start), end: bytes.len() };
        }
        self.bytes = bytes;
    }

    fn end_field(&mut self) {
        if let Some((field, start)) = self.open.take() {
            self.slots[field as usize] = Some(Slot { start, end: self.bytes.len() });
        }
    }

    /// Writes the name of a member, preceded by a comma unless it is the first of its object.
    pub fn key(&mut self, name: &str) {
        self.separate();
        write_string(name, &mut self.bytes);
        self.bytes.push(b':');
    }

    /// Appends JSON unchanged.
    pub fn raw(&mut self, json: &[u8]) {
        self.bytes.extend_from_slice(json);
    }

    /// Writes a comma, unless an object or array was just opened.
    pub fn separate(&mut self) {
        if !matches!(self.bytes.last(), Some(b'{' | b'[')) {
            self.bytes.push(b',');
        }
    }

    /// Writes an `AnyValue`. Bytes are written as base64, NaN and infinities as strings, a missing value as null.
    /// `level` is the nesting level of the object that contains the value; that of the event is 1.
    pub fn any(&mut self, any: &[u8], level: u32) -> Result<(), Fault> {
        // The last of several values applies.
        let Some(field) = Fields::of(any).try_fold(None, |_, field| field.map(Some))? else {
            self.raw(b"null");
            return Ok(());
        };
        match field.number() {
            1 => self.text(field.text()?),
            2 => self.raw(if field.varint()? == 0 { b"false" } else { b"true" }),
            3 => self.raw(itoa::Buffer::new().format(field.varint()? as i64).as_bytes()),
            4 => self.double(f64::from_bits(field.fixed64()?)),
            5 => self.array(field, level + 1)?,
            6 => self.map(attributes(field.bytes()?, 1), level + 1)?,
            7 => write_string(&STANDARD.encode(field.bytes()?), &mut self.bytes),
            _ => self.raw(b"null"),
        }
        Ok(())
    }

    /// Checks that the structure does not take much more memory than an event, before it is shortened.
    fn check_len(&self) -> Result<(), Fault> {
        if self.bytes.len() <= self.max_text.saturating_mul(MAX_UNSHORTENED) {
            return Ok(());
        }
        Err(Fault::TooLong("its structure is longer than an event can be (limits.event_bytes)".to_owned()))
    }

    fn double(&mut self, value: f64) {
        if value.is_finite() {
            self.raw(ryu_js::Buffer::new().format_finite(value).as_bytes());
        } else if value.is_nan() {
            self.raw(br#""NaN""#);
        } else {
            self.raw(if value > 0.0 { br#""Infinity""# } else { br#""-Infinity""# });
        }
    }

    /// Writes an array, which is itself at nesting level `level`.
    fn array(&mut self, field: Field<'_>, level: u32) -> Result<(), Fault> {
        check_level(level)?;
        self.raw(b"[");
        let mut values = Fields::of(field.bytes()?);
        while let Some(any) = values.next_message(1)? {
            self.check_len()?;
            self.separate();
            self.any(any, level)?;
        }
        self.raw(b"]");
        Ok(())
    }

    /// Writes attributes as an object, which is itself at nesting level `level`.
    pub fn map<'a>(
        &mut self,
        attributes: impl Iterator<Item = Result<Attribute<'a>, DecodeError>>,
        level: u32,
    ) -> Result<(), Fault> {
        let mut found = Vec::new();
        for attribute in attributes {
            if found.len() == self.max_members {
                return Err(too_many(self.max_members));
            }
            found.push(attribute?);
        }
        self.object(found.iter().collect(), level)
    }

    /// Writes attributes as an object, which is itself at nesting level `level`, sorted by name. Of several attributes
    /// with the same name, the last one is written.
    pub fn object(&mut self, mut attributes: Vec<&Attribute<'_>>, level: u32) -> Result<(), Fault> {
        check_level(level)?;
        // The sort is stable, so the last of several stays the last.
        attributes.sort_by(|a, b| compare_keys(&a.key, &b.key));
        self.raw(b"{");
        for (index, attribute) in attributes.iter().enumerate() {
            self.check_len()?;
            if attributes.get(index + 1).is_some_and(|next| next.key == attribute.key) {
                continue;
            }
            self.has_replacements |= has_replacements(&attribute.key);
            self.key(&attribute.key);
            self.any(attribute.value, level)?;
        }
        self.raw(b"}");
        Ok(())
    }

    /// Writes a string member, unless it is empty.
    pub fn text_unless_empty(&mut self, name: &str, value: Cow<'_, str>) {
        if !value.is_empty() {
            self.key(name);
            self.text(value);
        }
    }

    /// Writes a number member, unless it is zero.
    pub fn number_unless_zero(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.key(name);
            self.raw(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// Writes an id as a member, unless it is missing.
    pub fn id_unless_missing<const N: usize>(&mut self, name: &str, id: Option<Id<'_, N>>) {
        match id {
            None => {}
            Some(Id::Bytes(bytes)) => {
                self.key(name);
                self.raw(b"\"");
                hex::push(&bytes, &mut self.bytes);
                self.raw(b"\"");
            }
            Some(id) => {
                self.key(name);
                self.text(Cow::Owned(id.to_string()));
            }
        }
    }

    /// Writes an object member, unless it is empty.
    pub fn object_unless_empty(&mut self, name: &str, object: &Json) {
        if object.bytes != b"{}" {
            self.key(name);
            self.raw(&object.bytes);
        }
    }

    /// Writes a string member. `text` must be ASCII without characters to escape.
    pub fn plain(&mut self, name: &str, text: &[u8]) {
        self.key(name);
        self.quoted(text);
    }

    /// Writes a string. `text` must be ASCII without characters to escape.
    pub fn quoted(&mut self, text: &[u8]) {
        self.raw(b"\"");
        self.raw(text);
        self.raw(b"\"");
    }

    /// Writes the member `attributes`, unless it would be empty: an object at nesting level `level`.
    pub fn attributes<'a>(
        &mut self,
        list: impl Iterator<Item = Result<Attribute<'a>, DecodeError>>,
        level: u32,
    ) -> Result<(), Fault> {
        let mut list = list.peekable();
        if list.peek().is_none() {
            return Ok(());
        }
        self.key("attributes");
        self.map(list, level)
    }

    /// Writes an `AnyValue`; a string as with [`Json::text_parsed`].
    pub fn any_parsed(&mut self, any: &[u8], level: u32, scratch: &mut ParserScratch) -> Result<(), Fault> {
        match any_text(any) {
            Some(text) => {
                self.text_parsed(text, level, scratch);
                Ok(())
            }
            None => self.any(any, level),
        }
    }

    /// Writes a text as the JSON object or array that it contains, and as a string if it is anything else, or JSON that
    /// an event cannot contain. `level` is the nesting level of the object that contains the value.
    pub fn text_parsed(&mut self, text: Cow<'_, str>, level: u32, scratch: &mut ParserScratch) {
        if text.len() <= self.max_text.saturating_mul(MAX_UNSHORTENED)
            && matches!(text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes().first(), Some(b'{' | b'['))
        {
            let start = self.bytes.len();
            let mut parser = Parser::new(&text, 0, scratch, usize::MAX);
            parser.deepen(level);
            if parser.value(&mut self.bytes).is_ok() && parser.end().is_ok() {
                self.has_replacements |= has_replacements(&text);
                return;
            }
            self.bytes.truncate(start);
        }
        self.text(text);
    }
}

/// The text of an encoded `AnyValue`: a non-empty string, or a number or boolean as JSON.
pub fn scalar_text(any: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(bytes) = short_string(any) {
        return (!bytes.is_empty()).then(|| text(bytes));
    }
    let field = last_value(any)?;
    match field.number() {
        1 => any_text(any),
        2 => Some(Cow::Borrowed(if field.varint().ok()? == 0 { "false" } else { "true" })),
        3 | 4 => json_of(any).and_then(|json| String::from_utf8(json).ok()).map(Cow::Owned),
        _ => None,
    }
}

/// An encoded `AnyValue` as canonical JSON; `None` if an event cannot contain it.
pub fn json_of(any: &[u8]) -> Option<Vec<u8>> {
    let mut json = Json::new(MAX_LOOKUP_MEMBERS);
    json.any(any, 1).ok().map(|()| json.bytes)
}
