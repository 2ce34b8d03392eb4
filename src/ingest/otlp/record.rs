//! Reads a log record, and writes it as an event. `docs/otlp.md` specifies the mapping.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::event::{write_content, write_text};
use super::facts::{Context, Facts};
use super::ids::{SpanId, SpanKey, TraceId, uuid_v5};
use super::labels::LastLabels;
use super::mapping::compiled::Mapping;
use super::mapping::row::Target;
use super::request::Signal;
use super::resource::ResourceScope;
use super::span::{take_user, write_outcome};
use super::value::{Fault, Json, METADATA_MEMBER_LEVEL};
use super::wire::Fields;
use cairn_proof::chain::json::ParserScratch;
use cairn_proof::chain::{DEFAULT_ACTION_TYPE, Field, time};

/// The namespace of the ids of log records.
const NAMESPACE: Uuid = Uuid::from_u128(0x42a361c1_0476_4a55_b899_0499996154ff);

/// Assigns the ids of the log records of one request.
pub struct RecordIds<'a> {
    /// The whole request.
    request: &'a [u8],
    /// The SHA-256 of the request, once it is needed.
    digest: Option<[u8; 32]>,
    /// The number of identical records so far, by the id of the first one.
    seen: HashMap<Uuid, u64, foldhash::fast::RandomState>,
}

impl<'a> RecordIds<'a> {
    /// The memory for each record, in bytes: an entry and its share of the table.
    pub const RECORD_BYTES: usize = 2 * size_of::<(Uuid, u64)>();

    /// The ids of a request.
    pub fn new(request: &'a [u8]) -> RecordIds<'a> {
        RecordIds { request, digest: None, seen: HashMap::default() }
    }

    /// The id of the next record whose mapped event is `content`. Two identical records without a time, in two requests,
    /// are two events unless the requests have the same bytes: then the second one is a repetition of the first.
    pub fn next(&mut self, content: &[u8], is_timed: bool) -> Uuid {
        let mut first = uuid_v5(&NAMESPACE, content);
        if !is_timed {
            let request = self.request;
            let digest = self.digest.get_or_insert_with(|| Sha256::digest(request).into());
            first = uuid_v5(&first, digest);
        }
        let ordinal = self.seen.entry(first).or_default();
        *ordinal += 1;
        match *ordinal {
            1 => first,
            ordinal => uuid_v5(&first, &ordinal.to_be_bytes()),
        }
    }
}

/// The fields of a log record that are not in its [`Facts`].
#[derive(Default)]
pub struct Record<'a> {
    time_ns: u64,
    observed_time_ns: u64,
    severity: Cow<'a, str>,
    dropped: u64,
    flags: u64,
    trace_id: &'a [u8],
    span_id: &'a [u8],
    event_name: Cow<'a, str>,
}

