//! The value that a source of the mapping has in a record.

use std::borrow::Cow;

use super::any_value::{any_text, is_empty_map, is_present};
use super::value::{json_of, scalar_text};
use cairn_proof::chain::{canonicalize, scan};

/// The value of a source.
#[derive(Debug)]
pub enum Found<'a> {
    /// An encoded `AnyValue`.
    Any(&'a [u8]),
    /// Encoded `AnyValue`s of several span events.
    Several(Vec<&'a [u8]>),
    /// A text.
    Text(Cow<'a, str>),
    /// Canonical JSON.
    Json(Vec<u8>),
    /// The source has no value, but exists.
    Exists,
}

impl<'a> Found<'a> {
    /// The value as a text, if it is a scalar.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        match self {
            Found::Any(any) => scalar_text(any),
            Found::Several(list) => list.iter().rev().find_map(|any| scalar_text(any)),
            Found::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Found::Json(json) if matches!(json.first(), Some(b'{' | b'[')) => None,
            Found::Json(json) => scan::text_or_literal(json).map(|text| Cow::Owned(text.into_owned())),
            Found::Exists => None,
        }
    }

    /// The text of an error: that of a scalar, the member `message` of an object, otherwise the value as JSON.
    pub fn error_text(&self) -> Option<Cow<'a, str>> {
        self.text().or_else(|| {
            let json = match self {
                Found::Any(any) => json_of(any)?,
                Found::Json(json) => json.clone(),
                _ => return None,
            };
            let message = scan::member(&json, "message").and_then(scan::text).filter(|text| !text.is_empty());
            let message = message.map(Cow::into_owned);
            message.or_else(|| String::from_utf8(json).ok()).map(Cow::Owned)
        })
    }

    /// Whether there is a value: not null, and not an empty string.
    pub fn is_present(&self) -> bool {
        match self {
            Found::Any(any) => is_present(any),
            Found::Several(list) => !list.is_empty(),
            Found::Text(text) => !text.is_empty(),
            Found::Json(json) => json != b"null",
            Found::Exists => true,
        }
    }

    /// Whether the value is an object without members, or its JSON text.
    pub fn is_empty_object(&self) -> bool {
        match self {
            Found::Any(any) => any_text(any).map_or_else(|| is_empty_map(any), |text| text.trim() == "{}"),
            Found::Json(json) => json == b"{}",
            _ => false,
        }
    }

    /// The string that a text contains as JSON; the value itself if it contains anything else.
    pub fn decoded(self) -> Found<'a> {
        let text = self.text().filter(|text| text.starts_with('"'));
        let json = text.and_then(|text| canonicalize(&text).ok());
        match json.as_deref().and_then(scan::text) {
            Some(text) => Found::Text(Cow::Owned(text.into_owned())),
            None => self,
        }
    }
}
