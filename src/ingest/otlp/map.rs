//! Maps the items of a request to drafts of events.

use std::borrow::Cow;

use uuid::Uuid;

use super::ancestors::{Ancestors, Unread};
use super::event::agent_id;
use super::facts::{Context, Facts};
use super::ids::uuid_v5;
use super::labels;
use super::mapping::compiled::Mapping;
use super::mapping::row::Target;
use super::notes::Note;
use super::omit::{replacement_of_text, shorten};
use super::record::{Record, RecordIds};
use super::request::{Item, Items, Signal};
use super::resource::ResourceScopeCache;
use super::span::Span;
use super::stored::{SpanIdentity, StoredEvents};
use super::value::{Fault, Json};
use crate::ingest::config::{OtlpConfig, Select};
use crate::ledger::format::record::Draft;
use crate::ledger::format::terms::LastLabels;
use cairn_proof::chain::json::{Fault as JsonFault, ParserScratch};
use cairn_proof::chain::{Content, EventSource, Field, LastValues};

/// The maximum ratio of the protobuf form of a value to its JSON form: an array element `0,` takes eleven bytes as a
/// double.
const MAX_PROTOBUF_RATIO: usize = 6;

/// The minimum length of a member of a JSON object, in bytes.
const MIN_MEMBER_BYTES: usize = 4;

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

    /// Whether the resource and the scope of an item may fit into an event. Larger ones are not read at all.
    fn may_fit(&self, item: &Item<'_>) -> bool {
        [item.resource, item.scope].into_iter().all(|part| part.len() <= self.shared_len())
    }

    /// The maximum length of a resource and a scope, in bytes.
    fn shared_len(&self) -> usize {
        self.event.saturating_mul(MAX_PROTOBUF_RATIO)
    }
}

/// What the mapping of a request uses of its surroundings.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The settings.
    pub config: &'a OtlpConfig,
    /// The mapping.
    pub mapping: &'a Mapping,
    /// The events that are stored.
    pub stored: &'a dyn StoredEvents,
    /// The limits.
    pub limits: Limits,
}

/// The result of mapping an item.
#[expect(clippy::large_enum_variant, reason = "nearly all values are drafts, and a box would cost an allocation")]
pub enum Mapped {
    /// A draft, and the id of its event.
    Draft(Draft, Uuid),
    /// The span is excluded by `ingest.otlp.select`.
    Unselected,
    /// The log record is stored already.
    Stored,
}

/// What was written to `Mapper::json`: an event without its id.
enum Written {
    /// A span, with the id of its event.
    Span(Uuid),
    /// A log record, whose id is derived from what was written.
    Record {
        /// Whether the record has a time.
        is_timed: bool,
        /// The id of the event of its span.
        span: Option<Uuid>,
    },
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
    around: Surroundings<'a>,
    source: EventSource<'a>,
    resource_scopes: ResourceScopeCache<'a>,
    ancestors: Ancestors<'a>,
    /// The span of the last log record: the id of its event, and its agent and session.
    last_span: Option<(Uuid, Option<SpanIdentity>)>,
    record_ids: RecordIds<'a>,
    facts: Facts<'a>,
    scratch: ParserScratch,
    json: Json,
    warnings: Vec<String>,
    labels: labels::LastLabels<'a>,
    last_values: LastValues,
    /// The terms of the labels of the last event.
    last_labels: LastLabels,
}

