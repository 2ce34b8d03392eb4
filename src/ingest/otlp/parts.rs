//! What a span can have any number of beside its attributes: events and links.

use std::borrow::Cow;

use buffa::DecodeError;

use super::value::{Fault, IN_METADATA, Json};
use super::wire::Fields;
use cairn_proof::chain::time;

/// The level of an object in an object in a list in `metadata`.
const IN_A_LIST: u32 = IN_METADATA + 2;

/// Writes messages as a list, each as an object.
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

/// What a `Span.Event` has beside its attributes.
#[derive(Default)]
pub struct Event<'a> {
    at: u64,
    name: Cow<'a, str>,
    dropped: u64,
}

impl<'a> Event<'a> {
    /// The field that its attributes are in.
    pub const ATTRIBUTES: u32 = 3;

    /// Reads it.
    pub fn read(message: &'a [u8]) -> Result<Event<'a>, DecodeError> {
        let mut event = Event::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => event.at = field.fixed64()?,
                2 => event.name = field.text()?,
                4 => event.dropped = field.varint()?,
                _ => {}
            }
        }
        Ok(event)
    }

    /// Writes its members.
    pub fn write(json: &mut Json, message: &[u8]) -> Result<(), Fault> {
        let event = Event::read(message)?;
        json.attributes(message, Event::ATTRIBUTES, IN_A_LIST)?;
        json.number_unless_zero("dropped_attributes_count", event.dropped);
        json.text_unless_empty("name", event.name);
        if event.at != 0 {
            json.plain("timestamp", &time::format_ns(event.at));
        }
        Ok(())
    }
}

/// What a `Span.Link` has beside its attributes.
#[derive(Default)]
pub struct Link<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    trace_state: Cow<'a, str>,
    dropped: u64,
    flags: u64,
}

impl<'a> Link<'a> {
    /// The field that its attributes are in.
    pub const ATTRIBUTES: u32 = 4;

    /// Reads it.
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

    /// Writes its members.
    pub fn write(json: &mut Json, message: &[u8]) -> Result<(), Fault> {
        let link = Link::read(message)?;
        json.attributes(message, Link::ATTRIBUTES, IN_A_LIST)?;
        json.number_unless_zero("dropped_attributes_count", link.dropped);
        json.number_unless_zero("flags", link.flags);
        json.hex_unless_zero("span_id", link.span_id);
        json.hex_unless_zero("trace_id", link.trace_id);
        json.text_unless_empty("trace_state", link.trace_state);
        Ok(())
    }
}
