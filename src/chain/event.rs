//! From one event on the wire to its content: the fields that are hashed.
//!
//! The shard knows three values that ingest does not: the time of receipt, an id when the client sent none, and
//! the time-stamp when the client sent none. Their places are left as holes of fixed width, so that the bytes
//! written here are those that are hashed, stored and answered.

use std::fmt;

use uuid::Uuid;

use super::fields::{ACTION_STATUSES, ACTION_TYPES, BESIDE_CONTENT, Field, Kind, UNKNOWN};
use super::json::{self, Canonicalizer, Fault, Parser};
use super::link::AgentKey;
use super::{scan, string, time, validate};

/// The length of a UUID in its hyphenated form.
pub const UUID_LEN: usize = 36;

/// How an event came in; sets the fields that say so.
#[derive(Debug, Clone, Copy)]
pub struct WayIn {
    /// `source` when the client does not say.
    pub source: &'static str,
    /// `capture_method`.
    pub capture_method: &'static str,
}

impl WayIn {
    /// `POST /v1/events` and `POST /v1/batch`.
    pub const HTTP_API: WayIn = WayIn { source: "sdk", capture_method: "http-api" };
    /// `POST /api/v1/capture-session` and `/api/v1/capture-event`.
    pub const AGNOST_API: WayIn = WayIn { source: "agnost", capture_method: "agnost-api" };
    /// `POST /v1/traces` and `POST /v1/logs`.
    pub const OTLP: WayIn = WayIn { source: "otlp", capture_method: "otlp" };
}

/// Why an event is refused. Nothing of it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventError {
    /// Who is to blame.
    pub fault: Fault,
    /// Names the field, and what was expected.
    pub message: String,
}

