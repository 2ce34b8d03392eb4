//! Canonical strings: escapes are decoded, and only those that RFC 8785 requires are written.

use std::cmp::Ordering;

use super::json::{Error, Parser};
use super::scan;

impl Parser<'_> {
    /// Reads a string, whose opening quote must be next, and appends its canonical form to `out`.
    ///
    /// # Errors
    /// When the string is not valid JSON, or has a lone surrogate.
    pub fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let bytes = self.text.as_bytes();
        out.push(b'"');
        self.at += 1;
        loop {
            let run = scan::plain_run(&bytes[self.at..]);
            out.extend_from_slice(&bytes[self.at..self.at + run]);
            self.at += run;
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let c = self.escape()?;
                    write_char(c, out);
                }
                Some(_) => return Err(self.syntax("unescaped control character in a string")),
                None => return Err(self.syntax("unterminated string")),
            }
        }
        self.at += 1;
        out.push(b'"');
        Ok(())
    }

    fn escape(&mut self) -> Result<char, Error> {
        let c = match self.text.as_bytes().get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.syntax("invalid escape in a string")),
        };
        self.at += 2;
        Ok(c)
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let high = self.hex4()?;
        let code = match high {
            0xD800..=0xDBFF if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                let at = self.at;
                match self.hex4()? {
                    low @ 0xDC00..=0xDFFF => 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00),
                    _ => {
                        self.at = at;
                        high
                    }
                }
            }
            _ => high,
        };
        char::from_u32(code).ok_or_else(|| self.content("a lone surrogate in a string".into()))
    }

    /// Reads `\uXXXX`.
    fn hex4(&mut self) -> Result<u32, Error> {
        let digits = self.text.as_bytes().get(self.at + 2..self.at + 6);
        let mut code = 0;
        for digit in digits.ok_or_else(|| self.syntax("truncated escape in a string"))? {
            let value = char::from(*digit).to_digit(16);
            code = code * 16 + value.ok_or_else(|| self.syntax("`\\u` must be followed by four hex digits"))?;
        }
        self.at += 6;
        Ok(code)
    }
}

/// Compares two keys of an object by their UTF-16 code units.
pub fn compare_keys(a: &str, b: &str) -> Ordering {
    // UTF-8 sorts like UTF-16, except for U+E000 to U+FFFF: in UTF-16, surrogates sort before them.
    let rank = |byte: u8| if matches!(byte, 0xEE | 0xEF) { byte + 0x10 } else { byte };
    match a.bytes().zip(b.bytes()).find(|(a, b)| a != b) {
        Some((a, b)) => rank(a).cmp(&rank(b)),
        None => a.len().cmp(&b.len()),
    }
}

/// Appends `c` as it is written in a canonical string.
fn write_char(c: char, out: &mut Vec<u8>) {
    match c {
        '"' => out.extend_from_slice(b"\\\""),
        '\\' => out.extend_from_slice(b"\\\\"),
        '\u{8}' => out.extend_from_slice(b"\\b"),
        '\t' => out.extend_from_slice(b"\\t"),
        '\n' => out.extend_from_slice(b"\\n"),
        '\u{c}' => out.extend_from_slice(b"\\f"),
        '\r' => out.extend_from_slice(b"\\r"),
        c if c < ' ' => {
            let code = c as u8;
            let digit = b"0123456789abcdef"[usize::from(code & 15)];
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', b'0' + (code >> 4), digit]);
        }
        c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

/// Appends `text` as a canonical string.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, others) = rest.split_at(scan::plain_run(rest));
        out.extend_from_slice(plain);
        // A run ends before an ASCII character.
        let Some((&stop, after)) = others.split_first() else { break };
        write_char(char::from(stop), out);
        rest = after;
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_are_compared_by_their_utf_16_code_units(
            a in ".{0,3}",
            b in "[a\u{D7FF}\u{E000}\u{FFFF}\u{10000}\u{10FFFF}]{0,3}",
        ) {
            for (a, b) in [(&a, &b), (&b, &a), (&b, &b)] {
                prop_assert_eq!(compare_keys(a, b), a.encode_utf16().cmp(b.encode_utf16()));
            }
        }

        #[test]
        fn any_text_is_written_as_serde_json_writes_it(text in any::<String>()) {
            let mut written = Vec::new();
            write_string(&text, &mut written);
            prop_assert_eq!(String::from_utf8(written).unwrap(), serde_json::to_string(&text).unwrap());
        }
    }
}
