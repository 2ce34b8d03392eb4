//! Canonicalizes a JSON text (RFC 8785, with the integers of [`super::number`]).
//!
//! No tree is built. Values are copied in the order in which they are read, strings in runs. The members of an object
//! whose keys are out of order are moved once, at its end. Keys are ordered by their UTF-16 code units.
//!
//! A text is rejected for one of three reasons ([`Fault`]): it is not JSON; it is JSON that cannot be represented
//! exactly (a duplicate key, an integer that would be rounded, a number out of range, a lone surrogate, or nesting
//! beyond [`MAX_DEPTH`]); or its canonical form is too long.

use std::cmp::Ordering;
use std::fmt;

use super::number::{self, Literal, NumberError};
use super::scan;

/// The maximum nesting of arrays and objects. The outermost one is level 1.
pub const MAX_DEPTH: u32 = 128;

/// The maximum number of characters of a path in a message.
const MAX_SHOWN_PATH: usize = 100;

/// The kind of error in a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON (RFC 8259).
    Syntax,
    /// It is JSON, but its content is not accepted: it cannot be represented exactly, or is not a valid event.
    Content,
    /// Its canonical form is longer than the limit.
    TooLong,
}

/// The first error in a JSON text, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The kind of error.
    pub fault: Fault,
    /// The offset of the error in the text, in bytes.
    pub at: usize,
    /// The path of the value, such as `metadata.models[3]`; empty at the top level.
    pub path: String,
    /// What was expected, or what is not accepted.
    pub message: String,
}

impl Error {
    /// Prepends `step`, the name of a member or the index of an element such as `[3]`, to the path.
    pub fn inside(mut self, step: &str) -> Error {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{separator}{}", self.path);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.char_indices().nth(MAX_SHOWN_PATH) {
            Some((end, _)) => write!(f, "{}...: ", &self.path[..end])?,
            None if self.path.is_empty() => {}
            None => write!(f, "{}: ", self.path)?,
        }
        write!(f, "{} (at byte {})", self.message, self.at)
    }
}

impl std::error::Error for Error {}

/// Returns the canonical bytes of a JSON text.
///
/// # Errors
/// When the text is not JSON, or cannot be represented exactly; see [`Fault`].
pub fn canonicalize(text: &str) -> Result<Vec<u8>, Error> {
    let mut scratch = ParserScratch::default();
    let mut out = Vec::with_capacity(text.len());
    let mut parser = Parser::new(text, 0, &mut scratch, usize::MAX);
    parser.value(&mut out)?;
    parser.end()?;
    Ok(out)
}

/// A member of an open object, as offsets in the output: start and end of its canonical key, and end of its value.
#[derive(Clone, Copy)]
struct Member {
    start: u32,
    key_end: u32,
    end: u32,
    /// Whether the bytes of the key sort in the same order as its UTF-16 code units.
    sorts_bytewise: bool,
}

/// The buffers of a [`Parser`], to be reused from text to text.
#[derive(Default)]
pub struct ParserScratch {
    /// The members of all open objects, those of the innermost object last.
    members: Vec<Member>,
    /// A copy of the members of an object while they are sorted.
    moved: Vec<u8>,
}

/// Reads a JSON text from left to right, and writes canonical values.
pub struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    depth: u32,
    scratch: &'a mut ParserScratch,
    /// The maximum length of the output, in bytes.
    limit: usize,
}