impl EventError {
    pub(super) fn content(message: impl Into<String>) -> EventError {
        EventError { fault: Fault::Content, message: message.into() }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EventError {}

impl From<json::Error> for EventError {
    fn from(error: json::Error) -> EventError {
        EventError { fault: error.fault, message: error.to_string() }
    }
}

/// A range of [`Reader::values`].
#[derive(Clone, Copy)]
struct Span {
    start: usize,
    end: usize,
}

/// Reads events, with memory that is reused from one to the next.
#[derive(Default)]
pub struct Reader {
    memory: Canonicalizer,
    /// The canonical values, in the order they were sent.
    values: Vec<u8>,
    /// Where in `values` each field is; `None` if absent or null.
    slots: [Option<Span>; Field::ALL.len()],
    /// Fields that the schema does not know: key and value.
    unknown: Vec<(Span, Span)>,
    warnings: Vec<String>,
}

impl Reader {
    /// Memory beyond this many bytes is given back by [`Reader::trim`].
    const KEEP_BYTES: usize = 1 << 20;

    /// Reads the event that starts at byte `at` of `text`, and says where it ends.
    ///
    /// # Errors
    /// When the event is refused; [`skip`] finds its end then. Canonical values of more than `limit` bytes are
    /// too long.
    pub fn read(
        &mut self,
        text: &str,
        at: usize,
        way_in: WayIn,
        limit: usize,
    ) -> Result<(Content<'_>, usize), EventError> {
        self.values.clear();
        self.slots = [None; Field::ALL.len()];
        self.unknown.clear();
        self.warnings.clear();
        let mut parser = Parser::new(text, at, &mut self.memory, limit);
        if parser.peek() != Some(b'{') {
            parser.value(&mut self.values)?;
            let found = validate::shown(&self.values);
            return Err(EventError::content(format!("an event: expected an object, found {found}")));
        }
        let fields = Fields {
            values: &mut self.values,
            slots: &mut self.slots,
            unknown: &mut self.unknown,
            warnings: &mut self.warnings,
            seen: 0,
        };
        fields.read(&mut parser)?;
        let end = parser.position();
        self.keep_unknown(limit)?;
        let content = self.content(way_in)?;
        if content.canonical_len() > limit {
            let message = format!("the event is longer than {limit} bytes in canonical form");
            return Err(EventError { fault: Fault::TooLong, message });
        }
        Ok((content, end))
    }

    /// Gives back the memory that an unusually large event needed.
    pub fn trim(&mut self) {
        if self.values.capacity() > Reader::KEEP_BYTES {
            *self = Reader::default();
        }
    }

    /// Moves the unknown fields into `metadata._unknown`.
    fn keep_unknown(&mut self, limit: usize) -> Result<(), EventError> {
        let values = &self.values;
        let bytes = |span: &Span| &values[span.start..span.end];
        let metadata = self.slots[Field::Metadata as usize].as_ref().map(bytes);
        if metadata.is_some_and(|object| scan::member(object, UNKNOWN).is_some()) {
            return Err(validate::reserved_unknown());
        }
        if self.unknown.is_empty() {
            return Ok(());
        }
        self.unknown.sort_unstable_by(|a, b| bytes(&a.0).cmp(bytes(&b.0)));
        if let Some(pair) = self.unknown.windows(2).find(|pair| bytes(&pair[0].0) == bytes(&pair[1].0)) {
            return Err(EventError::content(format!("duplicate key {}", String::from_utf8_lossy(bytes(&pair[0].0)))));
        }
        let known = metadata.map_or(Ok(&b"{}"[..]), |object| validate::object(Field::Metadata.name(), object))?;
        let mut merged = format!("{{\"{UNKNOWN}\":{{").into_bytes();
        for (index, (key, value)) in self.unknown.iter().enumerate() {
            merged.extend_from_slice(if index == 0 { b"" } else { b"," });
            merged.extend_from_slice(bytes(key));
            merged.push(b':');
            merged.extend_from_slice(bytes(value));
        }
        merged.push(b'}');
        merged.extend_from_slice(if known.len() > 2 { b"," } else { b"" });
        merged.extend_from_slice(&known[1..]);
        let names: Vec<_> = self.unknown.iter().map(|(key, _)| String::from_utf8_lossy(bytes(key))).collect();
        self.warnings.push(unknown_warning(&names));
        // Canonical values were UTF-8 before they were put together.
        let merged = String::from_utf8_lossy(&merged);
        let start = self.values.len();
        let mut parser = Parser::new(&merged, 0, &mut self.memory, limit.saturating_add(start));
        // The event itself is level 1.
        parser.deepen(1);
        parser.value(&mut self.values).map_err(|error| error.inside(Field::Metadata.name()))?;
        self.slots[Field::Metadata as usize] = Some(Span { start, end: self.values.len() });
        Ok(())
    }

    /// Checks what the fields hold.
    fn content(&mut self, way_in: WayIn) -> Result<Content<'_>, EventError> {
        let Reader { values, slots, warnings, .. } = self;
        let value = |field: Field| slots[field as usize].map(|span| &values[span.start..span.end]);
        let agent_id = value(Field::AgentId).ok_or_else(|| EventError::content("agent_id is required"))?;
        let agent = AgentKey::of(&validate::agent_id(agent_id)?);
        for field in Field::ALL {
            if let Some(value) = value(field) {
                validate::field(field, value)?;
            }
        }
        for (field, known) in [(Field::ActionType, &ACTION_TYPES[..]), (Field::ActionStatus, &ACTION_STATUSES[..])] {
            warnings.extend(value(field).and_then(|value| validate::unusual(field, value, known)));
        }
        let client_id = value(Field::Id).and_then(|id| validate::uuid(id).ok());
        Ok(Content { values, slots: *slots, warnings, agent, client_id, way_in })
    }
}

/// Where the value that starts at byte `at` of `text` ends, whatever is wrong with it; the end of `text` if it
/// does not end.
pub fn skip(text: &str, at: usize) -> usize {
    let mut memory = Canonicalizer::default();
    let mut parser = Parser::new(text, at, &mut memory, usize::MAX);
    parser.peek();
    let start = parser.position();
    scan::value_len(&text.as_bytes()[start..]).map_or(text.len(), |len| start + len)
}

fn unknown_warning(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<_> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("unknown fields are kept in metadata.{UNKNOWN}: {}{more}", shown.join(", "))
}

/// The parts of a [`Reader`] that the members of an event are read into.
struct Fields<'r> {
    values: &'r mut Vec<u8>,
    slots: &'r mut [Option<Span>],
    unknown: &'r mut Vec<(Span, Span)>,
    warnings: &'r mut Vec<String>,
    /// One bit per field of the schema, then one per name of [`BESIDE_CONTENT`].
    seen: u32,
}

