//! The events and links of a span.

use std::borrow::Cow;

use buffa::DecodeError;

use super::value::{Fault, Json, METADATA_MEMBER_LEVEL};
use super::wire::Fields;
use cairn_proof::chain::time;

/// The nesting level of the `attributes` of an element of a list in `metadata`.
const ELEMENT_ATTRIBUTES_LEVEL: u32 = METADATA_MEMBER_LEVEL + 2;

/// Writes messages as an array of objects, unless there are none.
pub fn write_list(
    json: &mut Json,
    name: &str,
    messages: &[&[u8]],
    write: impl Fn(&mut Json, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if messages.is_empty() {
        return Ok(());
    }
    json.key(name);
    json.raw(b"[");
    for message in messages {
        json.separate();
        json.raw(b"{");
        write(json, message)?;
        json.raw(b"}");
    }
    json.raw(b"]");
    Ok(())
}

/// A `Span.Event` without its attributes.
#[derive(Default)]
pub struct Event<'a> {
    time_ns: u64,
    name: Cow<'a, str>,
    dropped: u64,
}

impl<'a> Event<'a> {
    /// The number of the field with its attributes.
    pub const ATTRIBUTES: u32 = 3;

    /// Decodes a `Span.Event`.
    pub fn read(message: &'a [u8]) -> Result<Event<'a>, DecodeError> {
        let mut event = Event::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => event.time_ns = field.fixed64()?,
                2 => event.name = field.text()?,
                4 => event.dropped = field.varint()?,
                _ => {}
            }
        }
        Ok(event)
    }

    /// Writes the members of its JSON object, in the order of their names.
    pub fn write(json: &mut Json, message: &[u8]) -> Result<(), Fault> {
        let event = Event::read(message)?;
        json.attributes(message, Event::ATTRIBUTES, ELEMENT_ATTRIBUTES_LEVEL)?;
        json.number_unless_zero("dropped_attributes_count", event.dropped);
        json.text_unless_empty("name", event.name);
        if event.time_ns != 0 {
            json.plain("timestamp", &time::format_ns(event.time_ns));
        }
        Ok(())
    }
}

/// A `Span.Link` without its attributes.
#[derive(Default)]
pub struct Link<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    trace_state: Cow<'a, str>,
    dropped: u64,
    flags: u64,
}

impl<'a> Link<'a> {
    /// The number of the field with its attributes.
    pub const ATTRIBUTES: u32 = 4;

    /// Decodes a `Span.Link`.
    pub fn read(message: &'a [u8]) -> Result<Link<'a>, DecodeError> {
        let mut link = Link::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => link.trace_id = field.bytes()?,
                2 => link.span_id = field.bytes()?,
                3 => link.trace_state = field.text()?,
                5 => link.dropped = field.varint()?,
                6 => link.flags = field.fixed32()?,
                _ => {}
            }
        }
        Ok(link)
    }

    /// Writes the members of its JSON object, in the order of their names.
    pub fn write(json: &mut Json, message: &[u8]) -> Result<(), Fault> {
        let link = Link::read(message)?;
        json.attributes(message, Link::ATTRIBUTES, ELEMENT_ATTRIBUTES_LEVEL)?;
        json.number_unless_zero("dropped_attributes_count", link.dropped);
        json.number_unless_zero("flags", link.flags);
        json.hex_unless_zero("span_id", link.span_id);
        json.hex_unless_zero("trace_id", link.trace_id);
        json.text_unless_empty("trace_state", link.trace_state);
        Ok(())
    }
}
