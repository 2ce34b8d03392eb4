//! Reads Protocol Buffers in place: iterates over the fields of a message without copying.
//!
//! A message is never decoded as a whole. Two bytes can encode a list entry that takes a hundred bytes decoded, so a
//! sender would control how much memory a decoded request takes. Read in place, a request takes no more than its own
//! length.

use std::borrow::Cow;

use buffa::DecodeError;
use buffa::encoding::{Tag, WireType, decode_varint, skip_field, wire_type_mismatch};
use buffa::types::{borrow_bytes, decode_fixed32, decode_fixed64};

/// One field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    tag: Tag,
    value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Its field number in the schema.
    pub fn number(&self) -> u32 {
        self.tag.field_number()
    }

    /// Whether this field of an `AnyValue` is an empty string.
    pub fn is_empty_string(&self) -> bool {
        self.number() == 1 && self.bytes().is_ok_and(<[u8]>::is_empty)
    }

    /// The value of a message, a string or bytes.
    pub fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Integer(_) => Err(wire_type_mismatch(self.tag, WireType::LengthDelimited)),
        }
    }

    /// The value of a string. Some senders send strings that are not UTF-8, see [`text`].
    pub fn text(&self) -> Result<Cow<'a, str>, DecodeError> {
        self.bytes().map(text)
    }

    /// The value of an integer, a boolean or an enum.
    pub fn varint(&self) -> Result<u64, DecodeError> {
        self.integer(WireType::Varint)
    }

    /// The value of a `fixed64`, or the bits of a `double`.
    pub fn fixed64(&self) -> Result<u64, DecodeError> {
        self.integer(WireType::Fixed64)
    }

    /// The value of a `fixed32`.
    pub fn fixed32(&self) -> Result<u64, DecodeError> {
        self.integer(WireType::Fixed32)
    }

    fn integer(&self, wire_type: WireType) -> Result<u64, DecodeError> {
        match self.value {
            Value::Integer(value) if self.tag.wire_type() == wire_type => Ok(value),
            _ => Err(wire_type_mismatch(self.tag, wire_type)),
        }
    }
}

/// Iterator over the fields of a message. It ends after the first error.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of an encoded message.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// The next field with this number, which must be a message.
    pub fn next_message(&mut self, number: u32) -> Result<Option<&'a [u8]>, DecodeError> {
        self.find(|field| !matches!(field, Ok(field) if field.number() != number))
            .map(|field| field?.bytes())
            .transpose()
    }

    /// Reads a length-delimited field with a tag and a length of one byte each, which most fields are. `None` for all
    /// others.
    #[inline(always)]
    fn short_field(&mut self) -> Option<Field<'a>> {
        const LENGTH_DELIMITED: u8 = WireType::LengthDelimited as u8;
        let [tag, length, rest @ ..] = self.rest else { return None };
        if *tag & 0x87 != LENGTH_DELIMITED || *tag < 8 || *length >= 0x80 {
            return None;
        }
        let (bytes, rest) = rest.split_at_checked(usize::from(*length))?;
        self.rest = rest;
        Some(Field { tag: Tag::new(u32::from(tag >> 3), WireType::LengthDelimited), value: Value::Bytes(bytes) })
    }

    /// Reads a field of any kind; `None` at the end of the message.
    #[inline(never)]
    fn any_field(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        while !self.rest.is_empty() {
            let rest = &mut self.rest;
            let tag = Tag::decode(rest)?;
            let value = match tag.wire_type() {
                WireType::Varint => Value::Integer(decode_varint(rest)?),
                WireType::Fixed64 => Value::Integer(decode_fixed64(rest)?),
                WireType::Fixed32 => Value::Integer(u64::from(decode_fixed32(rest)?)),
                WireType::LengthDelimited => Value::Bytes(borrow_bytes(rest)?),
                // A group. No OTLP message contains one.
                _ => {
                    skip_field(tag, rest)?;
                    continue;
                }
            };
            return Ok(Some(Field { tag, value }));
        }
        Ok(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some(field) = self.short_field() {
            return Some(Ok(field));
        }
        let field = self.any_field();
        if field.is_err() {
            self.rest = &[];
        }
        field.transpose()
    }
}

/// Converts bytes to text. Invalid UTF-8 is replaced by U+FFFD; an encoded lone surrogate is replaced by a single one.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    const SURROGATE: u8 = 0xED;
    if let Ok(text) = std::str::from_utf8(bytes) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 8);
    let mut rest = bytes;
    while let Some(chunk) = rest.utf8_chunks().next() {
        text.push_str(chunk.valid());
        let mut used = chunk.valid().len() + chunk.invalid().len();
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
            // The three bytes that UTF-8 would use if it allowed surrogates.
            let is_surrogate =
                matches!(rest[used - chunk.invalid().len()..], [SURROGATE, 0xA0..=0xBF, 0x80..=0xBF, ..]);
            used += if is_surrogate { 2 } else { 0 };
        }
        rest = &rest[used..];
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_utf_8_is_replaced() {
        for (bytes, expected) in [
            (&b"plain"[..], "plain"),
            (b"a\xED\xA0\x80b", "a\u{FFFD}b"),
            (b"\xED\xA0\x80\xED\xB0\x80", "\u{FFFD}\u{FFFD}"),
            (b"\xED\xA0", "\u{FFFD}\u{FFFD}"),
            (b"a\xFFb\xC3", "a\u{FFFD}b\u{FFFD}"),
            ("\u{D7FF}\u{10FFFF}".as_bytes(), "\u{D7FF}\u{10FFFF}"),
        ] {
            let text = text(bytes);
            assert_eq!(text, expected);
            assert_eq!(matches!(text, Cow::Owned(_)), std::str::from_utf8(bytes).is_err());
        }
    }

    #[test]
    fn fields_are_found_whatever_is_encoded_between_them() {
        // 1: varint 150; 9: a group with a field in it; 2: "hi"; 3: fixed64; 4: fixed32.
        let message = b"\x08\x96\x01\x4B\x08\x01\x4C\x12\x02hi\x19\x01\0\0\0\0\0\0\0\x25\x02\0\0\0";
        let fields: Vec<_> = Fields::of(message).collect::<Result<_, _>>().unwrap();
        assert_eq!(fields.iter().map(Field::number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert_eq!(fields[0].varint(), Ok(150));
        assert_eq!(fields[1].bytes(), Ok(&b"hi"[..]));
        assert_eq!((fields[2].fixed64(), fields[3].fixed32()), (Ok(1), Ok(2)));
        assert!(fields[0].bytes().is_err() && fields[1].varint().is_err() && fields[2].varint().is_err());
        assert_eq!(Fields::of(message).next_message(2), Ok(Some(&b"hi"[..])));
        assert_eq!(Fields::of(message).next_message(5), Ok(None));
        for cut in [1, 2, 4, 8, 9, 10, 12, 23] {
            assert!(Fields::of(&message[..cut]).any(|field| field.is_err()), "cut at {cut}");
        }
    }
}
