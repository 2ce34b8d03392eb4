//! Maps the items of a request to drafts of events.

use std::borrow::Cow;

use uuid::Uuid;

use super::event::{ResourceScope, uuid_v5};
use super::family::Family;
use super::record::{Ordinals, Record};
use super::request::{Item, Items, ResourceScopeCache, Signal};
use super::span::{self, Span};
use super::value::{Fault, Json};
use crate::ingest::config::{OtlpConfig, Select};
use crate::ledger::format::record::Draft;
use cairn_proof::chain::json::{Fault as JsonFault, ParserScratch};
use cairn_proof::chain::{Content, DefaultLabels, EventSource, Field, LastAgent};

/// The maximum ratio of the protobuf form of a value to its JSON form: an array element `0,` takes eleven bytes as a
/// double.
const MAX_PROTOBUF_RATIO: usize = 6;

/// The minimum length of a member of a JSON object, in bytes.
const MIN_MEMBER_BYTES: usize = 4;

/// The memory that is kept per item until the request is stored, in bytes: its entry in [`Family`] or [`Ordinals`].
const ITEM_BYTES: usize = 64;

/// The limits of a request and its items.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum length of an event, in canonical bytes.
    pub event: usize,
    /// The maximum number of items in a request.
    pub items: usize,
    /// The maximum expanded size of a request, in bytes: each item counts with the resource and the scope that it
    /// shares with others.
    pub expanded_bytes: usize,
}

impl Limits {
    /// The maximum number of members of an object in an event.
    fn members(&self) -> usize {
        self.event / MIN_MEMBER_BYTES
    }
}

/// The result of mapping an item.
#[expect(clippy::large_enum_variant, reason = "nearly all values are drafts, and a box would cost an allocation")]
pub enum Mapped {
    /// A draft, and the id of its event.
    Draft(Draft, Uuid),
    /// The span is excluded by `ingest.otlp.select`.
    Unselected,
}

/// What was written to `Mapper::json`: an event without its id.
enum Written {
    /// A span, with the id of its event.
    Span(Uuid),
    /// A log record. Its id is derived from what was written.
    Record,
    /// Nothing: the span is excluded by `ingest.otlp.select`.
    Unselected,
}

/// Maps the items of one request.
pub struct Mapper<'a> {
    signal: Signal,
    /// The number of items in the request.
    items: usize,
    /// The expanded size of the request, see [`Limits::expanded_bytes`].
    expanded_bytes: usize,
    limits: Limits,
    select: Select,
    default_agent: &'a str,
    source: EventSource<'a>,
    resource_scopes: ResourceScopeCache<'a>,
    family: Family<'a>,
    ordinals: Ordinals,
    scratch: ParserScratch,
    json: Json,
    last_agent: LastAgent,
}

