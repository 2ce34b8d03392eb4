//! Converts a JSON request to protobuf so that an item that cannot be converted costs only itself.
//!
//! The whole request is converted at once first ([`super::json`]). Only if that fails, each item is converted alone: one
//! whose values have a form that no rule knows keeps them as text, and one that still cannot be converted is refused.

use std::ops::Range;

use bytes::Bytes;
use serde_json::{Value, json};

use super::json::{convert_item, convert_request, convert_shared};
use super::request::Signal;
use cairn_proof::chain::scan;

/// A request that was converted to protobuf.
#[derive(Debug, Default)]
pub struct Converted {
    /// The request in protobuf.
    pub protobuf: Bytes,
    /// Whether the request has the field that contains the items.
    pub has_items_field: bool,
    /// Items that could not be converted, with the reason. They are empty in `protobuf`.
    pub faults: Vec<(Range<usize>, String)>,
    /// Warnings about items.
    pub warnings: Vec<(Range<usize>, String)>,
}

/// Converts a request from JSON to protobuf.
///
/// # Errors
/// When the text is not JSON, or not a request of this signal. The error contains the position.
pub fn to_protobuf(signal: Signal, text: &[u8]) -> Result<Converted, serde_json::Error> {
    whole(signal, text).or_else(|error| if error.is_data() { each(signal, text, error) } else { Err(error) })
}

fn whole(signal: Signal, text: &[u8]) -> Result<Converted, serde_json::Error> {
    let (protobuf, has_items_field) = convert_request(signal, text)?;
    Ok(Converted { protobuf: protobuf.into(), has_items_field, ..Converted::default() })
}

/// An item, resource or scope in the text of a request.
struct Part {
    range: Range<usize>,
    kind: PartKind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PartKind {
    Item,
    /// A resource or a scope, and the items that share it.
    Shared {
        first: usize,
        end: usize,
        is_resource: bool,
    },
}

/// Converts a request in which `error` occurred, item by item. Fails with `error` if the text is not JSON, or not a
/// request of this signal.
fn each(signal: Signal, text: &[u8], error: serde_json::Error) -> Result<Converted, serde_json::Error> {
    let Some(parts) = parts_of(text) else { return Err(error) };
    let (mut repaired, mut copied) = (Vec::with_capacity(text.len()), 0);
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let mut item = 0;
    for part in &parts {
        let slice = &text[part.range.clone()];
        let items = match part.kind {
            PartKind::Item => item..item + 1,
            PartKind::Shared { first, end, .. } => first..end,
        };
        item += usize::from(part.kind == PartKind::Item);
        let failed = match part.kind {
            PartKind::Item => convert_item(signal, slice).err(),
            PartKind::Shared { is_resource, .. } => convert_shared(is_resource, slice).err(),
        };
        let Some(failed) = failed else { continue };
        if !failed.is_data() {
            return Err(error);
        }
        repaired.extend_from_slice(&text[copied..part.range.start]);
        copied = part.range.end;
        match with_texts(signal, part.kind, slice) {
            Some((replacement, warning)) => {
                repaired.extend_from_slice(&replacement);
                warnings.push((items, warning));
            }
            None => {
                repaired.extend_from_slice(b"{}");
                faults.push((items, format!("not OTLP JSON: {failed}")));
            }
        }
    }
    repaired.extend_from_slice(&text[copied..]);
    let converted = whole(signal, &repaired).map_err(|_| error)?;
    Ok(Converted { faults, warnings, ..converted })
}

/// The part with its values of an unknown form as texts, and a warning; `None` if that does not make it convertible.
fn with_texts(signal: Signal, kind: PartKind, slice: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut value: Value = serde_json::from_slice(slice).ok()?;
    let mut places = Vec::new();
    keep_unknown_values(&mut value, "", &mut places);
    let first = places.first()?;
    let warning = format!("{first}: a value in a form that OTLP does not have is kept as text");
    let text = serde_json::to_vec(&value).ok()?;
    let is_converted = match kind {
        PartKind::Item => convert_item(signal, &text).is_ok(),
        PartKind::Shared { is_resource, .. } => convert_shared(is_resource, &text).is_ok(),
    };
    is_converted.then_some((text, warning))
}

/// Replaces each `AnyValue` whose form no rule knows by its JSON text, and lists where they are.
fn keep_unknown_values(value: &mut Value, place: &str, places: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(|value| keep_unknown_values(value, place, places)),
        Value::Object(members) => {
            let key = members.get("key").and_then(Value::as_str).map(str::to_owned);
            for (name, member) in members.iter_mut() {
                let is_any_value = matches!(name.as_str(), "value" | "body");
                if is_any_value && is_unknown(member) {
                    places.push(key.clone().unwrap_or_else(|| name.clone()));
                    *member = json!({ "stringValue": member.to_string() });
                } else {
                    keep_unknown_values(member, key.as_deref().unwrap_or(place), places);
                }
            }
        }
        _ => {}
    }
}

