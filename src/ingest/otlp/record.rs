//! One log record, one event, by the README's table "Log records".
//!
//! | event | log record |
//! |---|---|
//! | `id` | UUIDv5, in a fixed namespace, over what follows and the record's ordinal among identical records of the request: a retried export stores nothing twice, and identical twins stay two |
//! | `agent_id` | the same attributes as for a span, resource `service.name`, `ingest.otlp.agent_id` |
//! | `session_id` | the same attributes as for a span, `conversation.id`, the trace id |
//! | `action_name` | the event's name: attribute `event.name`, else the field, which some fill with a place in their source |
//! | `action_type` | by the event name's last part: `tool_result` TOOL_RESULT, `api_request` LLM_CALL, `user_prompt` AGENT_TURN, else CUSTOM |
//! | `action_input`, `action_output` | `prompt`, `arguments`, `tool_input`, `tool_parameters`, `gen_ai.input.messages`; `output`, `response`, `gen_ai.output.messages` |
//! | `action_status`, `error_message` | severity ERROR or above, attribute `success` false, or `error.message`, `error`, `error.type`, `error_type`: `error`, with the text of one of these; `success` true: `success`; else absent |
//! | `duration_ms` | `duration_ms`, a number, in whole milliseconds |
//! | `timestamp` | the record's time, else the time it was observed, else that of receipt |
//! | `labels` | as for a span |
//! | `metadata` | `attributes` (every one not used above), `body`, `dropped_attributes_count`, `event_name` (if it is not the action's), `flags`, `observed_timestamp`, `parent_id` (the event of the span it was written in), `resource`, `scope`, `severity`, `severity_number`, `span_id`, `trace_id` |

use std::borrow::Cow;
use std::collections::HashMap;

use uuid::Uuid;

use super::attributes::{Attributes, Known};
use super::event::{Origin, SpanKey, uuid_v5, write_content, write_labels, write_session};
use super::span;
use super::value::{Attribute, Fault, IN_METADATA, Json, check};
use super::wire::Fields;
use cairn_proof::chain::json::Canonicalizer;
use cairn_proof::chain::{Field, time};

/// The namespace of the ids of log records.
const NAMESPACE: Uuid = Uuid::from_u128(0x42a361c1_0476_4a55_b899_0499996154ff);

/// `SEVERITY_NUMBER_ERROR`, and above it those that are worse.
const SEVERITY_ERROR: u64 = 17;

const INPUT: [Known; 5] =
    [Known::Prompt, Known::Arguments, Known::ToolInput, Known::ToolParameters, Known::GenAiInputMessages];
const OUTPUT: [Known; 3] = [Known::Output, Known::Response, Known::GenAiOutputMessages];
const ERROR: [Known; 4] = [Known::ErrorMessage, Known::Error, Known::ErrorType, Known::ErrorTypeShort];

/// How often each record was seen in one request.
#[derive(Default)]
pub struct Ordinals {
    seen: HashMap<Uuid, u64, foldhash::fast::RandomState>,
}

impl Ordinals {
    /// The id of a record that is mapped to `content`.
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

/// A log record as it was sent.
pub struct Record<'a> {
    at: u64,
    observed_at: u64,
    severity: Cow<'a, str>,
    severity_number: u64,
    body: Option<&'a [u8]>,
    /// What it says.
    pub attributes: Attributes<'a>,
    dropped: u64,
    flags: u64,
    trace_id: &'a [u8],
    span_id: &'a [u8],
    event_name: Cow<'a, str>,
}

impl<'a> Record<'a> {
    /// Reads a `LogRecord`, with at most that many attributes.
    pub fn read(message: &'a [u8], most: usize) -> Result<Record<'a>, Fault> {
        let mut attributes = Attributes::new(most);
        let mut record = Record::read_with(message, |attribute| attributes.push(attribute))?;
        record.attributes = attributes;
        Ok(record)
    }

    /// Checks that every message of a `LogRecord` is one.
    pub fn check(message: &'a [u8]) -> Result<(), Fault> {
        let record = Record::read_with(message, |attribute| Ok(check(attribute.value, 0)?))?;
        Ok(check(record.body.unwrap_or_default(), 0)?)
    }

    /// Reads a `LogRecord`, and tells of its attributes as they come by.
    fn read_with(
        message: &'a [u8],
        mut tell: impl FnMut(Attribute<'a>) -> Result<(), Fault>,
    ) -> Result<Record<'a>, Fault> {
        let mut record = Record {
            at: 0,
            observed_at: 0,
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
                1 => record.at = field.fixed64()?,
                2 => record.severity_number = field.varint()?,
                3 => record.severity = field.text()?,
                5 => record.body = Some(field.bytes()?),
                6 => tell(Attribute::read(field.bytes()?)?)?,
                7 => record.dropped = field.varint()?,
                8 => record.flags = field.fixed32()?,
                9 => record.trace_id = field.bytes()?,
                10 => record.span_id = field.bytes()?,
                11 => record.observed_at = field.fixed64()?,
                12 => record.event_name = field.text()?,
                _ => {}
            }
        }
        Ok(record)
    }

