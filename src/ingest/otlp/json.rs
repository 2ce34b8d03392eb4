//! Converts OTLP JSON to OTLP protobuf, so that the rest of the module handles one encoding.
//!
//! OTLP JSON is ProtoJSON with a few differences (OTLP specification, section "JSON Protobuf Encoding"): ids are in
//! hex, enums are integers. Variants that senders use are accepted as well: 64-bit integers as strings or numbers,
//! names in camel case or snake case, enums by name, null for absent fields. Fields that are not in the schema are
//! ignored.

use std::fmt;

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine, alphabet};
use buffa::types::{
    put_bool_field, put_double_field, put_fixed32_field, put_fixed64_field, put_int64_field, put_len_delimited_header,
    put_uint32_field,
};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::ids::TEXT_MARK;
use super::request::Signal;
use super::schema::{ANY_VALUE, Kind, LOG_RECORD, LOGS, Message, RESOURCE, SCOPE, SPAN, TRACES};
use cairn_proof::chain::json::MAX_DEPTH;

/// The maximum nesting depth of messages. Each level of an attribute value takes three messages.
const MAX_MESSAGE_DEPTH: u32 = 3 * MAX_DEPTH + 16;

/// 2^53. A double below it represents exactly one integer.
const EXACT_INTEGER_LIMIT: f64 = 9_007_199_254_740_992.0;

/// Converts a request as a whole. Also returns whether it has the field that contains the items.
///
/// # Errors
/// When the text is not JSON, or not a request of this signal. The error contains the position.
pub fn convert_request(signal: Signal, text: &[u8]) -> Result<(Vec<u8>, bool), serde_json::Error> {
    let message: &'static Message = match signal {
        Signal::Traces => &TRACES,
        Signal::Logs => &LOGS,
    };
    convert_message(message, text)
}

/// Converts a span or log record.
///
/// # Errors
/// When it is not JSON, or has a value of another type.
pub fn convert_item(signal: Signal, text: &[u8]) -> Result<(), serde_json::Error> {
    let message: &'static Message = match signal {
        Signal::Traces => &SPAN,
        Signal::Logs => &LOG_RECORD,
    };
    convert_message(message, text).map(drop)
}

/// Converts a resource or a scope.
///
/// # Errors
/// When it is not JSON, or has a value of another type.
pub fn convert_shared(is_resource: bool, text: &[u8]) -> Result<(), serde_json::Error> {
    let message: &'static Message = if is_resource { &RESOURCE } else { &SCOPE };
    convert_message(message, text).map(drop)
}

fn convert_message(message: &'static Message, text: &[u8]) -> Result<(Vec<u8>, bool), serde_json::Error> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut reader = serde_json::Deserializer::from_slice(text);
    // The limit of serde_json is lower than that of an event. MAX_MESSAGE_DEPTH replaces it.
    reader.disable_recursion_limit();
    let has_known_field = MessageSeed { message, out: &mut out, depth: 0 }.deserialize(&mut reader)?;
    reader.end()?;
    Ok((out, has_known_field))
}

/// Converts a message. Its value is whether the message has any field of the schema.
struct MessageSeed<'o> {
    message: &'static Message,
    out: &'o mut Vec<u8>,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<bool, D::Error> {
        if self.depth > MAX_MESSAGE_DEPTH {
            return Err(D::Error::custom("nested too deeply"));
        }
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Self { message, out, depth } = self;
        let (mut has_known_field, mut has_unknown_field) = (false, false);
        while let Some(field) = map.next_key_seed(FieldNameSeed(message))? {
            match field {
                Some((number, kind)) => {
                    map.next_value_seed(FieldValueSeed { number, kind, out, depth })?;
                    has_known_field = true;
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                    has_unknown_field = true;
                }
            }
        }
        // A value must not disappear because no rule knows its form.
        if has_unknown_field && !has_known_field && std::ptr::eq(message.as_ptr(), ANY_VALUE.as_ptr()) {
            return Err(A::Error::custom("a value in a form that OTLP does not have"));
        }
        Ok(has_known_field)
    }
}

/// Looks up the name of a field in the schema of a message.
struct FieldNameSeed(&'static Message);

impl<'de> DeserializeSeed<'de> for FieldNameSeed {
    type Value = Option<(u32, Kind)>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_identifier(self)
    }
}

impl Visitor<'_> for FieldNameSeed {
    type Value = Option<(u32, Kind)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        // Equates `trace_id` and `traceId`.
        let normalize =
            |name: &str| name.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect();
        let exact = self.0.iter().find(|(field, ..)| *field == name);
        let found = exact.or_else(|| {
            let name: Vec<u8> = normalize(name);
            self.0.iter().find(|(field, ..)| normalize(field) == name)
        });
        Ok(found.map(|(_, number, kind)| (*number, *kind)))
    }
}

/// Converts the value of a field.
struct FieldValueSeed<'o> {
    number: u32,
    kind: Kind,
    out: &'o mut Vec<u8>,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for FieldValueSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match self.kind {
            // Read as bytes: text that is not Unicode is passed on unchanged, and replaced where it is read.
            Kind::Text | Kind::Hex | Kind::Base64 => reader.deserialize_option(self),
            _ => reader.deserialize_any(self),
        }
    }
}

