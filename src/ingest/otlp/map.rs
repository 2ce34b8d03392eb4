//! From the items of a request to drafts of events.

use std::borrow::Cow;

use uuid::Uuid;

use super::family::Family;
use super::record::{Ordinals, Record};
use super::request::{Item, Items, Origins, Signal};
use super::span::{self, Span};
use super::value::{Fault, Json};
use crate::chain::json::{Canonicalizer, Fault as JsonFault};
use crate::chain::{Reader, WayIn};
use crate::ingest::accept::READER;
use crate::ingest::config::{OtlpConfig, Select};
use crate::ledger::record::Draft;

/// How much longer the protobuf form of something can be than its JSON: names take two bytes more than in JSON, numbers up
/// to eight.
const LONGEST: usize = 4;

/// An item in JSON is longer than this many bytes for each of its attributes.
const SHORTEST_ATTRIBUTE: usize = 4;

/// What is kept of an item until the request is stored: where it stands in its family, or how often it was seen.
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

/// What became of an item.
pub enum Mapped {
    /// A draft, and the id of its event.
    Draft(Draft, Uuid),
    /// It is not wanted here (`ingest.otlp.select`).
    Left,
}

/// Maps the items of one request.
pub struct Mapper<'a> {
    signal: Signal,
    /// How many the request has.
    items: usize,
    limits: Limits,
    select: Select,
    default_agent: &'a str,
    origins: Origins<'a>,
    family: Family<'a>,
    ordinals: Ordinals,
    memory: Canonicalizer,
    json: Json,
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
            limits,
            select: config.select,
            default_agent: &config.agent_id,
            origins: Origins::default(),
            family: Family::default(),
            ordinals: Ordinals::default(),
            memory: Canonicalizer::default(),
            json: Json::default(),
        };
        mapper.look(request)?;
        Ok(mapper)
    }

    fn look(&mut self, request: &'a [u8]) -> Result<(), Fault> {
        let mut spread = 0usize;
        for item in Items::of(request) {
            let item = item?;
            self.items += 1;
            spread = spread.saturating_add(item.resource.len() + item.scope.len() + item.message.len());
            if self.items > self.limits.items {
                let (most, what) = (self.limits.items, self.signal.item());
                return Err(Fault::TooLarge(format!("the request has more than {most} {what}s (limits.otlp_records)")));
            }
            if spread > self.limits.spread {
                let message = "the request is too large once each event has its resource (limits.body_bytes)";
                return Err(Fault::TooLarge(message.to_owned()));
            }
            self.origins.of(&item)?;
            match self.signal {
                Signal::Logs => Record::read(item.message)?.check()?,
                Signal::Traces => {
                    let span = Span::read(item.message)?;
                    span.check()?;
                    if let Ok(key) = span.key() {
                        self.family.add(key, span.parent(), span.agent().map(|(_, name)| name));
                    }
                }
            }
        }
        Ok(())
    }

    /// How much it keeps for each item of the request, in bytes.
    pub fn memory(&self) -> usize {
        self.items * ITEM_BYTES
    }

    /// Maps one item.
    ///
    /// # Errors
    /// When it can never be an event.
    pub fn map(&mut self, item: &Item<'a>) -> Result<Mapped, Fault> {
        if item.message.len() > self.limits.event.saturating_mul(LONGEST) {
            return Err(self.too_long());
        }
        self.json.bytes.clear();
        self.json.is_mended = false;
        self.json.raw(b"{");
        let id = match self.signal {
            Signal::Traces => self.write_span(item)?,
            Signal::Logs => self.write_record(item)?,
        };
        match id {
            Some(id) => self.draft(id, Vec::new()).map(|draft| Mapped::Draft(draft, id)),
            None => Ok(Mapped::Left),
        }
    }

    /// Maps one item whose id belongs to a different event: it is stored beside that one.
    ///
    /// # Errors
    /// As for [`Mapper::map`].
    pub fn map_beside(&mut self, item: &Item<'a>) -> Result<Mapped, Fault> {
        let Mapped::Draft(draft, taken) = self.map(item)? else { return Ok(Mapped::Left) };
        let id = Uuid::new_v5(&taken, draft.canonical());
        let warning = format!("id: {taken} belongs to a different event that is already stored");
        // The id is the last member, and as long as any other.
        self.json.bytes.truncate(self.json.bytes.len() - end_with(taken).len());
        self.draft(id, vec![warning]).map(|draft| Mapped::Draft(draft, id))
    }

    fn too_long(&self) -> Fault {
        let limit = self.limits.event;
        Fault::Refused(format!("the {} is longer than {limit} bytes (limits.event_bytes)", self.signal.item()))
    }

    fn write_span(&mut self, item: &Item<'a>) -> Result<Option<Uuid>, Fault> {
        let mut span = Span::read(item.message)?;
        if self.select == Select::Agent && !span.attributes.are_of_an_agent() {
            return Ok(None);
        }
        let key = span.key()?;
        let origin = self.origins.of(item)?;
        let is_too_long = span.attributes.len() > self.limits.event / SHORTEST_ATTRIBUTE
            || origin.resource_json.bytes.len() > self.limits.event;
        if is_too_long {
            return Err(self.too_long());
        }
        let named = span.agent().map(|(_, name)| name);
        let agent = named
            .or_else(|| span.parent().and_then(|parent| self.family.agent_above(parent).cloned()))
            .or_else(|| origin.service())
            .unwrap_or(Cow::Borrowed(self.default_agent));
        span.write(&mut self.json, origin, &agent, &mut self.memory)?;
        self.json.is_mended |= origin.is_mended();
        Ok(Some(span::id_of(key)))
    }

    fn write_record(&mut self, item: &Item<'a>) -> Result<Option<Uuid>, Fault> {
        let mut record = Record::read(item.message)?;
        let origin = self.origins.of(item)?;
        let is_too_long = record.attributes.len() > self.limits.event / SHORTEST_ATTRIBUTE
            || origin.resource_json.bytes.len() > self.limits.event;
        if is_too_long {
            return Err(self.too_long());
        }
        let named = record.agent().map(|(_, name)| name);
        let agent = named.or_else(|| origin.service()).unwrap_or(Cow::Borrowed(self.default_agent));
        record.write(&mut self.json, origin, &agent, &mut self.memory)?;
        self.json.is_mended |= origin.is_mended();
        Ok(Some(self.ordinals.id(&self.json.bytes)))
    }

    /// Reads what was written as an event with this id.
    fn draft(&mut self, id: Uuid, mut warnings: Vec<String>) -> Result<Draft, Fault> {
        self.json.raw(end_with(id).as_bytes());
        if self.json.is_mended {
            warnings.push("text that was not UTF-8 was replaced by U+FFFD".to_owned());
        }
        let text = std::str::from_utf8(&self.json.bytes).map_err(|error| Fault::Refused(error.to_string()))?;
        READER.with_borrow_mut(|reader: &mut Reader| {
            let read = reader.read(text, 0, WayIn::OTLP, self.limits.event);
            let draft = read.map(|(content, _)| Draft::with_warnings(&content, &warnings));
            reader.trim();
            draft.map_err(|error| match error.fault {
                JsonFault::TooLong => self.too_long(),
                JsonFault::Syntax | JsonFault::Content => Fault::Refused(error.message),
            })
        })
    }
}

/// The end of an event's object.
fn end_with(id: Uuid) -> String {
    format!(r#","id":"{id}"}}"#)
}