impl Fields<'_> {
    fn read(mut self, parser: &mut Parser<'_>) -> Result<(), json::Error> {
        parser.enter()?;
        if !parser.accept(b'}') {
            loop {
                self.member(parser)?;
                if !parser.accept(b',') {
                    break;
                }
            }
            parser.require(b'}')?;
        }
        parser.leave();
        Ok(())
    }

    fn member(&mut self, parser: &mut Parser<'_>) -> Result<(), json::Error> {
        let start = self.values.len();
        parser.key(self.values)?;
        let key = Span { start, end: self.values.len() };
        let name = &self.values[start + 1..key.end - 1];
        let field = Field::from_name(name);
        let beside = BESIDE_CONTENT.iter().position(|beside| beside.as_bytes() == name);
        if let Some(bit) = field.map(|field| field as usize).or(beside.map(|index| Field::ALL.len() + index)) {
            if self.seen & (1 << bit) != 0 {
                return Err(parser.content(format!("duplicate key {}", String::from_utf8_lossy(&self.values[start..]))));
            }
            self.seen |= 1 << bit;
        }
        let value = self.values.len();
        parser.value(self.values).map_err(|error| {
            let name = scan::text(&self.values[key.start..key.end]).unwrap_or_default();
            error.inside(&name)
        })?;
        let value = Span { start: value, end: self.values.len() };
        let is_null = self.values[value.start..] == *b"null";
        let ignored = match (field, beside) {
            (Some(field), _) if field.kind() == Kind::ServerSet => Some(field.name()),
            (Some(_), _) if is_null => Some(""),
            (Some(field), _) => {
                self.slots[field as usize] = Some(value);
                None
            }
            (None, Some(index)) => Some(BESIDE_CONTENT[index]),
            (None, None) => {
                self.unknown.push((key, value));
                None
            }
        };
        if let Some(name) = ignored {
            // What is not kept does not count against the length of the event.
            self.values.truncate(start);
            if !is_null {
                self.warnings.push(format!("{name} is set by the server: what was sent is ignored"));
            }
        }
        Ok(())
    }
}

/// The content of one event, ready to be written as canonical bytes.
pub struct Content<'r> {
    values: &'r [u8],
    slots: [Option<Span>; Field::ALL.len()],
    /// What is unusual about the event, in words.
    pub warnings: &'r [String],
    /// Whose event it is.
    pub agent: AgentKey,
    /// The id that the client sent, if it did.
    pub client_id: Option<Uuid>,
    way_in: WayIn,
}

/// Where canonical bytes wait for what only the shard knows. Offsets are in bytes from their start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holes {
    /// [`UUID_LEN`] bytes, if the client sent no id.
    pub id: Option<usize>,
    /// [`time::LEN`] bytes.
    pub received_at: usize,
    /// [`time::LEN`] bytes, if the client sent no time-stamp: the time of receipt, too.
    pub timestamp: Option<usize>,
}

impl Content<'_> {
    /// The value of `field` as the client sent it, in canonical form.
    pub fn value(&self, field: Field) -> Option<&[u8]> {
        self.slots[field as usize].map(|span| &self.values[span.start..span.end])
    }

    /// What stands for `field`: a value, a hole of that many bytes, or nothing.
    fn part(&self, field: Field) -> Part<'_> {
        if let Some(value) = self.value(field) {
            return Part::Value(value);
        }
        match field {
            Field::ActionType => Part::Text("CUSTOM"),
            Field::CaptureMethod => Part::Text(self.way_in.capture_method),
            Field::Id => Part::Hole(UUID_LEN),
            Field::ReceivedAt | Field::Timestamp => Part::Hole(time::LEN),
            Field::SchemaVersion => Part::Text("1.0"),
            Field::Source => Part::Text(self.way_in.source),
            _ => Part::Nothing,
        }
    }

    /// How many bytes [`Content::write`] appends.
    pub fn canonical_len(&self) -> usize {
        let member = |field: Field| {
            let value = match self.part(field) {
                Part::Value(value) => value.len(),
                Part::Text(text) => text.len() + 2,
                Part::Hole(len) => len + 2,
                Part::Nothing => return 0,
            };
            r#""":,"#.len() + field.name().len() + value
        };
        1 + Field::ALL.into_iter().map(member).sum::<usize>()
    }

    /// Appends the canonical bytes, with zeros in the holes.
    pub fn write(&self, out: &mut Vec<u8>) -> Holes {
        let start = out.len();
        let mut holes = Holes { id: None, received_at: 0, timestamp: None };
        let mut separator = b'{';
        for field in Field::ALL {
            let part = self.part(field);
            if matches!(part, Part::Nothing) {
                continue;
            }
            out.push(separator);
            separator = b',';
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            match part {
                Part::Value(value) => out.extend_from_slice(value),
                Part::Text(text) => string::write_string(text, out),
                Part::Hole(len) => {
                    let at = out.len() + 1 - start;
                    match field {
                        Field::Id => holes.id = Some(at),
                        Field::Timestamp => holes.timestamp = Some(at),
                        _ => holes.received_at = at,
                    }
                    out.push(b'"');
                    out.resize(out.len() + len, b'0');
                    out.push(b'"');
                }
                Part::Nothing => {}
            }
        }
        out.push(b'}');
        holes
    }
}

enum Part<'a> {
    Value(&'a [u8]),
    Text(&'static str),
    Hole(usize),
    Nothing,
}