/// Whether an `AnyValue` has a form that no rule knows: a text that is none, or a member that OTLP does not have.
fn is_unknown(value: &Value) -> bool {
    const KNOWN: [&str; 7] =
        ["stringvalue", "boolvalue", "intvalue", "doublevalue", "arrayvalue", "kvlistvalue", "bytesvalue"];
    let Value::Object(members) = value else { return !value.is_null() };
    let normalized = |name: &str| name.replace('_', "").to_ascii_lowercase();
    if members.len() == 1
        && let Some((name, inner)) = members.iter().next()
        && normalized(name) == "value"
    {
        return is_unknown(inner);
    }
    let is_wrong_text = |(name, member): (&String, &Value)| {
        normalized(name) == "stringvalue" && !matches!(member, Value::String(_) | Value::Null)
    };
    let is_known = members.keys().any(|name| KNOWN.contains(&normalized(name).as_str()));
    !members.is_empty() && (!is_known || members.iter().any(is_wrong_text))
}

/// The items, resources and scopes of a request, in the order of the text; `None` if it has another structure.
fn parts_of(text: &[u8]) -> Option<Vec<Part>> {
    let mut parts = Vec::new();
    let mut items = 0;
    for (_, resources) in members(text, value_at(text, 0)?)?.into_iter().filter(|(name, _)| is(name, &RESOURCES)) {
        for group in elements(text, resources)? {
            add_group(text, group, true, &mut items, &mut parts)?;
        }
    }
    parts.sort_by_key(|part: &Part| part.range.start);
    Some(parts)
}

const RESOURCES: [&str; 2] = ["resourcespans", "resourcelogs"];
const SCOPES: [&str; 4] = ["scopespans", "scopelogs", "instrumentationlibraryspans", "instrumentationlibrarylogs"];
const ITEMS: [&str; 3] = ["spans", "logrecords", "logs"];
const SHARED: [&str; 3] = ["resource", "scope", "instrumentationlibrary"];

/// Adds the parts of a `ResourceSpans` or a `ScopeSpans`.
fn add_group(
    text: &[u8],
    group: Range<usize>,
    is_resource: bool,
    items: &mut usize,
    parts: &mut Vec<Part>,
) -> Option<()> {
    let first = *items;
    let mut shared = Vec::new();
    for (name, value) in members(text, group)? {
        if &text[value.clone()] == b"null" {
            continue;
        }
        if is(&name, &SHARED) {
            shared.push(value);
        } else if is_resource && is(&name, &SCOPES) {
            for group in elements(text, value)? {
                add_group(text, group, false, items, parts)?;
            }
        } else if !is_resource && is(&name, &ITEMS) {
            for range in elements(text, value)? {
                *items += 1;
                parts.push(Part { range, kind: PartKind::Item });
            }
        }
    }
    let kind = PartKind::Shared { first, end: *items, is_resource };
    parts.extend(shared.into_iter().map(|range| Part { range, kind }));
    Some(())
}

/// Whether a name is one of these, in any letter case and with or without `_`.
fn is(name: &[u8], names: &[&str]) -> bool {
    let normalized: Vec<u8> = name.iter().filter(|byte| **byte != b'_').map(u8::to_ascii_lowercase).collect();
    names.iter().any(|name| name.as_bytes() == normalized)
}

fn skip_space(text: &[u8], at: usize) -> usize {
    let is_space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    at + text[at..].iter().take_while(is_space).count()
}

/// The range of the value that begins at `at`, after white space.
fn value_at(text: &[u8], at: usize) -> Option<Range<usize>> {
    let start = skip_space(text, at);
    let len = match text.get(start)? {
        b'"' | b'{' | b'[' => scan::value_len(&text[start..])?,
        _ => text[start..].iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r'))?,
    };
    (len > 0).then_some(start..start + len)
}

/// The members of an object: name and range of the value.
fn members(text: &[u8], object: Range<usize>) -> Option<Vec<(Vec<u8>, Range<usize>)>> {
    let mut found = Vec::new();
    let mut at = object.start + usize::from(text.get(object.start) == Some(&b'{'));
    if at == object.start {
        return None;
    }
    loop {
        at = skip_space(text, at);
        match text.get(at)? {
            b'}' => return Some(found),
            b',' => at += 1,
            b'"' => {
                let name = value_at(text, at)?;
                let colon = skip_space(text, name.end);
                let value = (text.get(colon)? == &b':').then(|| value_at(text, colon + 1))??;
                at = value.end;
                found.push((text[name.start + 1..name.end - 1].to_vec(), value));
            }
            _ => return None,
        }
    }
}

/// The ranges of the elements of an array that are not null; none for null.
fn elements(text: &[u8], array: Range<usize>) -> Option<Vec<Range<usize>>> {
    if &text[array.clone()] == b"null" {
        return Some(Vec::new());
    }
    let mut found = Vec::new();
    let mut at = array.start + usize::from(text.get(array.start) == Some(&b'['));
    if at == array.start {
        return None;
    }
    loop {
        at = skip_space(text, at);
        match text.get(at)? {
            b']' => return Some(found),
            b',' => at += 1,
            _ => {
                let value = value_at(text, at)?;
                at = value.end;
                // The converter skips null, too.
                if &text[value.clone()] != b"null" {
                    found.push(value);
                }
            }
        }
    }
}
