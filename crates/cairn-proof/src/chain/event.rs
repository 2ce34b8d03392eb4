//! From one event on the wire to its content.

use super::content::{Content, LastAgent};
use super::error::EventError;
use super::fields::{BESIDE_CONTENT, Field, FieldType, UNKNOWN};
use super::json::{self, Canonicalizer, Parser};
use super::slots::{Slot, Slots};
use super::source::EventSource;
use super::{scan, validate};

/// Reads events, with memory that is reused from one to the next.
#[derive(Default)]
pub struct EventReader {
    memory: Canonicalizer,
    /// The canonical values, in the order they were sent.
    values: Vec<u8>,
    /// Where in `values` each field is; `None` if absent or null.
    slots: Slots,
    /// Fields that the schema does not know: key and value.
    unknown: Vec<(Slot, Slot)>,
    warnings: Vec<String>,
    last_agent: LastAgent,
}

impl EventReader {
    /// Memory beyond this many bytes is given back by [`EventReader::trim`].
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
        source: EventSource<'_>,
        limit: usize,
    ) -> Result<(Content<'_>, usize), EventError> {
        self.values.clear();
        self.slots = Slots::default();
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
        let added_labels = source.add_labels(&mut self.values, &mut self.slots);
        let mut content =
            Content::of(&self.values, self.slots, &mut self.warnings, source, limit, &mut self.last_agent)?;
        content.added_labels = added_labels;
        Ok((content, end))
    }

    /// Gives back the memory that an unusually large event needed.
    pub fn trim(&mut self) {
        if self.values.capacity() > EventReader::KEEP_BYTES {
            *self = EventReader::default();
        }
    }

    /// Moves the unknown fields into `metadata._unknown`.
    fn keep_unknown(&mut self, limit: usize) -> Result<(), EventError> {
        let values = &self.values;
        let bytes = |slot: &Slot| &values[slot.start..slot.end];
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
        self.slots[Field::Metadata as usize] = Some(Slot { start, end: self.values.len() });
        Ok(())
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

/// The parts of a [`EventReader`] that the members of an event are read into.
struct Fields<'r> {
    values: &'r mut Vec<u8>,
    slots: &'r mut [Option<Slot>],
    unknown: &'r mut Vec<(Slot, Slot)>,
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
        let key = Slot { start, end: self.values.len() };
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
        let value = Slot { start: value, end: self.values.len() };
        let is_null = self.values[value.start..] == *b"null";
        let ignored = match (field, beside) {
            (Some(field), _) if field.field_type() == FieldType::ServerSet => Some(field.name()),
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
