//! Reads attributes and their values in place: an attribute is a `KeyValue`, its value an encoded `AnyValue`.

use std::borrow::Cow;

use buffa::DecodeError;

use super::wire::{Field, Fields, text};

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
        Attribute::read_after(message, None).map(|(attribute, _)| attribute)
    }

    /// Decodes a `KeyValue`. Also returns whether its name is `last`, which is then not checked for UTF-8 again.
    pub fn read_after(message: &'a [u8], last: Option<&Cow<'a, str>>) -> Result<(Attribute<'a>, bool), DecodeError> {
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => name = field.bytes()?,
                2 => value = field.bytes()?,
                _ => {}
            }
        }
        Ok(match last {
            Some(last) if last.as_bytes() == name => (Attribute { key: last.clone(), value }, true),
            _ => (Attribute { key: text(name), value }, false),
        })
    }
}

/// Iterates over the attributes in field `number` of a message.
pub fn attributes<'a>(message: &'a [u8], number: u32) -> impl Iterator<Item = Result<Attribute<'a>, DecodeError>> {
    let mut fields = Fields::of(message);
    std::iter::from_fn(move || fields.next_message(number).transpose()).map(|message| message.and_then(Attribute::read))
}

/// The text of an encoded `AnyValue`, if it is a non-empty string.
pub fn any_text(any: &[u8]) -> Option<Cow<'_, str>> {
    let bytes = match short_string(any) {
        Some(bytes) => bytes,
        None => last_value(any).filter(|field| field.number() == 1)?.bytes().ok()?,
    };
    (!bytes.is_empty()).then(|| text(bytes))
}

/// The bytes of an `AnyValue` that is one string of less than 128 bytes, as nearly all names and kinds are. Their tests
/// are a part of the CPU time of every span.
#[inline]
pub fn short_string(any: &[u8]) -> Option<&[u8]> {
    match any {
        [0x0a, len, bytes @ ..] if *len < 0x80 && bytes.len() == usize::from(*len) => Some(bytes),
        _ => None,
    }
}

/// The last of the values in an `AnyValue`, which applies; `None` if there is none, or it is malformed.
pub fn last_value(any: &[u8]) -> Option<Field<'_>> {
    Fields::of(any).last()?.ok()
}

/// Whether an encoded `AnyValue` is neither null nor an empty string.
pub fn is_present(any: &[u8]) -> bool {
    if let Some(bytes) = short_string(any) {
        return !bytes.is_empty();
    }
    last_value(any).is_some_and(|field| !field.is_empty_string())
}

/// Whether an encoded `AnyValue` is a string, a boolean or a number.
pub fn is_scalar(any: &[u8]) -> bool {
    last_value(any).is_some_and(|field| (1..=4).contains(&field.number()))
}

/// Whether an encoded `AnyValue` is a map without members.
pub fn is_empty_map(any: &[u8]) -> bool {
    last_value(any).is_some_and(|field| field.number() == 6 && field.bytes().is_ok_and(<[u8]>::is_empty))
}
