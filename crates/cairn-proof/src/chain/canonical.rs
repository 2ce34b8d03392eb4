//! Whether bytes are canonical already, without writing them a second time.
//!
//! A verifier reads far more events that are canonical than events that are not. This looks at each byte once and says
//! yes only to what [`super::json`] would write itself; to whatever is rare it says no, and the slow way decides: see
//! [`super::walk::Checker`]. Of a million events of 690 bytes the slow way took more than twice as long.

use super::fields::Field;
use super::json::{FIRST_UNORDERED_BYTE, MAX_DEPTH};
use super::number::{self, ALWAYS_IN_RANGE_DIGITS, Literal};
use super::scan;

/// Reads bytes that are probably canonical, with memory that is reused.
#[derive(Default)]
pub struct Canonical {
    number: Vec<u8>,
}

/// What is read: UTF-8, and the next unread byte of it.
struct Cursor<'a, 'm> {
    bytes: &'a [u8],
    at: usize,
    number: &'m mut Vec<u8>,
}

impl Canonical {
    /// Whether `text` is a canonical object that has fields of an event and nothing else, which are told; `false` may also
    /// mean that this cannot be said so fast. Values are told as they stand.
    pub fn is_event<'a>(&mut self, text: &'a str, field: impl FnMut(Field, &'a [u8])) -> bool {
        let mut cursor = Cursor { bytes: text.as_bytes(), at: 0, number: &mut self.number };
        cursor.peek() == b'{' && cursor.event(field) && cursor.at == text.len()
    }
}

/// The first bytes of each field's key, and which of them it has.
const HEADS: [(u128, u128); Field::ALL.len()] = {
    let mut heads = [(0, 0); Field::ALL.len()];
    let mut field = 0;
    while field < heads.len() {
        let (key, mut at) = (Field::ALL[field].key(), 0);
        while at < key.len() && at < HEAD {
            heads[field].0 |= (key[at] as u128) << (8 * at);
            heads[field].1 |= 0xFF << (8 * at);
            at += 1;
        }
        field += 1;
    }
    heads
};
const HEAD: usize = size_of::<u128>();

/// Whether `rest`, which begins with `head` if it is that long, begins with the key of a field. All but a few are looked at
/// in one comparison: looking at every byte took a twentieth of a verification.
fn is_key_of(field: Field, head: Option<u128>, rest: &[u8]) -> bool {
    let (key, (word, mask)) = (field.key(), HEADS[field as usize]);
    match head {
        Some(head) => head & mask == word && (key.len() <= HEAD || rest[HEAD..].starts_with(&key[HEAD..])),
        None => rest.starts_with(key),
    }
}

impl<'a> Cursor<'a, '_> {
    /// The next byte; 0, which is never canonical, at the end.
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
            b'-' | b'0'..=b'9' => self.is_number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => false,
        }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let is_next = self.bytes[self.at..].starts_with(word);
        self.at += word.len();
        is_next
    }

    fn string(&mut self) -> bool {
        self.at += 1;
        loop {
            self.at += scan::plain_run(&self.bytes[self.at..]);
            match self.peek() {
                b'"' => break,
                b'\\' if self.is_escape() => {}
                _ => return false,
            }
        }
        self.at += 1;
        true
    }

    /// Reads an escape that has no shorter form.
    fn is_escape(&mut self) -> bool {
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

    /// Reads the members of an event. As fields are known in their order, their keys need no look at each byte.
    fn event(&mut self, mut field: impl FnMut(Field, &'a [u8])) -> bool {
        let mut following = Field::ALL.iter();
        loop {
            self.at += 1;
            let rest = &self.bytes[self.at.min(self.bytes.len())..];
            let head = rest.first_chunk().map(|head| u128::from_le_bytes(*head));
            let Some(&next) = following.find(|next| is_key_of(**next, head, rest)) else { return false };
            self.at += next.key().len();
            let start = self.at;
            if !self.value(1) {
                return false;
            }
            field(next, &self.bytes[start..self.at]);
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

    fn is_number(&mut self) -> bool {
        let start = self.at;
        let is_of_one = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e');
        self.at += self.bytes[start..].iter().position(|byte| !is_of_one(byte)).unwrap_or(self.bytes.len() - start);
        let literal = &self.bytes[start..self.at];
        match literal.strip_prefix(b"-").unwrap_or(literal) {
            [b'0'] => literal.len() == 1,
            digits @ [b'1'..=b'9', ..]
                if digits.len() <= ALWAYS_IN_RANGE_DIGITS && digits.iter().all(u8::is_ascii_digit) =>
            {
                true
            }
            // What is no number, or not in its shortest form, is written otherwise than it stands here.
            digits if digits.iter().any(|byte| matches!(byte, b'.' | b'e')) => {
                let Ok(text) = std::str::from_utf8(literal) else { return false };
                self.number.clear();
                number::write(Literal { text, is_integer: false }, self.number).is_ok() && *self.number == literal
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::canonicalize;

    fn is_event(text: &str) -> bool {
        Canonical::default().is_event(text, |_, _| {})
    }

    #[test]
    fn what_is_written_otherwise_is_refused_and_what_is_usual_is_not() {
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
            assert!(is_event(text), "{text}");
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
            assert!(!is_event(text), "{text}");
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
            assert!(!is_event(text), "{text}");
        }
    }
}
