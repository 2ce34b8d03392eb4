//! Reads one event as it was received, and turns it into its content.
//!
//! The rules are specified in `docs/events.md`: what is refused, what is ignored, and how unknown fields are stored.

use super::content::{Content, LastValues};
use super::error::EventError;
use super::fields::{Field, FieldType, OUTSIDE_CONTENT, UNKNOWN};
use super::json::{self, Parser, ParserScratch};
use super::slots::{Slot, Slots};
use super::source::EventSource;
use super::{scan, validate};

/// Reads events. Its buffers are reused from event to event.
#[derive(Default)]
pub struct EventReader {
    scratch: ParserScratch,
    /// The canonical values, in the order in which they were sent.
    values: Vec<u8>,
    /// The place of each field in `values`; `None` if absent or null.
    slots: Slots,
    /// The key and the value of each field that is not in the schema.
    unknown: Vec<(Slot, Slot)>,
    warnings: Vec<String>,
    last_values: LastValues,
}

impl EventReader {
    /// The capacity of the buffers that [`EventReader::trim`] retains, in bytes.
    const RETAINED_BYTES: usize = 1 << 20;

    /// Reads the event that starts at byte `at` of `text`. Returns its content and the offset of its end.
    ///
    /// `limit` is the maximum length of the canonical bytes.
    ///
    /// # Errors
    /// When the event is refused. [`skip`] finds its end then.
    pub fn read(
        &mut self,
        text: &str,
        at: usize,
        source: EventSource<'_>,
        limit: usize,
    ) -> Result<(Content<'_>, usize), EventError> {
        let read = self.read_event(text, at, source, limit);
        read.map_err(|error| EventError { message: source.message(error.message), ..error })
    }

    fn read_event(
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
        let mut parser = Parser::new(text, at, &mut self.scratch, limit);
        if parser.peek() != Some(b'{') {
            parser.value(&mut self.values)?;
            let found = validate::preview(&self.values);
            return Err(EventError::content(format!("event: expected an object, found {found}")));
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
        self.store_unknown(limit)?;
        source.redact(&mut self.values, &mut self.slots);
        for warning in &mut self.warnings {
            *warning = source.message(std::mem::take(warning));
        }
        let added_labels = source.add_labels(&mut self.values, &mut self.slots);
        let mut content =
            Content::of(&self.values, self.slots, &mut self.warnings, source, limit, &mut self.last_values)?;
        content.added_labels = added_labels;
        Ok((content, end))
    }

    /// Releases the buffers if an unusually large event has enlarged them.
    pub fn trim(&mut self) {
        if self.values.capacity() > EventReader::RETAINED_BYTES {
            *self = EventReader::default();
        }
    }

    /// Moves the unknown fields into `metadata._unknown`.
    fn store_unknown(&mut self, limit: usize) -> Result<(), EventError> {
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
        let members = metadata.map_or(Ok(&b"{}"[..]), |object| validate::object(Field::Metadata.name(), object))?;
        let mut merged = format!("{{\"{UNKNOWN}\":{{").into_bytes();
        for (index, (key, value)) in self.unknown.iter().enumerate() {
            merged.extend_from_slice(if index == 0 { b"" } else { b"," });
            merged.extend_from_slice(bytes(key));
            merged.push(b':');
            merged.extend_from_slice(bytes(value));
        }
        merged.push(b'}');
        merged.extend_from_slice(if members.len() > 2 { b"," } else { b"" });
        merged.extend_from_slice(&members[1..]);
        let names: Vec<_> = self.unknown.iter().map(|(key, _)| String::from_utf8_lossy(bytes(key))).collect();
        self.warnings.push(unknown_warning(&names));
        // Canonical values are UTF-8, so this copies nothing.
        let merged = String::from_utf8_lossy(&merged);
        let start = self.values.len();
        let mut parser = Parser::new(&merged, 0, &mut self.scratch, limit.saturating_add(start));
        // `metadata` is inside the event, which is level 1.
        parser.deepen(1);
        parser.value(&mut self.values).map_err(|error| error.inside(Field::Metadata.name()))?;
        self.slots[Field::Metadata as usize] = Some(Slot { start, end: self.values.len() });
        Ok(())
    }
}

/// Returns the offset of the end of the value that starts at byte `at` of `text`, without validating it; the length of
/// `text` if the value does not end.
pub fn skip(text: &str, at: usize) -> usize {
    let mut scratch = ParserScratch::default();
    let mut parser = Parser::new(text, at, &mut scratch, usize::MAX);
    parser.peek();
    let start = parser.position();
    scan::value_len(&text.as_bytes()[start..]).map_or(text.len(), |len| start + len)
}

fn unknown_warning(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<_> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = if names.len() > SHOWN { format!(" and {} more", names.len() - SHOWN) } else { String::new() };
    format!("unknown fields are stored in metadata.{UNKNOWN}: {}{more}", shown.join(", "))
}

/// The buffers of an [`EventReader`] into which the members of an event are read.
struct Fields<'r> {
    values: &'r mut Vec<u8>,
    slots: &'r mut [Option<Slot>],
    unknown: &'r mut Vec<(Slot, Slot)>,
    warnings: &'r mut Vec<String>,
    /// One bit per field of the schema, then one per name of [`OUTSIDE_CONTENT`].
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
        let outside = OUTSIDE_CONTENT.iter().position(|outside| outside.as_bytes() == name);
        if let Some(bit) = field.map(|field| field as usize).or(outside.map(|index| Field::ALL.len() + index)) {
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
        let ignored = match (field, outside) {
            (Some(field), _) if field.field_type() == FieldType::ServerSet => Some(field.name()),
            (Some(_), _) if is_null => Some(""),
            (Some(field), _) => {
                self.slots[field as usize] = Some(value);
                None
            }
            (None, Some(index)) => Some(OUTSIDE_CONTENT[index]),
            (None, None) => {
                self.unknown.push((key, value));
                None
            }
        };
        if let Some(name) = ignored {
            // Ignored fields do not count towards the length of the event.
            self.values.truncate(start);
            if !is_null {
                self.warnings.push(format!("{name} is set by the server: the value sent is ignored"));
            }
        }
        Ok(())
    }
}
