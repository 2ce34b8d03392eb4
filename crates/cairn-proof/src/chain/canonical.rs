//! Checks whether bytes are already canonical, without writing them a second time.
//!
//! Almost all events that a verifier reads are canonical. This fast path reads each byte once and accepts only what
//! [`super::json`] would write itself. It rejects rare cases even if they are canonical; then the slow path decides,
//! see [`super::walk::Checker`]. Of a million events of 690 bytes the slow path took more than twice as long.

use super::fields::Field;
use super::json::{FIRST_UNORDERED_BYTE, MAX_DEPTH};
use super::number::{self, ALWAYS_IN_RANGE_DIGITS, Literal};
use super::scan;

/// The fast path of [`super::walk::Checker`]. Its buffer is reused from event to event.
#[derive(Default)]
pub struct FastChecker {
    number_buffer: Vec<u8>,
}

/// Reads UTF-8 text from left to right.
struct Scanner<'a, 'm> {
    bytes: &'a [u8],
    /// The next unread byte.
    at: usize,
    number_buffer: &'m mut Vec<u8>,
}

impl FastChecker {
    /// Whether `text` is a canonical object with at least one field of an event and no other members. `false` can also
    /// mean that the fast path does not support the text.
    ///
    /// Calls `on_field` with each field and its canonical value, up to the first byte that is rejected.
    pub fn is_canonical_event<'a>(&mut self, text: &'a str, on_field: impl FnMut(Field, &'a [u8])) -> bool {
        let mut scanner = Scanner { bytes: text.as_bytes(), at: 0, number_buffer: &mut self.number_buffer };
        scanner.peek() == b'{' && scanner.event(on_field) && scanner.at == text.len()
    }
}

/// For each field, the first [`PREFIX_LEN`] bytes of its key, and a mask of the bytes that the key has.
const KEY_PREFIXES: [(u128, u128); Field::ALL.len()] = {
    let mut prefixes = [(0, 0); Field::ALL.len()];
    let mut field = 0;
    while field < prefixes.len() {
        let (key, mut at) = (Field::ALL[field].key(), 0);
        while at < key.len() && at < PREFIX_LEN {
            prefixes[field].0 |= (key[at] as u128) << (8 * at);
            prefixes[field].1 |= 0xFF << (8 * at);
            at += 1;
        }
        field += 1;
    }
    prefixes
};
const PREFIX_LEN: usize = size_of::<u128>();

/// Whether `rest` begins with the key of a field. `prefix` has the first [`PREFIX_LEN`] bytes of `rest`, if it is that
/// long: most keys need only one comparison. Comparing byte by byte took a twentieth of a verification.
fn starts_with_key(field: Field, prefix: Option<u128>, rest: &[u8]) -> bool {
    let (key, (word, mask)) = (field.key(), KEY_PREFIXES[field as usize]);
    match prefix {
        Some(prefix) => {
            prefix & mask == word && (key.len() <= PREFIX_LEN || rest[PREFIX_LEN..].starts_with(&key[PREFIX_LEN..]))
        }
        None => rest.starts_with(key),
    }
}

