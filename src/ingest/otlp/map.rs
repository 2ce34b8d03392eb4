//! From the items of a request to drafts of events.

use std::borrow::Cow;

use uuid::Uuid;

use super::event::{Origin, uuid_v5};
use super::family::Family;
use super::record::{Ordinals, Record};
use super::request::{Item, Items, Origins, Signal};
use super::span::{self, Span};
use super::value::{Fault, Json};
use crate::ingest::config::{OtlpConfig, Select};
use crate::ledger::format::record::Draft;
use cairn_proof::chain::json::{Canonicalizer, Fault as JsonFault};
use cairn_proof::chain::{Content, DefaultLabels, EventSource, Field, LastAgent};

/// How much longer the protobuf form of something can be than its JSON: an array's `0,` takes eleven bytes as a double.
const LONGEST: usize = 6;

/// A member of a JSON object is never shorter.
const SHORTEST_MEMBER: usize = 4;

/// What is kept of an item until the request is stored, in bytes: where it stands in its family, or how often it was seen.
const ITEM_BYTES: usize = 64;

/// How long an item can be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest event, in canonical bytes.
    pub event: usize,
    /// The most items of a request.
    pub items: usize,
    /// The most bytes of a request, each item with the resource and the scope that it shares with others.
    pub spread: usize,
}

impl Limits {
    /// The most members of an object that an event can hold.
    fn members(&self) -> usize {
        self.event / SHORTEST_MEMBER
    }
}

/// What became of an item.
#[expect(clippy::large_enum_variant, reason = "nearly all are drafts, and a box would be an allocation more")]
pub enum Mapped {
    /// A draft, and the id of its event.
    Draft(Draft, Uuid),
    /// It is not wanted here (`ingest.otlp.select`).
    Left,
}

/// What was written of an item: all but the id.
enum Written {
    /// A span, which has an id.
    Span(Uuid),
    /// A log record, whose id is made of what was written.
    Record,
    /// Nothing.
    Left,
}

/// Maps the items of one request.
pub struct Mapper<'a> {
    signal: Signal,
    /// How many the request has.
    items: usize,
    /// How many bytes they are, each with what it shares with others.
    spread: usize,
    limits: Limits,
    select: Select,
    default_agent: &'a str,
    source: EventSource<'a>,
    origins: Origins<'a>,
    family: Family<'a>,
    ordinals: Ordinals,
    memory: Canonicalizer,
    json: Json,
    last_agent: LastAgent,
}

