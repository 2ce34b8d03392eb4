//! Content that is spread over several attributes or span events, assembled to one value.

use std::borrow::Cow;

use super::any_value::{Attribute, any_text, attributes, is_present};
use super::attributes::Attributes;
use super::found::Found;
use super::span_events::{Event, is_named};
use super::value::{Json, json_of};
use super::wire::Fields;
use cairn_proof::chain::json::ParserScratch;
use cairn_proof::chain::string::compare_keys;
use cairn_proof::chain::{canonicalize, scan};

/// The maximum number of members of an assembled object.
const MAX_MEMBERS: usize = 1 << 16;
/// The nesting level of the objects in an assembled list: the event is level 1, the list level 2.
const ELEMENT_LEVEL: u32 = 3;

/// The attributes `PREFIX.N.NAME` as a list of objects, in the order of `N`, and their indices. `prefix` ends with a
/// dot.
pub fn indexed(attributes: &Attributes<'_>, prefix: &str) -> Option<(Vec<u8>, Vec<usize>)> {
    let mut found: Vec<(u32, Attribute<'_>, usize)> = attributes
        .iter()
        .filter_map(|(index, attribute)| {
            let (number, name) = attribute.key.strip_prefix(prefix)?.split_once('.')?;
            let name = Cow::Owned(name.to_owned());
            Some((number.parse().ok()?, Attribute { key: name, value: attribute.value }, index))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    // The sort is stable, so of several attributes with the same name the last one stays the last.
    found.sort_by_key(|(number, ..)| *number);
    let mut json = Json::new(MAX_MEMBERS);
    json.raw(b"[");
    for element in found.chunk_by(|(a, ..), (b, ..)| a == b) {
        json.separate();
        json.object(element.iter().map(|(_, attribute, _)| attribute).collect(), ELEMENT_LEVEL).ok()?;
    }
    json.raw(b"]");
    Some((json.bytes, found.into_iter().map(|(.., index)| index).collect()))
}

/// The span events with one of these names as a list of objects with their attributes, and their indices. The event
/// `gen_ai.user.message` gets the role `user` if it has none.
pub fn event_messages(events: &[&[u8]], names: &[&str]) -> Option<(Vec<u8>, Vec<usize>)> {
    let is_message = |event: &[u8]| names.iter().any(|name| is_named(event, name));
    let messages: Vec<_> = events.iter().enumerate().filter(|(_, event)| is_message(event)).collect();
    if messages.is_empty() {
        return None;
    }
    let (mut json, mut scratch) = (Json::new(MAX_MEMBERS), ParserScratch::default());
    json.raw(b"[");
    for (_, event) in &messages {
        json.separate();
        write_message(&mut json, event, &mut scratch)?;
    }
    json.raw(b"]");
    Some((json.bytes, messages.into_iter().map(|(index, _)| index).collect()))
}

/// The values of an attribute of the span events with a name, and the indices of those events.
pub fn event_attributes<'a>(events: &[&'a [u8]], event: &str, name: &str) -> Option<(Vec<&'a [u8]>, Vec<usize>)> {
    let (mut values, mut indices) = (Vec::new(), Vec::new());
    for (index, message) in events.iter().enumerate().filter(|(_, message)| is_named(message, event)) {
        let named = attributes(message, Event::ATTRIBUTES).filter_map(Result::ok).filter(|found| found.key == name);
        if let Some(attribute) = named.last().filter(|attribute| is_present(attribute.value)) {
            values.push(attribute.value);
            indices.push(index);
        }
    }
    (!values.is_empty()).then_some((values, indices))
}

/// Writes the attributes of a span event as an object, with the role that its name states.
fn write_message(json: &mut Json, event: &[u8], scratch: &mut ParserScratch) -> Option<()> {
    let role = Event::read(event).ok()?.name;
    let role = role.strip_prefix("gen_ai.").and_then(|name| name.strip_suffix(".message")).map(str::to_owned);
    let mut members: Vec<_> = attributes(event, Event::ATTRIBUTES).collect::<Result<_, _>>().ok()?;
    members.sort_by(|a, b| compare_keys(&a.key, &b.key));
    let mut role = role.filter(|_| members.iter().all(|member| member.key != "role"));
    json.raw(b"{");
    for (index, member) in members.iter().enumerate() {
        if members.get(index + 1).is_some_and(|next| next.key == member.key) {
            continue;
        }
        if compare_keys(&member.key, "role").is_gt()
            && let Some(role) = role.take()
        {
            json.text_unless_empty("role", Cow::Owned(role));
        }
        json.key(&member.key);
        json.any_parsed(member.value, ELEMENT_LEVEL, scratch).ok()?;
    }
    json.text_unless_empty("role", Cow::Owned(role.unwrap_or_default()));
    json.raw(b"}");
    Some(())
}

/// A member of a map, or of the JSON object that a string contains.
pub fn member_of<'a>(any: &'a [u8], name: &str) -> Option<Found<'a>> {
    if let Some(text) = any_text(any) {
        // Most texts do not have the member. A search is faster than a parser.
        if !text.contains(name) {
            return None;
        }
        let value = match canonicalize(&text) {
            Ok(json) => scan::member(&json, name)?.to_vec(),
            Err(_) => member_of_cut(&text, name)?,
        };
        return Some(Found::Json(value));
    }
    let map = Fields::of(any).last()?.ok().filter(|field| field.number() == 6)?;
    let named = attributes(map.bytes().ok()?, 1).filter_map(Result::ok).filter(|member| member.key == name);
    let value = named.last()?.value;
    // Parsed like the content of an attribute.
    Some(if any_text(value).is_some() { Found::Any(value) } else { Found::Json(json_of(value)?) })
}

/// A member of a JSON object whose text was cut, as SDKs cut long attributes (`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`).
fn member_of_cut(text: &str, name: &str) -> Option<Vec<u8>> {
    let text = text.trim_start().strip_prefix('{')?;
    let (_, after) = text.split_once(&format!("\"{name}\""))?;
    let value = after.trim_start().strip_prefix(':')?;
    let mut values = serde_json::Deserializer::from_str(value).into_iter::<serde_json::Value>();
    let value = values.next()?.ok()?;
    canonicalize(&value.to_string()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_in_a_text_that_was_cut() {
        let cut = r#"{"thread_id": "t", "lc_agent_name" : "bo\"ss", "more": {"a": "#;
        assert_eq!(member_of_cut(cut, "lc_agent_name").as_deref(), Some(&br#""bo\"ss""#[..]));
        assert_eq!(member_of_cut(cut, "more"), None, "its end is missing");
        assert_eq!(member_of_cut(cut, "other"), None);
    }
}