impl<'a> Scanner<'a, '_> {
    /// Returns the next byte; at the end 0, which is not in any canonical text.
    fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    fn accept(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: u32) -> bool {
        match self.peek() {
            b'"' => self.string(),
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal_name(b"true"),
            b'f' => self.literal_name(b"false"),
            b'n' => self.literal_name(b"null"),
            _ => false,
        }
    }

    fn literal_name(&mut self, name: &[u8]) -> bool {
        let is_next = self.bytes[self.at..].starts_with(name);
        self.at += name.len();
        is_next
    }

    fn string(&mut self) -> bool {
        self.at += 1;
        loop {
            self.at += scan::plain_run(&self.bytes[self.at..]);
            match self.peek() {
                b'"' => break,
                b'\\' if self.escape() => {}
                _ => return false,
            }
        }
        self.at += 1;
        true
    }

    /// Reads an escape, if it is canonical: the character has no shorter form.
    fn escape(&mut self) -> bool {
        let rest = &self.bytes[self.at + 1..];
        let length = match rest {
            [b'"' | b'\\' | b'b' | b't' | b'n' | b'f' | b'r', ..] => 2,
            [b'u', b'0', b'0', b'0', b'0'..=b'7' | b'b' | b'e' | b'f', ..] => 6,
            [b'u', b'0', b'0', b'1', b'0'..=b'9' | b'a'..=b'f', ..] => 6,
            _ => return false,
        };
        self.at += length;
        true
    }

    fn object(&mut self, depth: u32) -> bool {
        self.at += 1;
        if self.accept(b'}') {
            return depth < MAX_DEPTH;
        }
        let mut last: Option<&[u8]> = None;
        loop {
            let start = self.at + 1;
            if depth >= MAX_DEPTH || self.peek() != b'"' || !self.string() {
                return false;
            }
            let key = &self.bytes[start..self.at - 1];
            let is_plain = key.iter().all(|&byte| byte != b'\\' && byte < FIRST_UNORDERED_BYTE);
            if !is_plain || last.is_some_and(|last| last >= key) || !self.accept(b':') {
                return false;
            }
            last = Some(key);
            if !self.value(depth + 1) {
                return false;
            }
            if !self.accept(b',') {
                return self.accept(b'}');
            }
        }
    }

    /// Reads the members of an event. The order of the fields is known, so each key is only compared with the fields
    /// that may follow.
    fn event(&mut self, mut on_field: impl FnMut(Field, &'a [u8])) -> bool {
        let mut following = Field::ALL.iter();
        loop {
            self.at += 1;
            let rest = &self.bytes[self.at.min(self.bytes.len())..];
            let prefix = rest.first_chunk().map(|prefix| u128::from_le_bytes(*prefix));
            let Some(&field) = following.find(|field| starts_with_key(**field, prefix, rest)) else { return false };
            self.at += field.key().len();
            let start = self.at;
            if !self.value(1) {
                return false;
            }
            on_field(field, &self.bytes[start..self.at]);
            if self.peek() != b',' {
                return self.accept(b'}');
            }
        }
    }

    fn array(&mut self, depth: u32) -> bool {
        self.at += 1;
        if self.accept(b']') {
            return depth < MAX_DEPTH;
        }
        loop {
            if depth >= MAX_DEPTH || !self.value(depth + 1) {
                return false;
            }
            if !self.accept(b',') {
                return self.accept(b']');
            }
        }
    }

    fn number(&mut self) -> bool {
        let start = self.at;
        let is_number_byte = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e');
        self.at +=
            self.bytes[start..].iter().position(|byte| !is_number_byte(byte)).unwrap_or(self.bytes.len() - start);
        let literal = &self.bytes[start..self.at];
        match literal.strip_prefix(b"-").unwrap_or(literal) {
            [b'0'] => literal.len() == 1,
            digits @ [b'1'..=b'9', ..]
                if digits.len() <= ALWAYS_IN_RANGE_DIGITS && digits.iter().all(u8::is_ascii_digit) =>
            {
                true
            }
            // Write the number again, to check that the literal is its shortest form.
            digits if digits.iter().any(|byte| matches!(byte, b'.' | b'e')) => {
                let Ok(text) = std::str::from_utf8(literal) else { return false };
                self.number_buffer.clear();
                let written = number::write(Literal { text, is_integer: false }, self.number_buffer);
                written.is_ok() && *self.number_buffer == literal
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::canonicalize;

    fn is_canonical_event(text: &str) -> bool {
        FastChecker::default().is_canonical_event(text, |_, _| {})
    }

    #[test]
    fn bytes_that_are_not_canonical_are_rejected_and_common_ones_are_accepted() {
        let deep = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let event = |value: &str| format!("{{\"agent_id\":\"a\",\"metadata\":{value}}}");
        let canonical = [
            "{}",
            r#"{"a":"\b\t\n\f\r\"\\\u0000\u0007\u000b\u000e\u001f ÿ😀"}"#,
            r#"{"A":true,"_":false,"a":null,"aa":[],"b":{"":[1,-1,0,0.5,-1.5e-7,1e+30,123456789012345678]}}"#,
            &deep(126),
        ];
        for text in canonical {
            let text = &event(text);
            assert!(is_canonical_event(text), "{text}");
            assert_eq!(canonicalize(text).unwrap(), text.as_bytes());
        }
        let escapes =
            ["\\u0008", "\\u0009", "\\u000a", "\\u000c", "\\u000d", "\\u001F", "\\u0041", "\\/", "\\x", "\\u00", "\n"];
        let numbers = ["01", "1.0", "1e5", "-0", "+1", "-", "1.", ".5", "1E+30", "1e30", "0x1", "--1", "1-1", "1e400"];
        let others = [
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a" :1}"#,
            r#"{"a":1 }"#,
            r#"{"a":1,}"#,
            r#"{"a":[1,]}"#,
            r#"{"a":nul}"#,
            r#"{"a":tru"#,
            r#"{"a":"b"#,
            r#"{"a":1}}"#,
            r#"{"a":]"#,
            r#"{a:1}"#,
            "",
            &deep(127),
        ];
        let escapes = escapes.map(|escape| format!(r#"{{"a":"{escape}"}}"#));
        let numbers = numbers.map(|number| format!(r#"{{"a":{number}}}"#));
        for text in escapes.iter().chain(&numbers).map(String::as_str).chain(others) {
            let text = &event(text);
            assert!(!is_canonical_event(text), "{text}");
        }
        let others = [
            r#"{"metadata":{},"agent_id":"a"}"#,
            r#"{"agent_id":"a","agent_id":"a"}"#,
            r#"{"agent_id":"a","surplus":1}"#,
            r#"{"agent_id":"a"}}"#,
            r#"{"agent_id":"a""#,
            r#"{"agent_id":"a","#,
            r#"{"agent_id":"a",}"#,
            r#"{"agent_id" :"a"}"#,
            r#"{"agent_id":}"#,
            "{}",
            "[]",
            "{",
            "",
        ];
        for text in others {
            assert!(!is_canonical_event(text), "{text}");
        }
    }
}