impl FieldValueSeed<'_> {
    fn bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        put_len_delimited_header(self.number, bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        let invalid = || E::custom(format!("expected {}, found {value}", self.kind.expected()));
        match self.kind {
            Kind::Double => put_double_field(self.number, value as f64, self.out),
            Kind::Fixed64 => put_fixed64_field(self.number, u64::try_from(value).map_err(|_| invalid())?, self.out),
            Kind::Fixed32 => put_fixed32_field(self.number, u32::try_from(value).map_err(|_| invalid())?, self.out),
            Kind::Count | Kind::Enum(_) => {
                put_uint32_field(self.number, u32::try_from(value).map_err(|_| invalid())?, self.out);
            }
            Kind::Integer { or_double } => match i64::try_from(value) {
                Ok(value) => put_int64_field(self.number, value, self.out),
                // The JavaScript exporter writes every whole number as an integer.
                Err(_) => put_double_field(or_double, value as f64, self.out),
            },
            _ => return Err(invalid()),
        }
        Ok(())
    }

    /// The error for a value of another type. It contains only the beginning of the value.
    fn unexpected<E: Error>(&self, found: impl fmt::Display) -> E {
        const SHOWN_CHARS: usize = 60;
        let found = found.to_string();
        let shown: String = found.chars().take(SHOWN_CHARS).collect();
        let more = if shown.len() < found.len() { "..." } else { "" };
        E::custom(format!("expected {}, found {shown}{more}", self.kind.expected()))
    }
}

impl<'de> Visitor<'de> for FieldValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.expected())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_bytes(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.kind {
            Kind::Bool => put_bool_field(self.number, value, self.out),
            _ => return Err(self.unexpected(value)),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.kind {
            Kind::Double => put_double_field(self.number, value, self.out),
            Kind::Integer { or_double } if value.abs() >= EXACT_INTEGER_LIMIT => {
                put_double_field(or_double, value, self.out);
            }
            // JavaScript writes large integers as 1.7e18, and ProtoJSON allows 5.0 for any integer.
            Kind::Integer { .. } | Kind::Fixed64 | Kind::Fixed32 | Kind::Count | Kind::Enum(_)
                if value.fract() == 0.0 && value.abs() < 2f64.powi(64) =>
            {
                return self.integer(value as i128);
            }
            _ => return Err(self.unexpected(value)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind {
            Kind::Integer { .. } | Kind::Fixed64 | Kind::Fixed32 | Kind::Count => match text.parse() {
                Ok(value) => self.integer(value),
                // ProtoJSON also allows an exponent in a string.
                Err(_) => match text.parse::<f64>() {
                    Ok(value) if value.fract() == 0.0 && value.abs() < EXACT_INTEGER_LIMIT => {
                        self.integer(value as i128)
                    }
                    _ => Err(self.unexpected(text)),
                },
            },
            // Rust parses the names that ProtoJSON uses, in any letter case: NaN, Infinity, -Infinity.
            Kind::Double => match text.parse() {
                Ok(value) => {
                    put_double_field(self.number, value, self.out);
                    Ok(())
                }
                Err(_) => Err(self.unexpected(text)),
            },
            Kind::Enum(names) => match names.iter().position(|name| *name == text) {
                Some(value) => self.integer(value as i128),
                None => Err(self.unexpected(text)),
            },
            _ => Err(self.unexpected(text)),
        }
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<(), E> {
        match self.kind {
            Kind::Text => self.bytes(bytes),
            Kind::Hex => match cairn_proof::hex::parse_mixed(bytes) {
                Some(id) if matches!(id.len(), 8 | 16) => self.bytes(&id),
                _ if bytes.is_empty() => self.bytes(bytes),
                // Marked as a text, because it may have the length of an id.
                _ => self.bytes(&[&[TEXT_MARK], bytes].concat()),
            },
            _ => match from_base64(bytes) {
                Some(bytes) => self.bytes(&bytes),
                None => Err(self.unexpected(String::from_utf8_lossy(&bytes[..bytes.len().min(256)]))),
            },
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Self { number, kind, out, depth } = self;
        let message = match kind {
            Kind::Message(message) => message,
            // An encoding of Go's structs: the fields of the value are in an object of their own.
            Kind::Inline => return MessageSeed { message: &ANY_VALUE, out, depth }.visit_map(map).map(drop),
            _ => return Err(FieldValueSeed { number, kind, out, depth }.unexpected("an object")),
        };
        if depth >= MAX_MESSAGE_DEPTH {
            return Err(A::Error::custom("nested too deeply"));
        }
        write_message(number, out, |out| MessageSeed { message, out, depth: depth + 1 }.visit_map(map).map(drop))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Self { number, kind, out, depth } = self;
        let Kind::List(message) = kind else {
            return Err(FieldValueSeed { number, kind, out, depth }.unexpected("an array"));
        };
        while seq.next_element_seed(FieldValueSeed { number, kind: Kind::Message(message), out, depth })?.is_some() {}
        Ok(())
    }
}

/// Writes a message field: tag, length, and what `write` appends.
fn write_message<E>(
    number: u32,
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    const LENGTH: usize = 5;
    put_len_delimited_header(number, 0, out);
    let start = out.len() - 1;
    out.resize(start + LENGTH, 0);
    write(out)?;
    let length = out.len() - start - LENGTH;
    if length < 0x80 {
        out.copy_within(start + LENGTH.., start + 1);
        out.truncate(start + 1 + length);
        out[start] = length as u8;
    } else {
        // Protobuf allows a varint that is longer than necessary.
        for (index, byte) in out[start..start + LENGTH].iter_mut().enumerate() {
            let more = if index + 1 < LENGTH { 0x80 } else { 0 };
            *byte = (length >> (7 * index)) as u8 & 0x7F | more;
        }
    }
    Ok(())
}

/// Decodes base64 in either alphabet, with or without padding.
fn from_base64(text: &[u8]) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&alphabet::STANDARD, config);
    let standard = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => *other,
    };
    engine.decode(text.iter().map(standard).collect::<Vec<u8>>()).ok()
}
