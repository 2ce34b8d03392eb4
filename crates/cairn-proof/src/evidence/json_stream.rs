//! A JSON text that may be longer than memory, read value by value.
//!
//! Only brackets, commas and colons between the values are read here, and where a value ends; what is in it is for a
//! parser to say, which gets it whole.

use std::io::{self, Read};

use crate::chain::scan;

/// The longest a value may be. Longer events are taken only by servers whose `limits.event_bytes` says so.
const VALUE_BYTES: usize = 64 << 20;
/// How much is read at a time.
const READ_BYTES: usize = 256 << 10;

/// Why a text cannot be read on.
#[derive(Debug)]
pub enum Stop {
    /// The file cannot be read.
    Io(io::Error),
    /// What is in it is wrong.
    Wrong(String),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Io(error)
    }
}

/// A JSON text.
pub struct JsonStream<R> {
    file: R,
    buffer: Vec<u8>,
    /// The next unread byte.
    at: usize,
    /// How many bytes of the file are no longer in the buffer.
    before: u64,
    is_end: bool,
}

impl<R: Read> JsonStream<R> {
    /// From its first byte on.
    pub fn new(file: R) -> JsonStream<R> {
        JsonStream { file, buffer: Vec::new(), at: 0, before: 0, is_end: false }
    }

    /// Says what is wrong, and where.
    pub fn wrong(&self, why: &str) -> Stop {
        Stop::Wrong(format!("{why} (at byte {})", self.before + self.at as u64))
    }

    /// Reads more of the file behind what is unread.
    fn fill(&mut self) -> io::Result<()> {
        self.before += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        // As much again as there is: so a long value is looked through a few times, not once per read.
        let more = self.buffer.len().max(READ_BYTES);
        let read = self.file.by_ref().take(more as u64).read_to_end(&mut self.buffer)?;
        self.is_end = read < more;
        Ok(())
    }

    /// The next byte that is no white space, unread; `None` at the end.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                    return Ok(Some(*byte));
                }
                self.at += 1;
            }
            if self.is_end {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// Reads `byte` if it comes next.
    pub fn accept(&mut self, byte: u8) -> io::Result<bool> {
        let is_next = self.peek()? == Some(byte);
        self.at += usize::from(is_next);
        Ok(is_next)
    }

    /// Reads `byte`, which has to come next.
    pub fn require(&mut self, byte: u8) -> Result<(), Stop> {
        if self.accept(byte)? {
            return Ok(());
        }
        let expected = char::from(byte);
        Err(match self.peek()? {
            None => self.wrong(&format!("not JSON: expected `{expected}`, and the file ends")),
            Some(_) => self.wrong(&format!("not JSON: expected `{expected}`")),
        })
    }

    /// Reads a value. It is a text between brackets that belong together, or quotes, or up to what ends a number or a
    /// word; whether it is JSON is not looked at.
    pub fn value(&mut self) -> Result<&str, Stop> {
        self.peek()?;
        let mut value = Extent::default();
        let length = loop {
            match value.look_at(&self.buffer[self.at..]) {
                Some(length) => break length,
                None if self.is_end => return Err(self.wrong("not JSON: the file ends within a value, or before one")),
                None if self.buffer.len() - self.at > VALUE_BYTES => {
                    return Err(self.wrong(&format!("a value is longer than {} MiB", VALUE_BYTES >> 20)));
                }
                None => self.fill()?,
            }
        };
        let range = self.at..self.at + length;
        self.at = range.end;
        match std::str::from_utf8(&self.buffer[range]) {
            Ok(text) => Ok(text.trim_ascii_end()),
            Err(_) => Err(Stop::Wrong(format!("not UTF-8 (before byte {})", self.before + self.at as u64))),
        }
    }

    /// Whether there is one more element in an array whose `[` was read; `is_first` for the one behind it.
    pub fn has_element(&mut self, is_first: bool) -> Result<bool, Stop> {
        if self.accept(b']')? {
            return Ok(false);
        }
        if !is_first {
            self.require(b',')?;
        }
        Ok(true)
    }
}

/// How far a value goes. Goes on where it was when there is more of the value.
#[derive(Default)]
struct Extent {
    /// How many bytes were looked at.
    seen: usize,
    depth: usize,
    is_string: bool,
    is_escape: bool,
}

impl Extent {
    /// The length of the value that `bytes` begin with; `None` if they do not have its end.
    fn look_at(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(&byte) = bytes.get(self.seen) {
            self.seen += 1;
            if self.is_escape {
                self.is_escape = false;
            } else if self.is_string {
                match byte {
                    b'"' if self.depth == 0 => return Some(self.seen),
                    b'"' => self.is_string = false,
                    b'\\' => self.is_escape = true,
                    _ => self.seen += scan::plain_run(&bytes[self.seen..]),
                }
            } else {
                match byte {
                    b'"' => self.is_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' | b',' if self.depth == 0 => return Some(self.seen - 1),
                    b'}' | b']' if self.depth == 1 => return Some(self.seen),
                    b'}' | b']' => self.depth -= 1,
                    _ => {}
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len()).min(self.0.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn values_are_found_however_the_bytes_come() {
        // A control character is for the parser to refuse.
        let long = format!("\"{}\u{1}\"", "ä€😀\\\"[".repeat(100_000));
        let text = format!(" [ 1 , {{\"a\":[\"]\"]}} ,\n{long},true ]");
        for drop in [1usize, 7, 1 << 20] {
            let mut stream = JsonStream::new(Drops(text.as_bytes(), drop));
            stream.require(b'[').unwrap();
            let mut found = Vec::new();
            while stream.has_element(found.is_empty()).unwrap() {
                found.push(stream.value().unwrap().to_owned());
            }
            assert_eq!(found, ["1", "{\"a\":[\"]\"]}", &long, "true"]);
            assert_eq!(stream.peek().unwrap(), None);
        }
    }

    #[test]
    fn a_text_that_ends_too_early_is_never_taken_for_a_whole_one() {
        let text = r#"[{"a":"b"},[1,2],"x\"y",17]"#;
        for end in 0..text.len() {
            let mut stream = JsonStream::new(&text.as_bytes()[..end]);
            let mut read = || -> Result<(), Stop> {
                stream.require(b'[')?;
                let mut is_first = true;
                while stream.has_element(is_first)? {
                    stream.value()?;
                    is_first = false;
                }
                Ok(())
            };
            assert!(matches!(read(), Err(Stop::Wrong(_))), "{end}");
        }
    }

    #[test]
    fn a_value_that_does_not_end_is_not_read_into_memory() {
        let endless = io::repeat(b'[');
        let mut stream = JsonStream::new(endless);
        assert!(matches!(stream.value(), Err(Stop::Wrong(why)) if why.contains("longer than")));
        assert!(stream.buffer.capacity() <= 4 * VALUE_BYTES);
        let failing = Drops(b"[1,", 1).chain(Failing);
        let mut stream = JsonStream::new(failing);
        stream.require(b'[').unwrap_or_default();
        assert!(matches!(stream.value(), Err(Stop::Io(_))));
    }

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
}
