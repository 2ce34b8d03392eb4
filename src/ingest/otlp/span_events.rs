//! The events and links of a span.

use std::borrow::Cow;

use buffa::DecodeError;

use super::any_value::{Attribute, attributes};
use super::ids::{SpanId, TraceId};
use super::value::{Fault, Json, METADATA_MEMBER_LEVEL};
use super::wire::{Field, Fields};
use cairn_proof::chain::time;

/// The nesting level of the `attributes` of an element of a list in `metadata`.
const ELEMENT_ATTRIBUTES_LEVEL: u32 = METADATA_MEMBER_LEVEL + 2;

/// Writes messages as an array of objects, unless there are none. `write` gets the index of the message, too.
pub fn write_list(
    json: &mut Json,
    name: &str,
    messages: &[&[u8]],
    write: impl Fn(&mut Json, usize, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    if messages.is_empty() {
        return Ok(());
    }
    json.key(name);
    json.raw(b"[");
    for (index, message) in messages.iter().enumerate() {
        json.separate();
        json.raw(b"{");
        write(json, index, message)?;
        json.raw(b"}");
    }
    json.raw(b"]");
    Ok(())
}

/// Whether a `Span.Event` has this name.
pub fn is_named(event: &[u8], name: &str) -> bool {
    let is_name = |field: Field<'_>| field.number() == 2 && field.bytes().is_ok_and(|found| found == name.as_bytes());
    Fields::of(event).any(|field| field.is_ok_and(is_name))
}

/// A `Span.Event` without its attributes.
#[derive(Default)]
pub struct Event<'a> {
    time_ns: u64,
    /// The name.
    pub name: Cow<'a, str>,
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

    /// Writes the members of its JSON object, in the order of their names, without the attributes for which `is_used`
    /// is true.
    pub fn write(json: &mut Json, message: &[u8], is_used: impl Fn(&str) -> bool) -> Result<(), Fault> {
        let event = Event::read(message)?;
        let is_left = |attribute: &Result<Attribute<'_>, DecodeError>| {
            attribute.as_ref().map_or(true, |attribute| !is_used(&attribute.key))
        };
        json.attributes(attributes(message, Event::ATTRIBUTES).filter(is_left), ELEMENT_ATTRIBUTES_LEVEL)?;
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
    /// The trace id.
    pub trace_id: &'a [u8],
    /// The span id.
    pub span_id: &'a [u8],
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
        json.attributes(attributes(message, Link::ATTRIBUTES), ELEMENT_ATTRIBUTES_LEVEL)?;
        json.number_unless_zero("dropped_attributes_count", link.dropped);
        json.number_unless_zero("flags", link.flags);
        json.id_unless_missing("span_id", SpanId::of(link.span_id));
        json.id_unless_missing("trace_id", TraceId::of(link.trace_id));
        json.text_unless_empty("trace_state", link.trace_state);
        Ok(())
    }
}