impl<'a> Record<'a> {
    /// Decodes a `LogRecord` with at most `max` attributes. Its attributes, body, name and severity go into `facts`,
    /// which are empty.
    ///
    /// # Errors
    /// When the message is malformed, or has too many attributes.
    pub fn read(message: &'a [u8], facts: &mut Facts<'a>, mapping: &Mapping, max: usize) -> Result<Record<'a>, Fault> {
        let mut record = Record::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => record.time_ns = field.fixed64()?,
                2 => facts.severity = field.varint()?,
                3 => record.severity = field.text()?,
                5 => facts.body = Some(field.bytes()?),
                6 => facts.attributes.push(field.bytes()?, mapping, Signal::Logs, max)?,
                7 => record.dropped = field.varint()?,
                8 => record.flags = field.fixed32()?,
                9 => record.trace_id = field.bytes()?,
                10 => record.span_id = field.bytes()?,
                11 => record.observed_time_ns = field.fixed64()?,
                12 => record.event_name = field.text()?,
                _ => {}
            }
        }
        facts.trace = TraceId::of(record.trace_id);
        // Senders put a source-code location into the field, too.
        match facts.attributes.text(mapping.event_name()) {
            Some(name) => {
                facts.attributes.mark_used(mapping.event_name());
                facts.name = name;
            }
            None => facts.name = std::mem::take(&mut record.event_name),
        }
        facts.note_rows(mapping, Signal::Logs);
        Ok(record)
    }

    /// Whether the record has a time.
    pub fn is_timed(&self) -> bool {
        self.time_ns != 0 || self.observed_time_ns != 0
    }

    /// The span in which the record was written.
    pub fn span(&self) -> Option<SpanKey<'a>> {
        SpanKey::of(self.trace_id, self.span_id)
    }

    /// Warnings about ids that are not as the protocol requires.
    pub fn warn_of_ids(&self, warnings: &mut Vec<String>) {
        if let Some(trace) = TraceId::of(self.trace_id).filter(|id| !id.is_valid()) {
            warnings.push(format!("trace_id: {trace} is not an id of 16 bytes, and is kept as text"));
        }
        if let Some(span) = SpanId::of(self.span_id).filter(|id| !id.is_valid()) {
            warnings.push(format!("span_id: {span} is not an id of 8 bytes, and is kept as text"));
        }
    }

    /// Writes the members of the JSON object of the event, except its id.
    ///
    /// # Errors
    /// When an attribute or the body cannot be a part of an event.
    pub fn write(
        &self,
        json: &mut Json,
        facts: &mut Facts<'a>,
        context: &mut Context<'_, 'a>,
        agent: Cow<'a, str>,
        labels: &mut LastLabels<'a>,
        scratch: &mut ParserScratch,
    ) -> Result<(), Fault> {
        json.field(Field::AgentId);
        json.text(agent);
        let action_type = facts.text(Target::ActionType, context, json).map(|(text, _)| text);
        context.action_type = action_type.unwrap_or(Cow::Borrowed(DEFAULT_ACTION_TYPE));
        json.field(Field::ActionType);
        json.quoted(context.action_type.as_bytes());
        write_text(json, Field::ActionName, Target::ActionName, facts, context);
        write_content(json, Field::ActionInput, Target::ActionInput, facts, context, scratch)?;
        write_content(json, Field::ActionOutput, Target::ActionOutput, facts, context, scratch)?;
        write_text(json, Field::SessionId, Target::SessionId, facts, context);
        write_outcome(json, facts, context);
        write_duration(json, facts, context);
        let time_ns = if self.time_ns == 0 { self.observed_time_ns } else { self.time_ns };
        if time_ns != 0 {
            json.field(Field::Timestamp);
            json.quoted(&time::format_ns(time_ns));
        }
        labels.write(json, context, &mut facts.attributes)?;
        let user = take_user(facts, context, json);
        json.field(Field::Metadata);
        json.raw(b"{");
        self.write_metadata(json, facts, context.shared, user)?;
        json.raw(b"}");
        Ok(())
    }

    /// Writes the members of `metadata`, in the order of their names.
    fn write_metadata(
        &self,
        json: &mut Json,
        facts: &Facts<'a>,
        shared: &ResourceScope<'a>,
        user: Option<Cow<'a, str>>,
    ) -> Result<(), Fault> {
        if facts.attributes.has_unused() {
            json.key("attributes");
            facts.attributes.write_unused(json)?;
        }
        if let Some(body) = facts.body.filter(|body| !body.is_empty() && !facts.is_body_used) {
            json.key("body");
            json.any(body, METADATA_MEMBER_LEVEL - 1)?;
        }
        json.number_unless_zero("dropped_attributes_count", self.dropped);
        json.text_unless_empty("event_name", self.event_name.clone());
        json.number_unless_zero("flags", self.flags);
        if self.observed_time_ns != 0 && self.time_ns != 0 {
            json.plain("observed_timestamp", &time::format_ns(self.observed_time_ns));
        }
        if let Some(span) = self.span() {
            json.plain("parent_id", span.event_id().hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        }
        shared.write(json);
        json.text_unless_empty("severity", self.severity.clone());
        json.number_unless_zero("severity_number", facts.severity);
        json.id_unless_missing("span_id", SpanId::of(self.span_id));
        json.id_unless_missing("trace_id", TraceId::of(self.trace_id));
        json.text_unless_empty("user_id", user.unwrap_or_default());
        Ok(())
    }
}

fn write_duration<'a>(json: &mut Json, facts: &mut Facts<'a>, context: &Context<'_, 'a>) {
    let key = context.mapping.duration_ms();
    let duration = facts.attributes.scalar_text(key).and_then(|text| text.parse::<f64>().ok());
    // Below this bound a double represents every integer exactly.
    if let Some(duration) = duration.filter(|duration| (0.0..9e15).contains(duration)) {
        facts.attributes.mark_used(key);
        json.field(Field::DurationMs);
        json.raw(itoa::Buffer::new().format(duration as u64).as_bytes());
    }
}
