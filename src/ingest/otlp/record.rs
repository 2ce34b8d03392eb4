//! Maps a log record to an event. `docs/otlp.md`, sections "Mapping of log records" and "Metadata", specify the
//! mapping.

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use super::attributes::{Attributes, KnownKey};
use super::event::{ResourceScope, SpanKey, uuid_v5, write_content, write_labels, write_session};
use super::span;
use super::value::{Attribute, Fault, Json, METADATA_MEMBER_LEVEL, check};
use super::wire::Fields;
use cairn_proof::chain::json::ParserScratch;
use cairn_proof::chain::{Field, time};

/// The namespace of the ids of log records.
const NAMESPACE: Uuid = Uuid::from_u128(0x42a361c1_0476_4a55_b899_0499996154ff);

/// `SEVERITY_NUMBER_ERROR`, the lowest severity number of an error.
const SEVERITY_ERROR: u64 = 17;

const INPUT: [KnownKey; 5] = [
    KnownKey::Prompt,
    KnownKey::Arguments,
    KnownKey::ToolInput,
    KnownKey::ToolParameters,
    KnownKey::GenAiInputMessages,
];
const OUTPUT: [KnownKey; 3] = [KnownKey::Output, KnownKey::Response, KnownKey::GenAiOutputMessages];
const ERROR: [KnownKey; 4] = [KnownKey::ErrorMessage, KnownKey::Error, KnownKey::ErrorType, KnownKey::ErrorTypeShort];

/// Counts identical records of one request, and assigns their ids.
#[derive(Default)]
pub struct Ordinals {
    seen: HashMap<Uuid, u64, foldhash::fast::RandomState>,
}

impl Ordinals {
    /// The id of the next record whose mapped event is `content`.
    pub fn id(&mut self, content: &[u8]) -> Uuid {
        let first = uuid_v5(&NAMESPACE, content);
        let ordinal = self.seen.entry(first).or_default();
        *ordinal += 1;
        match *ordinal {
            1 => first,
            ordinal => uuid_v5(&first, &ordinal.to_be_bytes()),
        }
    }
}

/// A decoded log record.
pub struct Record<'a> {
    time_ns: u64,
    observed_time_ns: u64,
    severity: Cow<'a, str>,
    severity_number: u64,
    body: Option<&'a [u8]>,
    /// The attributes.
    pub attributes: Attributes<'a>,
    dropped: u64,
    flags: u64,
    trace_id: &'a [u8],
    span_id: &'a [u8],
    event_name: Cow<'a, str>,
}

