//! Attributes and their values, as JSON.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use buffa::DecodeError;

use super::wire::{Field, Fields, text};
use cairn_proof::chain::json::MAX_DEPTH;
use cairn_proof::chain::string::{compare_keys, write_string};
use cairn_proof::chain::{Field as EventField, Slot, Slots};

/// Why something of a request cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The request is none.
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

/// JSON that is being written.
#[derive(Debug)]
pub struct Json {
    /// The most members of an object. Two bytes can stand for one, and each takes many more while it is sorted.
    most: usize,
    /// What is written so far.
    pub bytes: Vec<u8>,
    /// Where in it the fields of an event are.
    slots: Slots,
    /// The field that is being written, and where it began.
    open: Option<(EventField, usize)>,
    /// Text that was no UTF-8 has been replaced.
    pub is_mended: bool,
}

/// Whether something in a text was no UTF-8: then it is not as it was sent.
#[expect(clippy::ptr_arg, reason = "whether it is as it was sent is what is asked")]
pub fn is_mended(text: &Cow<'_, str>) -> bool {
    matches!(text, Cow::Owned(_)) && text.contains(char::REPLACEMENT_CHARACTER)
}

/// The level of an object in an event's `metadata`: the event is level 1.
pub const IN_METADATA: u32 = 3;

/// An event can hold no more levels than that.
fn require_level(level: u32) -> Result<(), Fault> {
    if level <= MAX_DEPTH {
        return Ok(());
    }
    Err(Fault::Refused(format!("an attribute makes the event nested deeper than {MAX_DEPTH}")))
}

/// Too many attributes.
pub fn too_many(most: usize) -> Fault {
    Fault::TooLong(format!("it has a list of more than {most} attributes (limits.event_bytes)"))
}

impl Json {
    /// Nothing yet, and never an object of more than that many members.
    pub fn new(most: usize) -> Json {
        Json { most, bytes: Vec::new(), slots: Slots::default(), open: None, is_mended: false }
    }

    /// Writes a text.
    pub fn text(&mut self, text: Cow<'_, str>) {
        self.is_mended |= is_mended(&text);
        write_string(&text, &mut self.bytes);
    }

