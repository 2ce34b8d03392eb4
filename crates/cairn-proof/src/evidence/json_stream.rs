//! Reads a JSON text of any size value by value, with memory for its longest value.
//!
//! The stream reads the punctuation between values, and finds the end of each value. It does not check what is inside a
//! value: the caller parses it.

use std::io::{self, Read};

use crate::chain::scan;

/// The maximum length of a value, in bytes. A longer event exists only if `limits.event_bytes` of the server permits
/// it.
const MAX_VALUE_BYTES: usize = 64 << 20;
/// The number of bytes of one read.
const READ_BYTES: usize = 256 << 10;

/// Why reading stopped.
#[derive(Debug)]
pub enum StreamError {
    /// The file cannot be read.
    Io(io::Error),
    /// The content of the file is invalid.
    Invalid(String),
}

impl From<io::Error> for StreamError {
    fn from(error: io::Error) -> StreamError {
        StreamError::Io(error)
    }
}

/// A JSON text that is read from a file.
pub struct JsonStream<R> {
    file: R,
    buffer: Vec<u8>,
    /// The next unread byte.
    at: usize,
    /// The number of bytes of the file before the buffer.
    discarded: u64,
    is_eof: bool,
}

impl<R: Read> JsonStream<R> {
    /// Reads a text from the beginning of `file`.
    pub fn new(file: R) -> JsonStream<R> {
        JsonStream { file, buffer: Vec::new(), at: 0, discarded: 0, is_eof: false }
    }

    /// Returns an error with the current position.
    pub fn invalid(&self, why: &str) -> StreamError {
        StreamError::Invalid(format!("{why} (at byte {})", self.discarded + self.at as u64))
    }

    /// Discards what was read, and appends more of the file to what is unread.
    fn fill(&mut self) -> io::Result<()> {
        self.discarded += self.at as u64;
        self.buffer.drain(..self.at);
        self.at = 0;
        // Doubling the buffer bounds how often the bytes of a long value are moved.
        let more = self.buffer.len().max(READ_BYTES);
        let read = self.file.by_ref().take(more as u64).read_to_end(&mut self.buffer)?;
        self.is_eof = read < more;
        Ok(())
    }

    /// Returns the next byte that is not white space, without reading it; `None` at the end.
    pub fn peek(&mut self) -> io::Result<Option<u8>> {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                    return Ok(Some(*byte));
                }
                self.at += 1;
            }
            if self.is_eof {
                return Ok(None);
            }
            self.fill()?;
        }
    }

    /// Reads `byte` if it is next; returns whether it was.
    pub fn accept(&mut self, byte: u8) -> io::Result<bool> {
        let is_next = self.peek()? == Some(byte);
        self.at += usize::from(is_next);
        Ok(is_next)
    }

    /// Reads `byte`, which must be next.
    pub fn require(&mut self, byte: u8) -> Result<(), StreamError> {
        if self.accept(byte)? {
            return Ok(());
        }
        let expected = char::from(byte);
        Err(match self.peek()? {
            None => self.invalid(&format!("not JSON: expected `{expected}`, but the file ends")),
            Some(_) => self.invalid(&format!("not JSON: expected `{expected}`")),
        })
    }

    /// Reads a value: up to the matching bracket or quote, or up to the punctuation after a number or a literal.
    /// Whether the value is valid JSON is not checked.
    pub fn value(&mut self) -> Result<&str, StreamError> {
        self.peek()?;
        let mut scanner = ValueScanner::default();
        let length = loop {
            match scanner.find_end(&self.buffer[self.at..]) {
                Some(length) => break length,
                None if self.is_eof => return Err(self.invalid("not JSON: the file ends within or before a value")),
                None if self.buffer.len() - self.at > MAX_VALUE_BYTES => {
                    return Err(self.invalid(&format!("a value is longer than {} MiB", MAX_VALUE_BYTES >> 20)));
                }
                None => self.fill()?,
            }
        };
        let range = self.at..self.at + length;
        self.at = range.end;
        match std::str::from_utf8(&self.buffer[range]) {
            Ok(text) => Ok(text.trim_ascii_end()),
            Err(_) => Err(StreamError::Invalid(format!("not UTF-8 (before byte {})", self.discarded + self.at as u64))),
        }
    }

    /// Whether an array has another element, after its `[` was read. Reads the comma before the element, or the `]`.
    /// `is_first` is set for the first element.
    pub fn has_element(&mut self, is_first: bool) -> Result<bool, StreamError> {
        if self.accept(b']')? {
            return Ok(false);
        }
        if !is_first {
            self.require(b',')?;
        }
        Ok(true)
    }
}

/// Finds the end of a value. The scan is resumed when more of the value is in the buffer.
#[derive(Default)]
struct ValueScanner {
    /// The number of bytes scanned.
    scanned: usize,
    depth: usize,
    is_string: bool,
    is_escape: bool,
}

impl ValueScanner {
    /// Returns the length of the value at the start of `bytes`; `None` if its end is not in them.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(&byte) = bytes.get(self.scanned) {
            self.scanned += 1;
            if self.is_escape {
                self.is_escape = false;
            } else if self.is_string {
                match byte {
                    b'"' if self.depth == 0 => return Some(self.scanned),
                    b'"' => self.is_string = false,
                    b'\\' => self.is_escape = true,
                    _ => self.scanned += scan::plain_run(&bytes[self.scanned..]),
                }
            } else {
                match byte {
                    b'"' => self.is_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' | b',' if self.depth == 0 => return Some(self.scanned - 1),
                    b'}' | b']' if self.depth == 1 => return Some(self.scanned),
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

    /// Returns at most the given number of bytes per read.
    struct Chunked<'a>(&'a [u8], usize);

    impl Read for Chunked<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(into.len()).min(self.0.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn values_are_found_for_every_size_of_a_read() {
        // The control character is not rejected here, but by the parser.
        let long = format!("\"{}\u{1}\"", "ä€😀\\\"[".repeat(100_000));
        let text = format!(" [ 1 , {{\"a\":[\"]\"]}} ,\n{long},true ]");
        for chunk in [1usize, 7, 1 << 20] {
            let mut stream = JsonStream::new(Chunked(text.as_bytes(), chunk));
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
    fn a_truncated_text_is_never_accepted() {
        let text = r#"[{"a":"b"},[1,2],"x\"y",17]"#;
        for end in 0..text.len() {
            let mut stream = JsonStream::new(&text.as_bytes()[..end]);
            let mut read = || -> Result<(), StreamError> {
                stream.require(b'[')?;
                let mut is_first = true;
                while stream.has_element(is_first)? {
                    stream.value()?;
                    is_first = false;
                }
                Ok(())
            };
            assert!(matches!(read(), Err(StreamError::Invalid(_))), "{end}");
        }
    }

    #[test]
    fn an_endless_value_is_rejected_with_bounded_memory() {
        let endless = io::repeat(b'[');
        let mut stream = JsonStream::new(endless);
        assert!(matches!(stream.value(), Err(StreamError::Invalid(why)) if why.contains("longer than")));
        assert!(stream.buffer.capacity() <= 4 * MAX_VALUE_BYTES);
        let failing = Chunked(b"[1,", 1).chain(Failing);
        let mut stream = JsonStream::new(failing);
        stream.require(b'[').unwrap_or_default();
        assert!(matches!(stream.value(), Err(StreamError::Io(_))));
    }

    struct Failing;

    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("disk failed"))
        }
    }
}