impl<'a> Mapper<'a> {
    /// Checks the form and the size of the whole request before any of it is stored, and records the agents and sessions
    /// of its spans. An item that cannot be read is refused later, when it is mapped.
    ///
    /// # Errors
    /// When the request is malformed outside of its items, has too many items, or is too large.
    pub fn new(signal: Signal, request: &'a [u8], around: Surroundings<'a>) -> Result<Mapper<'a>, Fault> {
        let max_members = around.limits.members();
        let mut mapper = Mapper {
            signal,
            items: 0,
            expanded_bytes: 0,
            around,
            source: EventSource::OTLP,
            resource_scopes: ResourceScopeCache::new(max_members),
            ancestors: Ancestors::new(None),
            last_span: None,
            record_ids: RecordIds::new(request),
            facts: Facts::default(),
            scratch: ParserScratch::default(),
            json: Json::new(max_members).with_long_texts(around.limits.event, replacement_of_text),
            warnings: Vec::new(),
            labels: labels::LastLabels::default(),
            last_values: LastValues::default(),
            last_labels: LastLabels::default(),
        };
        mapper.check_request(request)?;
        Ok(mapper)
    }

    /// Sets what the server adds to every event.
    pub fn with_source(self, source: EventSource<'a>) -> Mapper<'a> {
        Mapper { source, ..self }
    }

    fn check_request(&mut self, request: &'a [u8]) -> Result<(), Fault> {
        let limits = self.around.limits;
        for item in Items::of(request) {
            let item = item?;
            self.items += 1;
            self.expanded_bytes =
                self.expanded_bytes.saturating_add(item.resource.len() + item.scope.len() + item.message.len());
            if self.items > limits.items {
                let (max, item) = (limits.items, self.signal.item());
                return Err(Fault::TooLarge(format!("the request has more than {max} {item}s (limits.otlp_records)")));
            }
            if self.expanded_bytes > limits.expanded_bytes {
                let message =
                    "the request is too large once each item is counted with its resource (limits.body_bytes)";
                return Err(Fault::TooLarge(message.to_owned()));
            }
        }
        // A single span has no ancestors in its request.
        if self.signal == Signal::Traces && self.items > 1 {
            self.ancestors = Ancestors::new(Some(Unread {
                request,
                mapping: self.around.mapping,
                max_attributes: limits.members(),
                max_len: limits.shared_len(),
            }));
        }
        Ok(())
    }

    /// The memory that the mapper keeps for the items of the request, in bytes.
    pub fn tracking_bytes(&self) -> usize {
        self.items * Ancestors::NODE_BYTES.max(RecordIds::RECORD_BYTES)
    }

    /// The expanded size of the request, in bytes, see [`Limits::expanded_bytes`].
    pub fn expanded_bytes(&self) -> usize {
        self.expanded_bytes
    }

    /// The number of items in the request.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The warnings of the event that was mapped last.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Maps one item. `notes` become warnings of the event.
    ///
    /// # Errors
    /// When the item can never be an event.
    pub fn map(&mut self, item: &Item<'a>, notes: &[Note]) -> Result<Mapped, Fault> {
        match self.write(item, notes, None)? {
            Written::Span(id) => self.draft(self.source, id).map(|draft| Mapped::Draft(draft, id)),
            Written::Record { is_timed, span } => self.map_record(item, notes, is_timed, span),
            Written::Unselected => Ok(Mapped::Unselected),
        }
    }

    /// Maps a log record that was written without the agent and session of its span. Its id is derived from that, so it
    /// does not depend on whether the span has arrived before; nor does it depend on default labels, because a repeated
    /// export may reach a server with other labels.
    fn map_record(
        &mut self,
        item: &Item<'a>,
        notes: &[Note],
        is_timed: bool,
        span: Option<Uuid>,
    ) -> Result<Mapped, Fault> {
        let canonical = self.with_content(EventSource::OTLP, None, |content, _, _| {
            let mut canonical = Vec::with_capacity(content.canonical_len());
            content.write(&mut canonical);
            canonical
        })?;
        let id = self.record_ids.next(&canonical, is_timed);
        if let Some(identity) = span.and_then(|span| self.identity_of(span)) {
            if self.around.stored.contains(id) {
                return Ok(Mapped::Stored);
            }
            self.write(item, notes, Some(&identity))?;
        }
        self.draft(self.source, id).map(|draft| Mapped::Draft(draft, id))
    }

    /// The agent and session of a stored span. Consecutive records often have the same span.
    fn identity_of(&mut self, span: Uuid) -> Option<SpanIdentity> {
        match &self.last_span {
            Some((last, identity)) if *last == span => identity.clone(),
            _ => {
                let identity = self.around.stored.identity(span);
                self.last_span = Some((span, identity.clone()));
                identity
            }
        }
    }

    /// Maps one item whose id, `taken`, belongs to a different event. Its draft gets a replacement id, derived from
    /// `taken` and the content, and a warning.
    ///
    /// # Errors
    /// As for [`Mapper::map`].
    pub fn map_with_replacement_id(&mut self, item: &Item<'a>, notes: &[Note], taken: Uuid) -> Result<Mapped, Fault> {
        match self.write(item, notes, None)? {
            Written::Unselected => return Ok(Mapped::Unselected),
            Written::Record { span: Some(span), .. } => {
                if let Some(identity) = self.identity_of(span) {
                    self.write(item, notes, Some(&identity))?;
                }
            }
            _ => {}
        }
        // The replacement id does not depend on default labels either.
        let id = uuid_v5(&taken, self.draft(EventSource::OTLP, taken)?.canonical());
        self.warnings.insert(0, format!("id: {taken} belongs to a different event that is already stored"));
        self.draft(self.source, id).map(|draft| Mapped::Draft(draft, id))
    }

    /// Writes the event of an item, without its id, to `json`. `identity` is that of the span of a log record.
    fn write(&mut self, item: &Item<'a>, notes: &[Note], identity: Option<&SpanIdentity>) -> Result<Written, Fault> {
        let Surroundings { config, mapping, limits, .. } = self.around;
        let too_long = || {
            let limit = limits.event;
            Fault::TooLong(format!("the {} is longer than {limit} bytes (limits.event_bytes)", self.signal.item()))
        };
        if !limits.may_fit(item) {
            return Err(too_long());
        }
        let shared = self.resource_scopes.of(item, mapping)?;
        if shared.len() > limits.event {
            return Err(too_long());
        }
        let source = self.source;
        let (facts, json, warnings) = (&mut self.facts, &mut self.json, &mut self.warnings);
        facts.clear();
        json.clear();
        warnings.clear();
        warnings.extend(notes.iter().map(|note| note.text.to_string()));
        json.has_replacements = shared.has_replacements();
        let mut context = Context {
            mapping,
            signal: self.signal,
            shared,
            relatives: &mut self.ancestors,
            parent: None,
            span: identity,
            default_agent: &config.agent_id,
            action_type: Cow::Borrowed(""),
            is_own_only: false,
        };
        match self.signal {
            Signal::Traces => {
                let span = Span::read(item.message, facts, mapping, limits.members())?;
                context.parent = span.parent();
                if config.select == Select::Agent && facts.value(Target::Selected, &mut context, json).is_none() {
                    return Ok(Written::Unselected);
                }
                let key = span.key()?;
                span.warn_of_ids(&key, warnings);
                let agent = take_agent(facts, &mut context, json, warnings);
                span.write(json, facts, &mut context, agent, &mut self.labels, &mut self.scratch)?;
                finish(json, source, limits.event, warnings);
                Ok(Written::Span(key.event_id()))
            }
            Signal::Logs => {
                let record = Record::read(item.message, facts, mapping, limits.members())?;
                record.warn_of_ids(warnings);
                let agent = take_agent(facts, &mut context, json, warnings);
                record.write(json, facts, &mut context, agent, &mut self.labels, &mut self.scratch)?;
                finish(json, source, limits.event, warnings);
                let span = record.span().map(|span| span.event_id());
                Ok(Written::Record { is_timed: record.is_timed(), span })
            }
        }
    }

    /// Adds the id to what was written, and returns the draft.
    fn draft(&mut self, source: EventSource<'_>, id: Uuid) -> Result<Draft, Fault> {
        self.json.field(Field::Id);
        self.json.quoted(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        if self.json.has_replacements {
            self.json.has_replacements = false;
            self.warnings.push("text that was not UTF-8 was replaced by U+FFFD".to_owned());
        }
        self.with_content(source, Some(id), Draft::next)
    }

    /// Passes what was written, with its `id`, to `work` as the content of an event. What was written is valid, and canonical
    /// already: names are in order, numbers and strings in their canonical form.
    fn with_content<T>(
        &mut self,
        source: EventSource<'_>,
        id: Option<Uuid>,
        work: impl FnOnce(&Content<'_>, &[String], &mut LastLabels) -> T,
    ) -> Result<T, Fault> {
        let (mut slots, written) = (self.json.fields(), self.json.bytes.len());
        let added_labels = source.add_labels(&mut self.json.bytes, &mut slots);
        let (limit, mut own_warnings) = (self.around.limits.event, Vec::new());
        let values = &self.json.bytes;
        let content = Content::of_valid(values, slots, id, &mut own_warnings, source, limit, &mut self.last_values);
        let result = content.map(|mut content| {
            content.added_labels = added_labels;
            work(&content, &self.warnings, &mut self.last_labels)
        });
        self.json.bytes.truncate(written);
        result.map_err(|error| match error.fault {
            JsonFault::TooLong => Fault::TooLong(format!("{} (limits.event_bytes)", error.message)),
            JsonFault::Syntax | JsonFault::Content => Fault::Refused(error.message),
        })
    }
}

/// The agent of a record, whose attribute is then not repeated in the metadata.
fn take_agent<'a>(
    facts: &mut Facts<'a>,
    context: &mut Context<'_, 'a>,
    json: &Json,
    warnings: &mut Vec<String>,
) -> Cow<'a, str> {
    let Some((name, taken)) = facts.text(Target::AgentId, context, json) else {
        return Cow::Borrowed(context.default_agent);
    };
    facts.mark_used(taken);
    let (agent, warning) = agent_id(name);
    warnings.extend(warning);
    agent
}

/// Removes secrets, also from warnings, and replaces the largest values of an event that would be too long, with a warning.
fn finish(json: &mut Json, source: EventSource<'_>, limit: usize, warnings: &mut Vec<String>) {
    json.redact(source);
    warnings.iter_mut().for_each(|warning| *warning = source.message(std::mem::take(warning)));
    let omitted = json.omitted + if json.bytes.len() + limit / 16 > limit { shorten(json, limit) } else { 0 };
    if omitted > 0 {
        let message = "were longer than an event can hold (limits.event_bytes), and are replaced by length and SHA-256";
        warnings.push(format!("{omitted} values {message}"));
    }
}
