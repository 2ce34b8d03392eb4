//! Reads canonical bytes: strings, the members of an object, one field of an event.
//!
//! The input must be canonical bytes, as [`super::json`] writes them; the grammar is not checked again. For other input
//! the result is `None` or unspecified, but nothing panics.

use std::borrow::Cow;
use std::str::Chars;

/// Returns the length of the run of plain string bytes at the start of `bytes`. A quote, a backslash, a control
/// character or the end of `bytes` ends the run.
///
/// It compares many bytes at a time, because most of an event is text in strings.
#[inline]
pub fn plain_run(bytes: &[u8]) -> usize {
    const WORDS: usize = 4;
    // Most strings are short: the first words are compared inline.
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().take(WORDS).enumerate() {
        if let Some(at) = first_stop(*chunk) {
            return 8 * index + at;
        }
    }
    if chunks.len() > WORDS { 8 * WORDS + long_run(&bytes[8 * WORDS..]) } else { 8 * chunks.len() + short_run(rest) }
}

/// The index of the first byte of a word that is not plain.
fn first_stop(chunk: [u8; 8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let word = u64::from_le_bytes(chunk);
    let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
    let stop = control | has_zero(word ^ (ONES * u64::from(b'"'))) | has_zero(word ^ (ONES * u64::from(b'\\')));
    // A borrow can mark a byte above the first hit by mistake, never one below it.
    (stop != 0).then(|| (stop.trailing_zeros() / 8) as usize)
}

fn is_stop(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

fn short_run(bytes: &[u8]) -> usize {
    bytes.iter().position(|&byte| is_stop(byte)).unwrap_or(bytes.len())
}

/// Like [`short_run`], for long strings: the compiler vectorizes the comparison of a block.
#[inline(never)]
fn long_run(bytes: &[u8]) -> usize {
    let is_plain = |block: &[u8; 32]| !block.iter().fold(false, |stop, &byte| stop | is_stop(byte));
    let at = 32 * bytes.as_chunks().0.iter().take_while(|block| is_plain(block)).count();
    let (chunks, rest) = bytes[at..].as_chunks::<8>();
    let found = chunks.iter().enumerate().find_map(|(index, chunk)| Some(8 * index + first_stop(*chunk)?));
    at + found.unwrap_or_else(|| 8 * chunks.len() + short_run(rest))
}

/// Returns the length of the canonical string at the start of `bytes`, including its quotes.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += plain_run(bytes.get(at..)?);
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => return None,
        }
    }
}

/// Returns the length of the value at the start of `bytes`.
///
/// Only brackets and quotes are counted, so this also finds the end of a value that is not valid.
pub fn value_len(bytes: &[u8]) -> Option<usize> {
    match bytes.first()? {
        b'"' => string_len(bytes),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0usize, 0);
            loop {
                match bytes.get(at)? {
                    b'"' => at += string_len(&bytes[at..])? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => bytes.iter().position(|byte| matches!(byte, b',' | b'}' | b']')).filter(|&len| len > 0),
    }
}

/// An iterator over the members of a canonical object: the key without its quotes, still escaped, and the value.
pub struct Members<'a> {
    rest: &'a [u8],
}

/// Iterates over the members of the canonical object `bytes`, in their order.
pub fn members(bytes: &[u8]) -> Members<'_> {
    Members { rest: bytes.get(1..).unwrap_or_default() }
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.first() != Some(&b'"') {
            return None;
        }
        let key_len = string_len(self.rest)?;
        let key = &self.rest[1..key_len - 1];
        let after = self.rest.get(key_len + 1..)?;
        let len = value_len(after)?;
        self.rest = after.get(len + 1..).unwrap_or_default();
        Some((key, &after[..len]))
    }
}