impl<'a> Record<'a> {
    /// Decodes a `LogRecord` with at most `max_attributes` attributes.
    pub fn read(message: &'a [u8], max_attributes: usize) -> Result<Record<'a>, Fault> {
        let mut attributes = Attributes::new(max_attributes);
        let mut record = Record::read_with(message, |attribute| attributes.push(attribute))?;
        record.attributes = attributes;
        Ok(record)
    }

    /// Checks that a `LogRecord` is well-formed, including all nested values.
    pub fn check(message: &'a [u8]) -> Result<(), Fault> {
        let record = Record::read_with(message, |attribute| Ok(check(attribute.value, 0)?))?;
        Ok(check(record.body.unwrap_or_default(), 0)?)
    }

    /// Decodes a `LogRecord`, and calls `visit` for each attribute. The list of attributes of the result is empty.
    fn read_with(
        message: &'a [u8],
        mut visit: impl FnMut(Attribute<'a>) -> Result<(), Fault>,
    ) -> Result<Record<'a>, Fault> {
        let mut record = Record {
            time_ns: 0,
            observed_time_ns: 0,
            severity: Cow::Borrowed(""),
            severity_number: 0,
            body: None,
            attributes: Attributes::new(0),
            dropped: 0,
            flags: 0,
            trace_id: &[],
            span_id: &[],
            event_name: Cow::Borrowed(""),
        };
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => record.time_ns = field.fixed64()?,
                2 => record.severity_number = field.varint()?,
                3 => record.severity = field.text()?,
                5 => record.body = Some(field.bytes()?),
                6 => visit(Attribute::read(field.bytes()?)?)?,
                7 => record.dropped = field.varint()?,
                8 => record.flags = field.fixed32()?,
                9 => record.trace_id = field.bytes()?,
                10 => record.span_id = field.bytes()?,
                11 => record.observed_time_ns = field.fixed64()?,
                12 => record.event_name = field.text()?,
                _ => {}
            }
        }
        Ok(record)
    }

    /// Writes the members of the JSON object of the event, except its id.
    pub fn write(
        &mut self,
        json: &mut Json,
        shared: &ResourceScope<'a>,
        agent: Cow<'a, str>,
        scratch: &mut ParserScratch,
    ) -> Result<(), Fault> {
        json.field(Field::AgentId);
        json.text(agent);
        let name = self.name();
        json.field(Field::ActionType);
        json.quoted(action_type(&name).as_bytes());
        json.field_unless_empty(Field::ActionName, name);
        write_content(json, Field::ActionInput, &mut self.attributes, &INPUT, scratch)?;
        write_content(json, Field::ActionOutput, &mut self.attributes, &OUTPUT, scratch)?;
        write_session(json, &mut self.attributes, self.trace_id);
        self.write_status(json);
        self.write_duration(json);
        let time_ns = if self.time_ns == 0 { self.observed_time_ns } else { self.time_ns };
        if time_ns != 0 {
            json.field(Field::Timestamp);
            json.quoted(&time::format_ns(time_ns));
        }
        write_labels(json, shared, &mut self.attributes)?;
        json.field(Field::Metadata);
        json.raw(b"{");
        self.write_metadata(json, shared)?;
        json.raw(b"}");
        Ok(())
    }

    fn name(&mut self) -> Cow<'a, str> {
        match self.attributes.text(KnownKey::EventName) {
            Some(name) => {
                self.attributes.mark_used(KnownKey::EventName);
                name
            }
            None => std::mem::take(&mut self.event_name),
        }
    }

    fn write_status(&mut self, json: &mut Json) {
        let success = self.attributes.scalar_text(KnownKey::Success);
        let message = self.attributes.first_text(&ERROR);
        if self.severity_number >= SEVERITY_ERROR || success.as_deref() == Some("false") || message.is_some() {
            json.field(Field::ActionStatus);
            json.quoted(b"error");
            if let Some((key, message)) = message {
                self.attributes.mark_used(key);
                json.field_unless_empty(Field::ErrorMessage, message);
            }
        } else if success.as_deref() == Some("true") {
            self.attributes.mark_used(KnownKey::Success);
            json.field(Field::ActionStatus);
            json.quoted(b"success");
        }
    }

    fn write_duration(&mut self, json: &mut Json) {
        let duration = self.attributes.scalar_text(KnownKey::DurationMs).and_then(|text| text.parse::<f64>().ok());
        // Below this bound a double represents every integer exactly.
        let duration_ms = duration.filter(|duration| (0.0..9e15).contains(duration)).map(|duration| duration as u64);
        if let Some(duration_ms) = duration_ms {
            self.attributes.mark_used(KnownKey::DurationMs);
            json.field(Field::DurationMs);
            json.raw(itoa::Buffer::new().format(duration_ms).as_bytes());
        }
    }

    /// Writes the members of `metadata`, in the order of their names.
    fn write_metadata(&self, json: &mut Json, shared: &ResourceScope<'a>) -> Result<(), Fault> {
        if self.attributes.has_unused() {
            json.key("attributes");
            self.attributes.write_unused(json)?;
        }
        if let Some(body) = self.body.filter(|body| !body.is_empty()) {
            json.key("body");
            json.any(body, METADATA_MEMBER_LEVEL - 1)?;
        }
        json.number_unless_zero("dropped_attributes_count", self.dropped);
        json.text_unless_empty("event_name", self.event_name.clone());
        json.number_unless_zero("flags", self.flags);
        if self.observed_time_ns != 0 && self.time_ns != 0 {
            json.plain("observed_timestamp", &time::format_ns(self.observed_time_ns));
        }
        if let Some(span) = SpanKey::of(self.trace_id, self.span_id) {
            let id = span::id_of(span);
            json.plain("parent_id", id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        }
        json.object_unless_empty("resource", &shared.resource_json);
        json.object_unless_empty("scope", &shared.scope_json);
        json.text_unless_empty("severity", self.severity.clone());
        json.number_unless_zero("severity_number", self.severity_number);
        json.hex_unless_zero("span_id", self.span_id);
        json.hex_unless_zero("trace_id", self.trace_id);
        Ok(())
    }
}

/// The action type for the last part of an event name: that of `claude_code.tool_result` is `tool_result`.
fn action_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "tool_result" => "TOOL_RESULT",
        "api_request" => "LLM_CALL",
        "user_prompt" => "AGENT_TURN",
        _ => "CUSTOM",
    }
}