impl<'a> Mapper<'a> {
    /// Looks at the whole request before anything of it is stored: whether it is one, and which spans belong together.
    ///
    /// # Errors
    /// When it is none, or has too many items.
    pub fn new(signal: Signal, request: &'a [u8], config: &'a OtlpConfig, limits: Limits) -> Result<Mapper<'a>, Fault> {
        let mut mapper = Mapper {
            signal,
            items: 0,
            spread: 0,
            limits,
            select: config.select,
            default_agent: &config.agent_id,
            source: EventSource::OTLP,
            origins: Origins::new(limits.members()),
            family: Family::default(),
            ordinals: Ordinals::default(),
            memory: Canonicalizer::default(),
            json: Json::new(limits.members()),
            last_agent: LastAgent::default(),
        };
        mapper.look(request)?;
        Ok(mapper)
    }

    /// The same with these labels on every event.
    pub fn with_labels(self, labels: &'a DefaultLabels) -> Mapper<'a> {
        Mapper { source: EventSource::OTLP.with_labels(labels), ..self }
    }

    fn look(&mut self, request: &'a [u8]) -> Result<(), Fault> {
        let mut last: (&[u8], &[u8]) = (&[], &[]);
        for item in Items::of(request) {
            let item = item?;
            self.items += 1;
            self.spread = self.spread.saturating_add(item.resource.len() + item.scope.len() + item.message.len());
            if self.items > self.limits.items {
                let (most, what) = (self.limits.items, self.signal.item());
                return Err(Fault::TooLarge(format!("the request has more than {most} {what}s (limits.otlp_records)")));
            }
            if self.spread > self.limits.spread {
                let message = "the request is too large once each event has its resource (limits.body_bytes)";
                return Err(Fault::TooLarge(message.to_owned()));
            }
            if !(std::ptr::eq(last.0, item.resource) && std::ptr::eq(last.1, item.scope)) {
                Origin::check(item.resource, item.scope)?;
                last = (item.resource, item.scope);
            }
            match self.signal {
                Signal::Logs => Record::check(item.message)?,
                Signal::Traces => {
                    let span = Span::glance(item.message)?;
                    if let Some(key) = span.key {
                        self.family.add(key, span.parent, span.agent);
                    }
                }
            }
        }
        Ok(())
    }

    /// How much it keeps for the items of the request, in bytes.
    pub fn memory(&self) -> usize {
        self.items * ITEM_BYTES
    }

    /// How many bytes the items are, each with the resource and the scope that it shares with others.
    pub fn spread(&self) -> usize {
        self.spread
    }

    /// Maps one item.
    ///
    /// # Errors
    /// When it can never be an event.
    pub fn map(&mut self, item: &Item<'a>) -> Result<Mapped, Fault> {
        let id = match self.write(item)? {
            Written::Span(id) => id,
            Written::Record => {
                // Where it came in is no part of it: it may come again, somewhere else.
                let canonical = self.with_content(EventSource::OTLP, |content| {
                    let mut canonical = Vec::with_capacity(content.canonical_len());
                    content.write(&mut canonical);
                    canonical
                })?;
                self.ordinals.id(&canonical)
            }
            Written::Left => return Ok(Mapped::Left),
        };
        self.draft(self.source, id, None).map(|draft| Mapped::Draft(draft, id))
    }

    /// Maps one item whose id belongs to a different event: it is stored beside that one.
    ///
    /// # Errors
    /// As for [`Mapper::map`].
    pub fn map_beside(&mut self, item: &Item<'a>, taken: Uuid) -> Result<Mapped, Fault> {
        if matches!(self.write(item)?, Written::Left) {
            return Ok(Mapped::Left);
        }
        // Where it came in is no part of it.
        let id = uuid_v5(&taken, self.draft(EventSource::OTLP, taken, None)?.canonical());
        let warning = format!("id: {taken} belongs to a different event that is already stored");
        self.draft(self.source, id, Some(warning)).map(|draft| Mapped::Draft(draft, id))
    }

    fn write(&mut self, item: &Item<'a>) -> Result<Written, Fault> {
        let too_long = || {
            let limit = self.limits.event;
            Fault::TooLong(format!("the {} is longer than {limit} bytes (limits.event_bytes)", self.signal.item()))
        };
        let is_possible = |part: &[u8]| part.len() <= self.limits.event.saturating_mul(LONGEST);
        if ![item.resource, item.scope, item.message].into_iter().all(is_possible) {
            return Err(too_long());
        }
        let origin = self.origins.of(item)?;
        if origin.resource_json.bytes.len() + origin.scope_json.bytes.len() > self.limits.event {
            return Err(too_long());
        }
        let most = self.limits.members();
        let json = &mut self.json;
        json.clear();
        json.is_mended = origin.is_mended();
        let named = |own: Option<Cow<'a, str>>, inherited: Option<Cow<'a, str>>| {
            own.or(inherited).or_else(|| origin.service()).unwrap_or(Cow::Borrowed(self.default_agent))
        };
        match self.signal {
            Signal::Traces => {
                let mut span = Span::read(item.message, most)?;
                if self.select == Select::Agent && !span.attributes.are_of_an_agent() {
                    return Ok(Written::Left);
                }
                let id = span::id_of(span.key()?);
                let own = span.attributes.use_agent();
                let parent = if own.is_none() { span.parent() } else { None };
                let agent = named(own, parent.and_then(|parent| self.family.agent_above(parent).cloned()));
                span.write(json, origin, agent, &mut self.memory)?;
                Ok(Written::Span(id))
            }
            Signal::Logs => {
                let mut record = Record::read(item.message, most)?;
                let agent = named(record.attributes.use_agent(), None);
                record.write(json, origin, agent, &mut self.memory)?;
                Ok(Written::Record)
            }
        }
    }

    /// The draft of what was written, with this id.
    fn draft(&mut self, source: EventSource<'_>, id: Uuid, warning: Option<String>) -> Result<Draft, Fault> {
        self.json.field(Field::Id);
        self.json.quoted(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        let mended = self.json.is_mended.then(|| "text that was not UTF-8 was replaced by U+FFFD".to_owned());
        let warnings: Vec<String> = warning.into_iter().chain(mended).collect();
        self.with_content(source, |content| Draft::with_warnings(content, &warnings))
    }

    /// Checks that what was written is an event's content. It is canonical: names are written in their order, numbers and
    /// strings in their only form.
    fn with_content<T>(&mut self, source: EventSource<'_>, work: impl FnOnce(&Content<'_>) -> T) -> Result<T, Fault> {
        let (mut slots, written) = (self.json.fields(), self.json.bytes.len());
        let added_labels = source.add_labels(&mut self.json.bytes, &mut slots);
        let mut warnings = Vec::new();
        let content =
            Content::of(&self.json.bytes, slots, &mut warnings, source, self.limits.event, &mut self.last_agent);
        let done = content.map(|mut content| {
            content.added_labels = added_labels;
            work(&content)
        });
        self.json.bytes.truncate(written);
        done.map_err(|error| match error.fault {
            JsonFault::TooLong => Fault::TooLong(format!("{} (limits.event_bytes)", error.message)),
            JsonFault::Syntax | JsonFault::Content => Fault::Refused(error.message),
        })
    }
}
