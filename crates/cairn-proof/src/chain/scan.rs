//! Reading canonical bytes again: strings, members of an object, one field of an event.
//!
//! These functions trust their input to be canonical bytes that [`super::json`] wrote, and read them without
//! checking the grammar a second time. On anything else they return `None` or nonsense, but never panic.

use std::borrow::Cow;
use std::str::Chars;

/// The position of the first byte that ends a run of plain string bytes: a quote, a backslash or a control
/// character; the length of `bytes` when there is none.
///
/// Many bytes at a time: most of an event is text in strings.
#[inline]
pub fn plain_run(bytes: &[u8]) -> usize {
    const WORDS: usize = 4;
    // Most strings are short.
    let (chunks, rest) = bytes.as_chunks::<8>();
    for (index, chunk) in chunks.iter().take(WORDS).enumerate() {
        if let Some(at) = stop_in(*chunk) {
            return 8 * index + at;
        }
    }
    if chunks.len() > WORDS { 8 * WORDS + long_run(&bytes[8 * WORDS..]) } else { 8 * chunks.len() + short_run(rest) }
}

/// Where the first byte of eight is that is not plain.
fn stop_in(chunk: [u8; 8]) -> Option<usize> {
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

/// The same for long strings: the compiler makes one comparison of those of a piece.
#[inline(never)]
fn long_run(bytes: &[u8]) -> usize {
    let is_plain = |piece: &[u8; 32]| !piece.iter().fold(false, |stop, &byte| stop | is_stop(byte));
    let at = 32 * bytes.as_chunks().0.iter().take_while(|piece| is_plain(piece)).count();
    let (chunks, rest) = bytes[at..].as_chunks::<8>();
    let found = chunks.iter().enumerate().find_map(|(index, chunk)| Some(8 * index + stop_in(*chunk)?));
    at + found.unwrap_or_else(|| 8 * chunks.len() + short_run(rest))
}

/// The length of the canonical string at the start of `bytes`, quotes included.
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

/// The length of the value at the start of `bytes`.
///
/// Brackets and quotes are counted, nothing is checked, so this also finds the end of a value that is refused.
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

/// The members of a canonical object, in order: the key without its quotes but still escaped, and the value.
pub struct Members<'a> {
    rest: &'a [u8],
}

/// Iterates over the members of the canonical object `bytes`.
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

/// The value of the member `key` of the canonical object `bytes`.
pub fn member<'a>(bytes: &'a [u8], key: &str) -> Option<&'a [u8]> {
    members(bytes).find_map(|(name, value)| (name == key.as_bytes()).then_some(value))
}

/// The text of a canonical string value, unescaped; `None` if `value` is no string.
pub fn text(value: &[u8]) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    unescape(std::str::from_utf8(inner).ok()?)
}

/// What a filter or a label compares: a string's text, any other value's canonical form.
pub fn text_or_literal(value: &[u8]) -> Option<Cow<'_, str>> {
    if value.first() == Some(&b'"') { text(value) } else { std::str::from_utf8(value).ok().map(Cow::Borrowed) }
}

/// Undoes the escapes that canonical strings have: the short ones and `\u00xx`.
pub fn unescape(inner: &str) -> Option<Cow<'_, str>> {
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    Unescaped(inner.chars()).collect::<Option<String>>().map(Cow::Owned)
}

/// The UTF-16 code units of a canonical key, its quotes left out, decoded one by one: two keys that differ early are
/// compared fast, however long they are.
pub fn utf16(inner: &[u8]) -> impl Iterator<Item = u16> {
    let text = std::str::from_utf8(inner).unwrap_or_default();
    Unescaped(text.chars()).flatten().flat_map(|c| {
        let mut units = [0; 2];
        let len = c.encode_utf16(&mut units).len();
        units.into_iter().take(len)
    })
}

/// The characters of a canonical string; `None` for an escape that is none.
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
    fn members_are_found_whatever_their_values_hold() {
        let bytes = br#"{"a":"}\",{","b":[{"c":"]"},1],"c":{},"d":-1.5e+30,"e":true}"#;
        let found: Vec<_> = members(bytes).map(|(k, v)| (k.to_vec(), v.to_vec())).collect();
        let expected: [(&[u8], &[u8]); 5] =
            [(b"a", br#""}\",{""#), (b"b", br#"[{"c":"]"},1]"#), (b"c", b"{}"), (b"d", b"-1.5e+30"), (b"e", b"true")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_vec(), v.to_vec())));
        assert_eq!(text(member(bytes, "a").unwrap()).unwrap(), "}\",{");
    }

    #[test]
    fn damaged_bytes_end_the_reading_and_do_not_panic() {
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
