//! Protocol Buffers, read in place: the fields of a message one after the other, nothing copied.
//!
//! A message is never decoded as a whole. Two bytes of it can stand for a list entry of a hundred, so what a decoded
//! request takes is up to its sender; this way a request takes its own length.

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
    /// Its number in the schema.
    pub fn number(&self) -> u32 {
        self.tag.field_number()
    }

    /// Whether it is a text of no length, in an `AnyValue`.
    pub fn is_empty_text(&self) -> bool {
        self.number() == 1 && self.bytes().is_ok_and(<[u8]>::is_empty)
    }

    /// A message, a string or bytes.
    pub fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            Value::Integer(_) => Err(wire_type_mismatch(self.tag, WireType::LengthDelimited)),
        }
    }

    /// A string. Some senders put into it what is no UTF-8.
    pub fn text(&self) -> Result<Cow<'a, str>, DecodeError> {
        self.bytes().map(text)
    }

    /// An integer, a boolean or an enum.
    pub fn varint(&self) -> Result<u64, DecodeError> {
        self.integer(WireType::Varint)
    }

    /// A `fixed64`, or the bits of a `double`.
    pub fn fixed64(&self) -> Result<u64, DecodeError> {
        self.integer(WireType::Fixed64)
    }

    /// A `fixed32`.
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

/// The fields of a message. After an error there are no more.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Those of the message that these bytes are.
    pub fn of(message: &'a [u8]) -> Fields<'a> {
        Fields { rest: message }
    }

    /// The next field with this number, which has to be a message.
    pub fn next_message(&mut self, number: u32) -> Result<Option<&'a [u8]>, DecodeError> {
        self.find(|field| !matches!(field, Ok(field) if field.number() != number))
            .map(|field| field?.bytes())
            .transpose()
    }

    /// Most fields are short strings and messages of few numbers: a byte for the tag, and one for the length.
    #[inline(always)]
    fn short(&mut self) -> Option<Field<'a>> {
        const LENGTH_DELIMITED: u8 = WireType::LengthDelimited as u8;
        let [tag, length, rest @ ..] = self.rest else { return None };
        if *tag & 0x87 != LENGTH_DELIMITED || *tag < 8 || *length >= 0x80 {
            return None;
        }
        let (bytes, behind) = rest.split_at_checked(usize::from(*length))?;
        self.rest = behind;
        Some(Field { tag: Tag::new(u32::from(tag >> 3), WireType::LengthDelimited), value: Value::Bytes(bytes) })
    }

    #[inline(never)]
    fn field(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        while !self.rest.is_empty() {
            let rest = &mut self.rest;
            let tag = Tag::decode(rest)?;
            let value = match tag.wire_type() {
                WireType::Varint => Value::Integer(decode_varint(rest)?),
                WireType::Fixed64 => Value::Integer(decode_fixed64(rest)?),
                WireType::Fixed32 => Value::Integer(u64::from(decode_fixed32(rest)?)),
                WireType::LengthDelimited => Value::Bytes(borrow_bytes(rest)?),
                // A group, which no OTLP message has.
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
        if let Some(field) = self.short() {
            return Some(Ok(field));
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        field.transpose()
    }
}

/// The text that these bytes are; what is no UTF-8 becomes U+FFFD, a lone surrogate one of them.
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
            // Three bytes, as UTF-8 would have them if it allowed surrogates.
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
    fn what_is_no_utf_8_is_replaced() {
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
    fn fields_are_found_whatever_stands_between_them() {
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