/// Iterates over the elements of the canonical array `bytes`.
pub fn elements(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.strip_prefix(b"[").unwrap_or_default();
    std::iter::from_fn(move || {
        let (element, after) = rest.split_at(value_len(rest)?);
        rest = after.strip_prefix(b",").unwrap_or_default();
        Some(element)
    })
}

/// Returns the value of the member `key` of the canonical object `bytes`.
pub fn member<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    members(bytes).find_map(|(name, value)| (name == key.as_bytes()).then_some(value))
}

/// Returns the text of a canonical string, unescaped; `None` if `value` is not a string.
pub fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    unescape(std::str::from_utf8(inner).ok()?)
}

/// Returns the text of a string, and the canonical JSON of any other value. Filters compare labels in this form.
pub fn text_or_literal(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.first() == Some(&b'"') { text(value) } else { std::str::from_utf8(value).ok().map(Cow::Borrowed) }
}

/// Unescapes the inside of a canonical string, which has only the short escapes and `\u00xx`.
pub fn unescape(inner: &str) -> Option<Cow<'_, str>> {
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    Unescaped(inner.chars()).collect::<Option<String>>().map(Cow::Owned)
}

/// Iterates over the UTF-16 code units of a canonical key without its quotes.
///
/// They are decoded lazily, so that a comparison of two long keys ends at their first difference.
pub fn utf16(inner: &[u8]) -> impl Iterator<Item = u16> {
    let text = std::str::from_utf8(inner).unwrap_or_default();
    Unescaped(text.chars()).flatten().flat_map(|c| {
        let mut units = [0; 2];
        let len = c.encode_utf16(&mut units).len();
        units.into_iter().take(len)
    })
}

/// An iterator over the characters of a canonical string; `None` for an invalid escape.
struct Unescaped<'a>(Chars<'a>);

impl Iterator for Unescaped<'_> {
    type Item = Option<char>;

    fn next(&mut self) -> Option<Option<char>> {
        let c = self.0.next()?;
        Some(if c == '\\' { self.escape() } else { Some(c) })
    }
}

impl Unescaped<'_> {
    fn escape(&mut self) -> Option<char> {
        Some(match self.0.next()? {
            'b' => '\u{8}',
            't' => '\t',
            'n' => '\n',
            'f' => '\u{c}',
            'r' => '\r',
            'u' => {
                let code: String = self.0.by_ref().take(4).collect();
                char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
            }
            literal => literal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_run_ends_at_the_first_byte_that_is_not_plain() {
        for stop in [b'"', b'\\', 0u8, 0x1f, b'\n'] {
            for at in 0..140 {
                let mut bytes = vec![b' '; 148];
                bytes[at] = stop;
                assert_eq!(plain_run(&bytes), at, "{stop:#x} at {at}");
            }
        }
        let plain = "ÿ\u{7f}\u{80}€😀 !#[]".repeat(9);
        assert_eq!(plain_run(plain.as_bytes()), plain.len());
    }

    #[test]
    fn members_are_found_for_all_kinds_of_values() {
        let bytes = br#"{"a":"}\",{","b":[{"c":"]"},1],"c":{},"d":-1.5e+30,"e":true}"#;
        let found: Vec<_> = members(bytes).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", br#""}\",{""#), (b"b", br#"[{"c":"]"},1]"#), (b"c", b"{}"), (b"d", b"-1.5e+30"), (b"e", b"true")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_vec(), v.to_vec())));
        assert_eq!(text(member(bytes, "a").unwrap()).unwrap(), "}\",{");
    }

    #[test]
    fn damaged_bytes_end_the_iteration_without_a_panic() {
        let whole = br#"{"a":"x\n","b":[1,{"c":"\u001f"}]}"#;
        for end in 0..whole.len() {
            let _ = members(&whole[..end]).count();
            for (_, value) in members(&whole[..end]) {
                let _ = text_or_literal(value);
            }
        }
        assert_eq!(members(b"]]]]").count(), 0);
        assert_eq!(members(br#"{"a":]"#).count(), 0);
    }
}