    /// Writes the members of an event's object, all but its id.
    pub fn write(
        &mut self,
        json: &mut Json,
        origin: &Origin<'a>,
        agent: Cow<'a, str>,
        memory: &mut Canonicalizer,
    ) -> Result<(), Fault> {
        json.field(Field::AgentId);
        json.text(agent);
        let name = self.name();
        json.field(Field::ActionType);
        json.quoted(action_type(&name).as_bytes());
        json.field_unless_empty(Field::ActionName, name);
        write_content(json, Field::ActionInput, &mut self.attributes, &INPUT, memory)?;
        write_content(json, Field::ActionOutput, &mut self.attributes, &OUTPUT, memory)?;
        write_session(json, &mut self.attributes, self.trace_id);
        self.write_status(json);
        self.write_duration(json);
        let at = if self.at == 0 { self.observed_at } else { self.at };
        if at != 0 {
            json.field(Field::Timestamp);
            json.quoted(&time::format_ns(at));
        }
        write_labels(json, origin, &mut self.attributes)?;
        json.field(Field::Metadata);
        json.raw(b"{");
        self.write_metadata(json, origin)?;
        json.raw(b"}");
        Ok(())
    }

    fn name(&mut self) -> Cow<'a, str> {
        match self.attributes.text(Known::EventName) {
            Some(name) => {
                self.attributes.mark_used(Known::EventName);
                name
            }
            None => std::mem::take(&mut self.event_name),
        }
    }

    fn write_status(&mut self, json: &mut Json) {
        let success = self.attributes.word(Known::Success);
        let message = self.attributes.first_text(&ERROR, |_| true);
        if self.severity_number >= SEVERITY_ERROR || success.as_deref() == Some("false") || message.is_some() {
            json.field(Field::ActionStatus);
            json.quoted(b"error");
            if let Some((known, message)) = message {
                self.attributes.mark_used(known);
                json.field_unless_empty(Field::ErrorMessage, message);
            }
        } else if success.as_deref() == Some("true") {
            self.attributes.mark_used(Known::Success);
            json.field(Field::ActionStatus);
            json.quoted(b"success");
        }
    }

    fn write_duration(&mut self, json: &mut Json) {
        let took = self.attributes.word(Known::DurationMs).and_then(|took| took.parse::<f64>().ok());
        // Whole milliseconds; as an integer it can be no more than what a double has every one of.
        let took = took.filter(|took| (0.0..9e15).contains(took)).map(|took| took as u64);
        if let Some(took) = took {
            self.attributes.mark_used(Known::DurationMs);
            json.field(Field::DurationMs);
            json.raw(itoa::Buffer::new().format(took).as_bytes());
        }
    }

    /// The members are in the order of their names.
    fn write_metadata(&self, json: &mut Json, origin: &Origin<'a>) -> Result<(), Fault> {
        if self.attributes.are_any_left() {
            json.key("attributes");
            self.attributes.write_rest(json)?;
        }
        if let Some(body) = self.body.filter(|body| !body.is_empty()) {
            json.key("body");
            json.any(body, IN_METADATA - 1)?;
        }
        json.number_unless_zero("dropped_attributes_count", self.dropped);
        json.text_unless_empty("event_name", self.event_name.clone());
        json.number_unless_zero("flags", self.flags);
        if self.observed_at != 0 && self.at != 0 {
            json.plain("observed_timestamp", &time::format_ns(self.observed_at));
        }
        if let Some(span) = SpanKey::of(self.trace_id, self.span_id) {
            let id = span::id_of(span);
            json.plain("parent_id", id.hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        }
        json.object_unless_empty("resource", &origin.resource_json);
        json.object_unless_empty("scope", &origin.scope_json);
        json.text_unless_empty("severity", self.severity.clone());
        json.number_unless_zero("severity_number", self.severity_number);
        json.hex_unless_zero("span_id", self.span_id);
        json.hex_unless_zero("trace_id", self.trace_id);
        Ok(())
    }
}

/// By the last part of the event's name: `claude_code.tool_result` is a `tool_result`.
fn action_type(name: &str) -> &'static str {
    match name.rsplit('.').next().unwrap_or_default() {
        "tool_result" => "TOOL_RESULT",
        "api_request" => "LLM_CALL",
        "user_prompt" => "AGENT_TURN",
        _ => "CUSTOM",
    }
}
