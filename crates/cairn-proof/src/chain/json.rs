//! From a JSON text straight to its canonical bytes (RFC 8785, with the integers of [`super::number`]).
//!
//! No tree is built. Values are copied in the order they are read, strings in runs; an object whose keys turn
//! out not to be in order has its members moved once, when it closes. Key order is by UTF-16 code units.
//!
//! A text can be wrong in two ways. It may not be JSON at all ([`Fault::Syntax`]); or it is JSON that cannot be
//! kept exactly ([`Fault::Content`]): a duplicate key, a number that would be rounded, a lone surrogate,
//! nesting beyond [`MAX_DEPTH`], or too many bytes.

use std::cmp::Ordering;
use std::fmt;

use super::number::{self, Literal, NumberError};
use super::scan;

/// How deep arrays and objects may be nested. The outermost one is level 1.
pub const MAX_DEPTH: u32 = 128;

/// How many characters of the way to a value are shown.
const SHOWN_PATH: usize = 100;

/// What is wrong with a JSON text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not JSON (RFC 8259).
    Syntax,
    /// It is JSON, but cannot be kept exactly.
    Content,
    /// Its canonical form is longer than the limit.
    TooLong,
}

/// The first thing that is wrong with a JSON text, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Who is to blame: the encoder, or what was encoded.
    pub fault: Fault,
    /// Byte offset in the text.
    pub at: usize,
    /// The way to the value, as `metadata.models[3]`; empty at the top.
    pub path: String,
    /// What was expected.
    pub message: String,
}

impl Error {
    /// Says that the value stands inside the member or element `step`.
    pub fn inside(mut self, step: &str) -> Error {
        let separator = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{step}{separator}{}", self.path);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.char_indices().nth(SHOWN_PATH) {
            Some((end, _)) => write!(f, "{}...: ", &self.path[..end])?,
            None if self.path.is_empty() => {}
            None => write!(f, "{}: ", self.path)?,
        }
        write!(f, "{} (at byte {})", self.message, self.at)
    }
}

impl std::error::Error for Error {}

/// The canonical bytes of one JSON text.
///
/// # Errors
/// See [`Fault`].
pub fn canonicalize(text: &str) -> Result<Vec<u8>, Error> {
    let mut canonicalizer = Canonicalizer::default();
    let mut out = Vec::with_capacity(text.len());
    let mut parser = Parser::new(text, 0, &mut canonicalizer, usize::MAX);
    parser.value(&mut out)?;
    parser.end()?;
    Ok(out)
}

/// One member of an open object: where its canonical key starts and ends, and where its value ends.
#[derive(Clone, Copy)]
struct Member {
    start: u32,
    key_end: u32,
    end: u32,
    /// The key's bytes sort as its UTF-16 code units do.
    sorts_bytewise: bool,
}

/// Memory that is reused from one text to the next.
#[derive(Default)]
pub struct Canonicalizer {
    /// The members of all objects that are open, the innermost one's last.
    members: Vec<Member>,
    /// Members on their way to their sorted places.
    moved: Vec<u8>,
}

/// Reads one JSON text from left to right.
pub struct Parser<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    depth: u32,
    memory: &'a mut Canonicalizer,
    /// The most bytes that canonical output may have.
    limit: usize,
}

impl<'a> Parser<'a> {
    /// Starts at byte `at` of `text`; canonical output beyond `limit` bytes is refused.
    ///
    /// The text must be shorter than 4 GiB.
    pub fn new(text: &'a str, at: usize, memory: &'a mut Canonicalizer, limit: usize) -> Parser<'a> {
        memory.members.clear();
        Parser { text, at, depth: 0, memory, limit }
    }

    /// Where the next unread byte is.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next byte that is no white space, unread.
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

    /// Reads `byte` if it comes next.
    pub fn accept(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Reads `byte`, which has to come next.
    pub fn require(&mut self, byte: u8) -> Result<(), Error> {
        if self.accept(byte) { Ok(()) } else { Err(self.unexpected(&format!("`{}`", char::from(byte)))) }
    }

    /// Nothing but white space may follow.
    pub fn end(&mut self) -> Result<(), Error> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the text")) }
    }

    /// One level deeper: the caller has seen `{` or `[`.
    pub fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.content(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.at += 1;
        Ok(())
    }

    /// Counts what is read next as nested `levels` deeper than it stands in the text.
    pub fn deepen(&mut self, levels: u32) {
        self.depth += levels;
    }

    /// One level back: the caller has read `}` or `]`.
    pub fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Reads any value and appends its canonical form.
    pub fn value(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self.peek() {
            Some(b'"') => self.string(out)?,
            Some(b'{') => self.object(out)?,
            Some(b'[') => self.array(out)?,
            Some(b'-' | b'0'..=b'9') => self.number(out)?,
            Some(b't') => self.word("true", out)?,
            Some(b'f') => self.word("false", out)?,
            Some(b'n') => self.word("null", out)?,
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
        let first = self.memory.members.len();
        let mut in_order = true;
        if !self.accept(b'}') {
            loop {
                let member = self.member(out)?;
                if let Some(last) = self.memory.members[first..].last() {
                    in_order &= compare_keys(out, last, &member) == Ordering::Less;
                }
                self.memory.members.push(member);
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
        self.memory.members.truncate(first);
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

    /// Reads a key and the colon behind it, and appends the key's canonical form.
    pub fn key(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected("a key in double quotes"));
        }
        self.string(out)?;
        self.require(b':')
    }

    /// Moves the members from `first` on, which end `out`, to their sorted places.
    fn sort_members(&mut self, first: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let Canonicalizer { members, moved } = &mut *self.memory;
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

    fn word(&mut self, word: &str, out: &mut Vec<u8>) -> Result<(), Error> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        out.extend_from_slice(word.as_bytes());
        Ok(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        let start = self.at;
        self.at += usize::from(self.next_is(b"-"));
        let leading_zero = self.next_is(b"0");
        let whole = self.digits()?;
        if leading_zero && whole > 1 {
            self.at = start;
            return Err(self.syntax("a number may not start with a zero"));
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
                NumberError::Inexact => format!("the integer {shown} cannot be kept exactly: send it as a string"),
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

    fn unexpected(&mut self, wanted: &str) -> Error {
        let found = match self.peek() {
            None => "the text ends".to_owned(),
            Some(_) => match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
                Some(c) => format!("found {c:?}"),
                None => "found a part of a character".to_owned(),
            },
        };
        self.error(Fault::Syntax, format!("not JSON: expected {wanted}, {found}"))
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

/// The first byte of U+E000. Below it, UTF-8 sorts as UTF-16 does; above, surrogates come in between.
pub(super) const FIRST_UNORDERED_BYTE: u8 = 0xEE;

/// The order of two members of one object by the UTF-16 code units of their keys.
fn compare_keys(out: &[u8], a: &Member, b: &Member) -> Ordering {
    let key = |member: &Member| &out[member.start as usize + 1..member.key_end as usize - 1];
    if a.sorts_bytewise && b.sorts_bytewise {
        return key(a).cmp(key(b));
    }
    scan::utf16(key(a)).cmp(scan::utf16(key(b)))
}

/// A canonical key, quotes included, as people read it.
fn key_text(canonical: &[u8]) -> String {
    scan::text(canonical).unwrap_or_default().into_owned()
}