impl<'a> Parser<'a> {
    /// Starts at byte `at` of `text`. An output of more than `limit` bytes is an error.
    ///
    /// The text must be shorter than 4 GiB.
    pub fn new(text: &'a str, at: usize, scratch: &'a mut ParserScratch, limit: usize) -> Parser<'a> {
        scratch.members.clear();
        Parser { text, at, depth: 0, scratch, limit }
    }

    /// The offset of the next unread byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Skips white space, and returns the next byte without reading it; `None` at the end.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(byte) = bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    /// Reads `byte` if it is next, after white space; returns whether it was.
    pub fn accept(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Reads `byte`, which must be next, after white space.
    ///
    /// # Errors
    /// When another byte is next, or the text ends.
    pub fn require(&mut self, byte: u8) -> Result<(), Error> {
        if self.accept(byte) { Ok(()) } else { Err(self.unexpected(&format!("`{}`", char::from(byte)))) }
    }

    /// Checks that nothing but white space follows.
    ///
    /// # Errors
    /// When something else follows.
    pub fn end(&mut self) -> Result<(), Error> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the text")) }
    }

    /// Reads the `{` or `[` that is next, and enters a level of nesting.
    ///
    /// # Errors
    /// When the nesting is deeper than [`MAX_DEPTH`].
    pub fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.content(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.at += 1;
        Ok(())
    }

    /// Adds `levels` to the current nesting, for a text that will be nested in a larger one.
    pub fn deepen(&mut self, levels: u32) {
        self.depth += levels;
    }

    /// Leaves a level of nesting. The caller has read the `}` or `]`.
    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reads any value, and appends its canonical form to `out`.
    ///
    /// # Errors
    /// When the text is not JSON, cannot be represented exactly, or is too long in canonical form.
    pub fn value(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self.peek() {
            Some(b'"') => self.string(out)?,
            Some(b'{') => self.object(out)?,
            Some(b'[') => self.array(out)?,
            Some(b'-' | b'0'..=b'9') => self.number(out)?,
            Some(b't') => self.literal_name("true", out)?,
            Some(b'f') => self.literal_name("false", out)?,
            Some(b'n') => self.literal_name("null", out)?,
            _ => return Err(self.unexpected("a value")),
        }
        if out.len() > self.limit {
            let message = format!("longer than {} bytes in canonical form", self.limit);
            return Err(self.error(Fault::TooLong, message));
        }
        Ok(())
    }

    fn object(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.enter()?;
        out.push(b'{');
        let first = self.scratch.members.len();
        let mut in_order = true;
        if !self.accept(b'}') {
            loop {
                let member = self.member(out)?;
                if let Some(last) = self.scratch.members[first..].last() {
                    in_order &= compare_keys(out, last, &member) == Ordering::Less;
                }
                self.scratch.members.push(member);
                out.push(b',');
                if !self.accept(b',') {
                    self.require(b'}')?;
                    break;
                }
            }
            out.pop();
        }
        if !in_order {
            self.sort_members(first, out)?;
        }
        self.scratch.members.truncate(first);
        out.push(b'}');
        self.leave();
        Ok(())
    }

    fn member(&mut self, out: &mut Vec<u8>) -> Result<Member, Error> {
        let start = out.len();
        self.key(out)?;
        let key_end = out.len();
        out.push(b':');
        self.value(out).map_err(|error| error.inside(&key_text(&out[start..key_end])))?;
        let sorts_bytewise = out[start..key_end].iter().all(|&byte| byte != b'\\' && byte < FIRST_UNORDERED_BYTE);
        Ok(Member { start: start as u32, key_end: key_end as u32, end: out.len() as u32, sorts_bytewise })
    }

    /// Reads a key and the colon after it, and appends the canonical form of the key to `out`.
    ///
    /// # Errors
    /// When the text is not JSON, or the key has a lone surrogate.
    pub fn key(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a key in double quotes"));
        }
        self.string(out)?;
        self.require(b':')
    }

    /// Sorts the members of an object, from index `first` on. They are at the end of `out`.
    fn sort_members(&mut self, first: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let ParserScratch { members, moved } = &mut *self.scratch;
        let members = &mut members[first..];
        members.sort_unstable_by(|a, b| compare_keys(out, a, b));
        for pair in members.windows(2) {
            if compare_keys(out, &pair[0], &pair[1]) == Ordering::Equal {
                let key = key_text(&out[pair[0].start as usize..pair[0].key_end as usize]);
                return Err(self.content(format!("duplicate key {key:?}")));
            }
        }
        let start = members.iter().map(|member| member.start).min().unwrap_or_default() as usize;
        moved.clear();
        moved.extend_from_slice(&out[start..]);
        out.truncate(start);
        for member in members {
            out.extend_from_slice(&moved[member.start as usize - start..member.end as usize - start]);
            out.push(b',');
        }
        out.pop();
        Ok(())
    }

    fn array(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.enter()?;
        out.push(b'[');
        if !self.accept(b']') {
            for index in 0.. {
                self.value(out).map_err(|error| error.inside(&format!("[{index}]")))?;
                if !self.accept(b',') {
                    break;
                }
                out.push(b',');
            }
            self.require(b']')?;
        }
        out.push(b']');
        self.leave();
        Ok(())
    }

    fn literal_name(&mut self, name: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        if !self.text.as_bytes()[self.at..].starts_with(name.as_bytes()) {
            return Err(self.unexpected("a value"));
        }
        self.at += name.len();
        out.extend_from_slice(name.as_bytes());
        Ok(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = self.at;
        self.at += usize::from(self.next_is(b"-"));
        let leading_zero = self.next_is(b"0");
        let integer_digits = self.digits()?;
        if leading_zero && integer_digits > 1 {
            self.at = start;
            return Err(self.syntax("leading zero in a number"));
        }
        let mut is_integer = true;
        if self.next_is(b".") {
            is_integer = false;
            self.at += 1;
            self.digits()?;
        }
        if self.next_is(b"eE") {
            is_integer = false;
            self.at += 1;
            self.at += usize::from(self.next_is(b"+-"));
            self.digits()?;
        }
        let literal = Literal { text: &self.text[start..self.at], is_integer };
        number::write(literal, out).map_err(|error| {
            let shown: String = literal.text.chars().take(40).collect();
            self.at = start;
            self.content(match error {
                NumberError::Inexact => format!("the integer {shown} cannot be stored exactly: send it as a string"),
                NumberError::Overflow => format!("the number {shown} is out of range"),
            })
        })
    }

    fn next_is(&self, any_of: &[u8]) -> bool {
        self.text.as_bytes().get(self.at).is_some_and(|byte| any_of.contains(byte))
    }

    fn digits(&mut self) -> Result<usize, Error> {
        let rest = &self.text.as_bytes()[self.at..];
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        self.at += count;
        if count == 0 { Err(self.unexpected("a digit")) } else { Ok(count) }
    }

    fn unexpected(&mut self, expected: &str) -> Error {
        let found = match self.peek() {
            None => "the text ends".to_owned(),
            Some(_) => match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
                Some(c) => format!("found {c:?}"),
                None => "found part of a character".to_owned(),
            },
        };
        self.error(Fault::Syntax, format!("not JSON: expected {expected}, {found}"))
    }

    pub(super) fn syntax(&self, message: &str) -> Error {
        self.error(Fault::Syntax, format!("not JSON: {message}"))
    }

    pub(super) fn content(&self, message: String) -> Error {
        self.error(Fault::Content, message)
    }

    fn error(&self, fault: Fault, message: String) -> Error {
        Error { fault, at: self.at, path: String::new(), message }
    }
}

/// The first byte of U+E000 in UTF-8. Characters below sort the same in UTF-8 and in UTF-16; from there on the orders
/// differ, because of surrogates.
pub(super) const FIRST_UNORDERED_BYTE: u8 = 0xEE;

/// Compares two members of an object by the UTF-16 code units of their keys.
fn compare_keys(out: &[u8], a: &Member, b: &Member) -> Ordering {
    let key = |member: &Member| &out[member.start as usize + 1..member.key_end as usize - 1];
    if a.sorts_bytewise && b.sorts_bytewise {
        return key(a).cmp(key(b));
    }
    scan::utf16(key(a)).cmp(scan::utf16(key(b)))
}

/// The text of a canonical key in quotes, unescaped.
fn key_text(canonical: &[u8]) -> String {
    scan::text(canonical).unwrap_or_default().into_owned()
}