    /// Forgets what was written.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.slots = Slots::default();
        self.open = None;
        self.is_mended = false;
    }

    /// Begins a field of an event: its value comes next.
    pub fn field(&mut self, field: EventField) {
        self.end_field();
        self.open = Some((field, self.bytes.len()));
    }

    /// Where the fields are. The last one is written.
    pub fn fields(&mut self) -> Slots {
        self.end_field();
        self.slots
    }

    fn end_field(&mut self) {
        if let Some((field, start)) = self.open.take() {
            self.slots[field as usize] = Some(Slot { start, end: self.bytes.len() });
        }
    }

    /// Writes a field that is a text, unless it is empty.
    pub fn field_unless_empty(&mut self, field: EventField, value: Cow<'_, str>) {
        if !value.is_empty() {
            self.field(field);
            self.text(value);
        }
    }

    /// Writes a name, behind a comma unless it is an object's first.
    pub fn key(&mut self, name: &str) {
        self.separate();
        write_string(name, &mut self.bytes);
        self.bytes.push(b':');
    }

    /// Writes JSON.
    pub fn raw(&mut self, json: &[u8]) {
        self.bytes.extend_from_slice(json);
    }

    /// Writes a comma behind what is there already.
    pub fn separate(&mut self) {
        if !matches!(self.bytes.last(), Some(b'{' | b'[')) {
            self.bytes.push(b',');
        }
    }

    /// Writes an `AnyValue`. Bytes become base64, numbers that are none strings, no value null. `level` says how deep in
    /// the event the value stands: directly in the event it is 1.
    pub fn any(&mut self, any: &[u8], level: u32) -> Result<(), Fault> {
        // The last of several wins.
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

    /// Writes an array, itself a level.
    fn array(&mut self, field: Field<'_>, level: u32) -> Result<(), Fault> {
        require_level(level)?;
        self.raw(b"[");
        let mut values = Fields::of(field.bytes()?);
        while let Some(any) = values.next_message(1)? {
            self.separate();
            self.any(any, level)?;
        }
        self.raw(b"]");
        Ok(())
    }

    /// Writes attributes as an object, itself a level.
    pub fn map<'a>(
        &mut self,
        attributes: impl Iterator<Item = Result<Attribute<'a>, DecodeError>>,
        level: u32,
    ) -> Result<(), Fault> {
        let mut found = Vec::new();
        for attribute in attributes {
            if found.len() == self.most {
                return Err(too_many(self.most));
            }
            found.push(attribute?);
        }
        self.object(found.iter().collect(), level)
    }

    /// Writes attributes as an object, itself a level, sorted by their names. Of several with one name the last wins.
    pub fn object(&mut self, mut attributes: Vec<&Attribute<'_>>, level: u32) -> Result<(), Fault> {
        require_level(level)?;
        // A stable sort: the last one stays the last.
        attributes.sort_by(|a, b| compare_keys(&a.key, &b.key));
        self.raw(b"{");
        for (index, attribute) in attributes.iter().enumerate() {
            if attributes.get(index + 1).is_some_and(|next| next.key == attribute.key) {
                continue;
            }
            self.is_mended |= is_mended(&attribute.key);
            self.key(&attribute.key);
            self.any(attribute.value, level)?;
        }
        self.raw(b"}");
        Ok(())
    }

    /// Writes bytes in hex as a string.
    pub fn hex(&mut self, bytes: &[u8]) {
        self.raw(b"\"");
        bytes.iter().for_each(|byte| self.raw(&hex_of(*byte)));
        self.raw(b"\"");
    }

    /// Writes a member that is a text.
    pub fn text_unless_empty(&mut self, name: &str, value: Cow<'_, str>) {
        if !value.is_empty() {
            self.key(name);
            self.text(value);
        }
    }

    /// Writes a member that is a number.
    pub fn number_unless_zero(&mut self, name: &str, value: u64) {
        if value != 0 {
            self.key(name);
            self.raw(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// Writes a member that is an id.
    pub fn hex_unless_zero(&mut self, name: &str, id: &[u8]) {
        if id.iter().any(|byte| *byte != 0) {
            self.key(name);
            self.hex(id);
        }
    }

    /// Writes a member that is an object.
    pub fn object_unless_empty(&mut self, name: &str, object: &Json) {
        if object.bytes != b"{}" {
            self.key(name);
            self.raw(&object.bytes);
        }
    }

    /// Writes a member that is ASCII and needs no escapes.
    pub fn plain(&mut self, name: &str, text: &[u8]) {
        self.key(name);
        self.quoted(text);
    }

    /// Writes a string that is ASCII and needs no escapes.
    pub fn quoted(&mut self, text: &[u8]) {
        self.raw(b"\"");
        self.raw(text);
        self.raw(b"\"");
    }

    /// Writes the attributes of a message that has them in field `number`, unless there are none. The object that they are
    /// is level `level`.
    pub fn attributes(&mut self, message: &[u8], number: u32, level: u32) -> Result<(), Fault> {
        let mut list = attributes(message, number).peekable();
        if list.peek().is_none() {
            return Ok(());
        }
        self.key("attributes");
        self.map(list, level)
    }
}

/// A name and a value, as it was sent.
#[derive(Debug, Clone)]
pub struct Attribute<'a> {
    /// Its name.
    pub key: Cow<'a, str>,
    /// An `AnyValue`.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// Reads a `KeyValue`.
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

    /// Its value, if that is a string that is not empty.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        any_text(self.value)
    }
}

/// The attributes of a message that has them in field `number`.
pub fn attributes<'a>(message: &'a [u8], number: u32) -> impl Iterator<Item = Result<Attribute<'a>, DecodeError>> {
    let mut fields = Fields::of(message);
    std::iter::from_fn(move || fields.next_message(number).transpose()).map(|message| message.and_then(Attribute::read))
}

/// Checks that an `AnyValue` is one, down to its last message. What is nested too deep is refused when it is written.
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

/// Checks the attributes of a message that has them in field `number`.
pub fn check_attributes(message: &[u8], number: u32, depth: u32) -> Result<(), DecodeError> {
    attributes(message, number).try_for_each(|attribute| check(attribute?.value, depth))
}

/// The text of an `AnyValue`, if it is a string that is not empty.
pub fn any_text(any: &[u8]) -> Option<Cow<'_, str>> {
    let field = Fields::of(any).last()?.ok()?;
    let bytes = field.bytes().ok().filter(|bytes| field.number() == 1 && !bytes.is_empty())?;
    Some(text(bytes))
}

/// A byte in hex.
pub fn hex_of(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}