impl<'a> Mapper<'a> {
    /// Checks the whole request before any of it is stored, and records the parents of its spans.
    ///
    /// # Errors
    /// When the request is malformed, has too many items, or is too large.
    pub fn new(signal: Signal, request: &'a [u8], config: &'a OtlpConfig, limits: Limits) -> Result<Mapper<'a>, Fault> {
        let mut mapper = Mapper {
            signal,
            items: 0,
            expanded_bytes: 0,
            limits,
            select: config.select,
            default_agent: &config.agent_id,
            source: EventSource::OTLP,
            resource_scopes: ResourceScopeCache::new(limits.members()),
            family: Family::default(),
            ordinals: Ordinals::default(),
            scratch: ParserScratch::default(),
            json: Json::new(limits.members()),
            last_agent: LastAgent::default(),
        };
        mapper.check_request(request)?;
        Ok(mapper)
    }

    /// Adds default labels to every event.
    pub fn with_labels(self, labels: &'a DefaultLabels) -> Mapper<'a> {
        Mapper { source: EventSource::OTLP.with_labels(labels), ..self }
    }

    fn check_request(&mut self, request: &'a [u8]) -> Result<(), Fault> {
        let mut last: (&[u8], &[u8]) = (&[], &[]);
        for item in Items::of(request) {
            let item = item?;
            self.items += 1;
            self.expanded_bytes =
                self.expanded_bytes.saturating_add(item.resource.len() + item.scope.len() + item.message.len());
            if self.items > self.limits.items {
                let (max, item) = (self.limits.items, self.signal.item());
                return Err(Fault::TooLarge(format!("the request has more than {max} {item}s (limits.otlp_records)")));
            }
            if self.expanded_bytes > self.limits.expanded_bytes {
                let message =
                    "the request is too large once each item is counted with its resource (limits.body_bytes)";
                return Err(Fault::TooLarge(message.to_owned()));
            }
            if !(std::ptr::eq(last.0, item.resource) && std::ptr::eq(last.1, item.scope)) {
                ResourceScope::check(item.resource, item.scope)?;
                last = (item.resource, item.scope);
            }
            match self.signal {
                Signal::Logs => Record::check(item.message)?,
                Signal::Traces => {
                    let span = Span::outline(item.message)?;
                    if let Some(key) = span.key {
                        self.family.add(key, span.parent, span.agent);
                    }
                }
            }
        }
        Ok(())
    }

    /// The memory that the mapper keeps for the items of the request, in bytes.
    pub fn tracking_bytes(&self) -> usize {
        self.items * ITEM_BYTES
    }

    /// The expanded size of the request, in bytes, see [`Limits::expanded_bytes`].
    pub fn expanded_bytes(&self) -> usize {
        self.expanded_bytes
    }

    /// Maps one item.
    ///
    /// # Errors
    /// When the item can never be an event.
    pub fn map(&mut self, item: &Item<'a>) -> Result<Mapped, Fault> {
        let id = match self.write(item)? {
            Written::Span(id) => id,
            Written::Record => {
                // The id does not depend on default labels, because a repeated export may reach a server with other
                // labels.
                let canonical = self.with_content(EventSource::OTLP, |content| {
                    let mut canonical = Vec::with_capacity(content.canonical_len());
                    content.write(&mut canonical);
                    canonical
                })?;
                self.ordinals.id(&canonical)
            }
            Written::Unselected => return Ok(Mapped::Unselected),
        };
        self.draft(self.source, id, None).map(|draft| Mapped::Draft(draft, id))
    }

    /// Maps one item whose id, `taken`, belongs to a different event. Its draft gets a replacement id, derived from
    /// `taken` and the content, and a warning.
    ///
    /// # Errors
    /// As for [`Mapper::map`].
    pub fn map_with_replacement_id(&mut self, item: &Item<'a>, taken: Uuid) -> Result<Mapped, Fault> {
        if matches!(self.write(item)?, Written::Unselected) {
            return Ok(Mapped::Unselected);
        }
        // The replacement id does not depend on default labels either.
        let id = uuid_v5(&taken, self.draft(EventSource::OTLP, taken, None)?.canonical());
        let warning = format!("id: {taken} belongs to a different event that is already stored");
        self.draft(self.source, id, Some(warning)).map(|draft| Mapped::Draft(draft, id))
    }

    /// Writes the event of an item, without its id, to `json`.
    fn write(&mut self, item: &Item<'a>) -> Result<Written, Fault> {
        let too_long = || {
            let limit = self.limits.event;
            Fault::TooLong(format!("the {} is longer than {limit} bytes (limits.event_bytes)", self.signal.item()))
        };
        let may_fit = |part: &[u8]| part.len() <= self.limits.event.saturating_mul(MAX_PROTOBUF_RATIO);
        if ![item.resource, item.scope, item.message].into_iter().all(may_fit) {
            return Err(too_long());
        }
        let shared = self.resource_scopes.of(item)?;
        if shared.resource_json.bytes.len() + shared.scope_json.bytes.len() > self.limits.event {
            return Err(too_long());
        }
        let max_members = self.limits.members();
        let json = &mut self.json;
        json.clear();
        json.has_replacements = shared.has_replacements();
        let agent_name = |own: Option<Cow<'a, str>>, inherited: Option<Cow<'a, str>>| {
            own.or(inherited).or_else(|| shared.service()).unwrap_or(Cow::Borrowed(self.default_agent))
        };
        match self.signal {
            Signal::Traces => {
                let mut span = Span::read(item.message, max_members)?;
                if self.select == Select::Agent && !span.attributes.has_agent_attribute() {
                    return Ok(Written::Unselected);
                }
                let id = span::id_of(span.key()?);
                let own = span.attributes.take_agent();
                let parent = if own.is_none() { span.parent() } else { None };
                let agent = agent_name(own, parent.and_then(|parent| self.family.agent_of_ancestor(parent).cloned()));
                span.write(json, shared, agent, &mut self.scratch)?;
                Ok(Written::Span(id))
            }
            Signal::Logs => {
                let mut record = Record::read(item.message, max_members)?;
                let agent = agent_name(record.attributes.take_agent(), None);
                record.write(json, shared, agent, &mut self.scratch)?;
                Ok(Written::Record)
            }
        }
    }

    /// Adds the id to what was written, and returns the draft.
    fn draft(&mut self, source: EventSource<'_>, id: Uuid, warning: Option<String>) -> Result<Draft, Fault> {
        self.json.field(Field::Id);
        self.json.quoted(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        let replaced = self.json.has_replacements.then(|| "text that was not UTF-8 was replaced by U+FFFD".to_owned());
        let warnings: Vec<String> = warning.into_iter().chain(replaced).collect();
        self.with_content(source, |content| Draft::with_warnings(content, &warnings))
    }

    /// Checks that what was written is the content of an event, and passes it to `work`. What was written is canonical
    /// already: names are in order, numbers and strings in their canonical form.
    fn with_content<T>(&mut self, source: EventSource<'_>, work: impl FnOnce(&Content<'_>) -> T) -> Result<T, Fault> {
        let (mut slots, written) = (self.json.fields(), self.json.bytes.len());
        let added_labels = source.add_labels(&mut self.json.bytes, &mut slots);
        let mut warnings = Vec::new();
        let content =
            Content::of(&self.json.bytes, slots, &mut warnings, source, self.limits.event, &mut self.last_agent);
        let result = content.map(|mut content| {
            content.added_labels = added_labels;
            work(&content)
        });
        self.json.bytes.truncate(written);
        result.map_err(|error| match error.fault {
            JsonFault::TooLong => Fault::TooLong(format!("{} (limits.event_bytes)", error.message)),
            JsonFault::Syntax | JsonFault::Content => Fault::Refused(error.message),
        })
    }
}
