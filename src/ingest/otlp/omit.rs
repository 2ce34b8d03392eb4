//! Keeps a record that is too long for an event: its largest values are replaced by their length and SHA-256, so that the
//! original can be proven later. `docs/otlp.md`, section "Long records", specifies the form.

use sha2::{Digest, Sha256};

use super::value::Json;
use cairn_proof::chain::string::write_string;
use cairn_proof::chain::{Field, Slots, scan};
use cairn_proof::hex;

/// The length that is left for the fields that are added later, in bytes: id, times, default labels.
const RESERVE: usize = 2048;
/// The minimum length of a value that is replaced, in bytes. The replacement takes about 100.
const MIN_REPLACED: usize = 256;
/// The fields whose values can be replaced.
const FIELDS: [Field; 3] = [Field::ActionInput, Field::ActionOutput, Field::Metadata];

/// A range of the written event, in bytes.
type Range = std::ops::Range<usize>;

/// The replacement of a value: of how many canonical bytes it had, and their SHA-256.
pub fn replacement(len: usize, digest: &[u8]) -> String {
    format!(r#"{{"omitted":{{"bytes":{len},"sha256":"{}"}}}}"#, hex::encode(digest))
}

/// The replacement of a string, without writing its canonical form as a whole.
pub fn replacement_of_text(text: &str) -> String {
    const STEP: usize = 16 << 10;
    let (mut hasher, mut len, mut canonical, mut rest) = (Sha256::new(), 2, Vec::new(), text);
    hasher.update(b"\"");
    while !rest.is_empty() {
        let (step, after) = rest.split_at(rest.floor_char_boundary(STEP));
        canonical.clear();
        write_string(step, &mut canonical);
        let inner = &canonical[1..canonical.len() - 1];
        hasher.update(inner);
        len += inner.len();
        rest = after;
    }
    hasher.update(b"\"");
    replacement(len, &hasher.finalize())
}

/// Replaces the largest values of a written event until it is at most `limit` bytes long. Returns how many.
pub fn shorten(json: &mut Json, limit: usize) -> usize {
    let target = limit.saturating_sub(RESERVE.min(limit / 2));
    let slots = json.fields();
    let Some(excess) = length(&slots).checked_sub(target) else { return 0 };
    let fields = FIELDS.into_iter().filter_map(|field| slots[field as usize]).map(|slot| slot.start..slot.end);
    let fields: Vec<Range> = fields.collect();
    // Single texts first, so that the rest of a long structure stays readable; then whole members.
    let texts = fields.iter().flat_map(|field| texts(&json.bytes, field.clone())).collect();
    let chosen = choose(texts, excess)
        .or_else(|| choose(fields.iter().flat_map(|field| parts(&json.bytes, field.clone())).collect(), excess));
    let Some(chosen) = chosen else { return 0 };
    let count = chosen.len();
    replace(
        json,
        chosen
            .into_iter()
            .map(|range| {
                let value = &json.bytes[range.clone()];
                let text = replacement(value.len(), &Sha256::digest(value));
                (range, text)
            })
            .collect(),
    );
    count
}

/// Replaces ranges, in the order of their places, within the fields of the event.
fn replace(json: &mut Json, replacements: Vec<(Range, String)>) {
    let (mut bytes, mut copied) = (Vec::with_capacity(json.bytes.len()), 0);
    let mut slots = json.fields();
    for (range, text) in replacements {
        bytes.extend_from_slice(&json.bytes[copied..range.start]);
        bytes.extend_from_slice(text.as_bytes());
        copied = range.end;
        let shift = |place: &mut usize| *place = (*place + text.len()) - range.len();
        for (slot, old) in slots.iter_mut().zip(&json.slots) {
            let (Some(slot), Some(old)) = (slot.as_mut(), old) else { continue };
            if old.start > range.start {
                shift(&mut slot.start);
            }
            if old.end >= range.end {
                shift(&mut slot.end);
            }
        }
    }
    bytes.extend_from_slice(&json.bytes[copied..]);
    (json.bytes, json.slots) = (bytes, slots);
}

/// The length of all fields.
fn length(slots: &Slots) -> usize {
    Field::ALL
        .into_iter()
        .filter_map(|field| Some(field.name().len() + 4 + slots[field as usize].map(|slot| slot.end - slot.start)?))
        .sum()
}

/// The largest of these ranges that together save `excess` bytes, in the order of their places; `None` if all together
/// save less.
fn choose(mut ranges: Vec<Range>, excess: usize) -> Option<Vec<Range>> {
    ranges.retain(|range| range.len() >= MIN_REPLACED);
    ranges.sort_by_key(|range| std::cmp::Reverse(range.len()));
    let (mut saved, mut count) = (0, 0);
    while saved < excess {
        saved += ranges.get(count)?.len() - MIN_REPLACED / 2;
        count += 1;
    }
    ranges.truncate(count);
    ranges.sort_by_key(|range| range.start);
    Some(ranges)
}

/// The strings in a canonical value that are not names of members.
fn texts(bytes: &[u8], value: Range) -> Vec<Range> {
    let (mut found, mut at) = (Vec::new(), value.start);
    while at < value.end {
        if bytes[at] != b'"' {
            at += 1;
            continue;
        }
        let Some(len) = scan::value_len(&bytes[at..value.end]) else { break };
        // In canonical form a colon follows only the name of a member.
        if bytes.get(at + len) != Some(&b':') {
            found.push(at..at + len);
        }
        at += len;
    }
    found
}

/// The members of an object, those of its member `attributes`, or the value as a whole if it is none.
fn parts(bytes: &[u8], value: Range) -> Vec<Range> {
    let text = &bytes[value.clone()];
    let range_of = |part: &[u8]| {
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        start..start + part.len()
    };
    if text.first() != Some(&b'{') {
        return vec![value];
    }
    let mut found = Vec::new();
    for (name, member) in scan::members(text) {
        match name {
            b"attributes" => found.extend(scan::members(member).map(|(_, value)| range_of(value))),
            _ => found.push(range_of(member)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::chain::canonicalize;

    #[test]
    fn the_replacement_of_a_text_is_that_of_its_canonical_form() {
        for text in ["", "short", &"é\u{1}\"\\".repeat(40_000), &"x".repeat(16 << 10)] {
            let mut canonical = Vec::new();
            write_string(text, &mut canonical);
            assert_eq!(replacement_of_text(text), replacement(canonical.len(), &Sha256::digest(&canonical)));
        }
    }

    #[test]
    fn the_largest_texts_are_replaced_and_then_whole_members() {
        let long = "y".repeat(9000);
        let write = |json: &mut Json, field, text: &str| {
            json.field(field);
            json.raw(&canonicalize(text).unwrap());
        };
        let mut json = Json::new(1000);
        write(&mut json, Field::AgentId, r#""a""#);
        write(&mut json, Field::ActionInput, &format!(r#"[{{"content":"{long}","role":"user"}},"short"]"#));
        let list = vec!["12345"; 2000].join(",");
        write(&mut json, Field::Metadata, &format!(r#"{{"attributes":{{"k":[{list}]}},"name":"n"}}"#));
        assert_eq!(shorten(&mut json, 16_000), 1);
        let input = String::from_utf8(json.value(Field::ActionInput).unwrap().to_vec()).unwrap();
        assert!(
            input.starts_with(r#"[{"content":{"omitted":{"bytes":9002,"sha256":""#)
                && input.ends_with(r#""role":"user"},"short"]"#),
            "{input}"
        );
        assert_eq!(shorten(&mut json, 8_000), 1, "the list has no long text");
        let metadata = String::from_utf8(json.value(Field::Metadata).unwrap().to_vec()).unwrap();
        assert!(
            metadata.starts_with(r#"{"attributes":{"k":{"omitted":{"bytes":12001"#)
                && metadata.ends_with(r#""name":"n"}"#),
            "{metadata}"
        );
        assert_eq!(json.value(Field::AgentId).unwrap(), br#""a""#);
        assert_eq!(shorten(&mut json, 8_000), 0);
    }
}
