//! The parts of the mapping that spans and log records share: labels, content, agent.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use super::facts::{Context, Facts};
use super::found::Found;
use super::mapping::row::Target;
use super::value::{Fault, Json};
use cairn_proof::chain::json::ParserScratch;
use cairn_proof::chain::{Field, is_agent_id};
use cairn_proof::hex;

/// The maximum length of an agent id, in bytes.
const AGENT_ID_MAX: usize = 256;
/// The maximum length of a field that is a text, in bytes.
const MAX_TEXT_FIELD: usize = 64 << 10;
/// The length of the end of a cut agent id: `~` and 16 hex digits.
const CUT_END: usize = 17;

/// The agent of a record, and a warning if its name had to be changed.
pub fn agent_id<'a>(name: Cow<'a, str>) -> (Cow<'a, str>, Option<String>) {
    if is_agent_id(&name) {
        return (name, None);
    }
    let repaired = repair_agent_id(&name);
    let shown: String = name.chars().take(80).collect();
    let warning = format!("agent_id: {shown:?} is not allowed, and was changed to {repaired:?}");
    (Cow::Owned(repaired), Some(warning))
}

/// Turns a text into a valid agent id: white space at both ends is removed, control characters are written as `\uXXXX`,
/// and a text of more than 256 bytes is cut and ends with `~` and the first 16 hex digits of its SHA-256, so that two
/// long names stay different.
fn repair_agent_id(name: &str) -> String {
    let mut repaired = String::with_capacity(name.len());
    for character in name.trim().chars() {
        match character.is_control() {
            true => repaired.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => repaired.push(character),
        }
    }
    if repaired.len() > AGENT_ID_MAX {
        let digest = Sha256::digest(name.as_bytes());
        repaired.truncate(repaired.floor_char_boundary(AGENT_ID_MAX - CUT_END));
        repaired.push('~');
        repaired.push_str(&hex::encode(&digest[..8]));
    }
    repaired
}

/// Writes a field of the event with the first text that the rows of `target` give. Returns the text.
pub fn write_text<'a>(
    json: &mut Json,
    field: Field,
    target: Target,
    facts: &mut Facts<'a>,
    context: &mut Context<'_, 'a>,
) -> Option<Cow<'a, str>> {
    let (text, taken) = facts.text(target, context, json)?;
    json.field(field);
    // A longer text is no name or message; it stays in the metadata.
    let end = text.floor_char_boundary(MAX_TEXT_FIELD);
    if end < text.len() {
        json.omitted += 1;
        json.text(Cow::Owned(format!("{}...", &text[..end])));
        return None;
    }
    facts.mark_used(taken);
    json.str(&text);
    Some(text)
}

/// Writes `action_input` or `action_output`: the first value that the rows of `target` give. A string that contains a
/// JSON object or array is written as that object or array, any other value unchanged.
///
/// # Errors
/// When an event cannot contain the value.
pub fn write_content<'a>(
    json: &mut Json,
    field: Field,
    target: Target,
    facts: &mut Facts<'a>,
    context: &mut Context<'_, 'a>,
    scratch: &mut ParserScratch,
) -> Result<(), Fault> {
    let Some(taken) = facts.value(target, context, json) else { return Ok(()) };
    json.field(field);
    match &taken.value {
        Found::Any(any) => json.any_parsed(any, 1, scratch)?,
        Found::Several(list) => write_several(json, list, scratch)?,
        Found::Json(value) => json.raw(value),
        Found::Text(text) => json.text_parsed(text.clone(), 1, scratch),
        Found::Exists => json.raw(b"true"),
    }
    facts.mark_used(taken);
    Ok(())
}

/// Writes the values of several span events: arrays as one array, of other values the last.
fn write_several(json: &mut Json, list: &[&[u8]], scratch: &mut ParserScratch) -> Result<(), Fault> {
    let start = json.bytes.len();
    for (index, any) in list.iter().enumerate() {
        let value = json.bytes.len();
        json.any_parsed(any, 1, scratch)?;
        if index == 0 {
            continue;
        }
        let are_arrays = json.bytes[start] == b'[' && json.bytes[value] == b'[';
        match are_arrays {
            false => drop(json.bytes.drain(start..value)),
            // `[1]` and `[2]` become `[1,2]`.
            true if json.bytes[value - 2] == b'[' || json.bytes[value + 1] == b']' => {
                json.bytes.drain(value - 1..=value);
            }
            true => {
                json.bytes[value - 1] = b',';
                json.bytes.remove(value);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_allowed_is_trimmed_escaped_and_cut_with_its_hash() {
        let id = |name: &str| agent_id(Cow::Owned(name.to_owned()));
        assert_eq!(id("boss"), ("boss".into(), None));
        let (repaired, warning) = id("  boss\n");
        assert!(repaired == "boss" && warning.unwrap().contains("boss\\n"));
        assert_eq!(id("a\tb\u{7f}").0, "a\\u0009b\\u007f");
        let (long, other) = (id(&"é".repeat(200)).0, id(&format!("{}x", "é".repeat(200))).0);
        assert!(is_agent_id(&long) && long.len() <= 256 && long.contains('~') && long != other, "{long}");
        assert_eq!(id(&"x".repeat(256)).1, None);
    }
}
