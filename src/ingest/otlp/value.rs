//! Writes attributes and their values as JSON. `docs/otlp.md`, section "Values", specifies the conversion.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use buffa::DecodeError;

use super::wire::{Field, Fields, text};
use cairn_proof::chain::json::MAX_DEPTH;
use cairn_proof::chain::string::{compare_keys, write_string};
use cairn_proof::chain::{Field as EventField, Slot, Slots};

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
    slots: Slots,
    /// The field that is being written, and the position at which it begins.
    open: Option<(EventField, usize)>,
    /// Whether any text was not UTF-8 and was replaced.
    pub has_replacements: bool,
}

/// Whether part of a text was not UTF-8 and was replaced: a text that is borrowed is unchanged.
#[expect(clippy::ptr_arg, reason = "whether the text is borrowed or owned is the information")]
pub fn has_replacements(text: &Cow<'_, str>) -> bool {
    matches!(text, Cow::Owned(_)) && text.contains(char::REPLACEMENT_CHARACTER)
}

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
        Json { max_members, bytes: Vec::new(), slots: Slots::default(), open: None, has_replacements: false }
    }

    /// Writes a string.
    pub fn text(&mut self, text: Cow<'_, str>) {
        self.has_replacements |= has_replacements(&text);
        write_string(&text, &mut self.bytes);
    }

    /// Discards what was written.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slots = Slots::default();
        self.open = None;
        self.has_replacements = false;
    }

    /// Begins a field of an event. The caller writes its value next.
    pub fn field(&mut self, field: EventField) {
        self.end_field();
        self.open = Some((field, self.bytes.len()));
    }

    /// Ends the last field and returns the positions of all fields.
    pub fn fields(&mut self) -> Slots {
        self.end_field();
        self.slots
    }

    fn end_field(&mut self) {
        if let Some((field, start)) = self.open.take() {
            self.slots[field as usize] = Some(Slot { start, end: self.bytes.len() });
        }
    }

    /// Writes a string field, unless it is empty.
    pub fn field_unless_empty(&mut self, field: EventField, value: Cow<'_, str>) {
        if !value.is_empty() {
            self.field(field);
            self.text(value);
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

    /// Writes bytes as a string of hex digits.
    pub fn hex(&mut self, bytes: &[u8]) {
        self.raw(b"\"");
        bytes.iter().for_each(|byte| self.raw(&hex_of(*byte)));
        self.raw(b"\"");
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

    /// Writes an id as a member in hex, unless all its bytes are zero.
    pub fn hex_unless_zero(&mut self, name: &str, id: &[u8]) {
        if id.iter().any(|byte| *byte != 0) {
            self.key(name);
            self.hex(id);
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

    /// Writes the member `attributes`, unless it would be empty: the attributes in field `number` of a message, as an
    /// object at nesting level `level`.
    pub fn attributes(&mut self, message: &[u8], number: u32, level: u32) -> Result<(), Fault> {
        let mut list = attributes(message, number).peekable();
        if list.peek().is_none() {
            return Ok(());
        }
        self.key("attributes");
        self.map(list, level)
    }
}

/// An attribute as it was sent.
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    /// The name.
    pub key: Cow<'a, str>,
    /// The value: an encoded `AnyValue`.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Decodes a `KeyValue`.
    pub fn read(message: &'a [u8]) -> Result<Attribute<'a>, DecodeError> {
        let mut attribute = Attribute { key: Cow::Borrowed(""), value: &[] };
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => attribute.key = field.text()?,
                2 => attribute.value = field.bytes()?,
                _ => {}
            }
        }
        Ok(attribute)
    }

    /// The value, if it is a non-empty string.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        any_text(self.value)
    }
}

/// Iterates over the attributes in field `number` of a message.
pub fn attributes<'a>(message: &'a [u8], number: u32) -> impl Iterator<Item = Result<Attribute<'a>, DecodeError>> {
    let mut fields = Fields::of(message);
    std::iter::from_fn(move || fields.next_message(number).transpose()).map(|message| message.and_then(Attribute::read))
}

/// Checks that an encoded `AnyValue` is well-formed, including all nested values. Values nested deeper than an event
/// can contain are not checked, because writing them fails.
pub fn check(any: &[u8], depth: u32) -> Result<(), DecodeError> {
    for field in Fields::of(any) {
        let field = field?;
        match field.number() {
            _ if depth > MAX_DEPTH => {}
            1 | 7 => drop(field.bytes()?),
            2 | 3 => drop(field.varint()?),
            4 => drop(field.fixed64()?),
            5 => {
                let mut values = Fields::of(field.bytes()?);
                while let Some(value) = values.next_message(1)? {
                    check(value, depth + 1)?;
                }
            }
            6 => check_attributes(field.bytes()?, 1, depth + 1)?,
            _ => {}
        }
    }
    Ok(())
}

/// Checks the attributes in field `number` of a message, see [`check`].
pub fn check_attributes(message: &[u8], number: u32, depth: u32) -> Result<(), DecodeError> {
    attributes(message, number).try_for_each(|attribute| check(attribute?.value, depth))
}

/// The text of an encoded `AnyValue`, if it is a non-empty string.
pub fn any_text(any: &[u8]) -> Option<Cow<'_, str>> {
    let field = Fields::of(any).last()?.ok()?;
    let bytes = field.bytes().ok().filter(|bytes| field.number() == 1 && !bytes.is_empty())?;
    Some(text(bytes))
}

/// The two hex digits of a byte, in lower case.
pub fn hex_of(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}
