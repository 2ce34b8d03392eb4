//! One span, one event, by the README's table "From OpenTelemetry".

use std::borrow::Cow;

use uuid::Uuid;

use super::attributes::{Attributes, INPUT, Known, Named, OUTPUT};
use super::event::{Origin, SpanKey, uuid_v5, write_content, write_labels, write_session};
use super::parts::{Event, Link, write_list};
use super::value::{Attribute, Fault, Json, attributes, check, check_attributes, too_many};
use super::wire::Fields;
use cairn_proof::chain::json::Canonicalizer;
use cairn_proof::chain::{Field, time};

/// The namespace of the ids of spans: UUIDv5 over the hex trace id and the hex span id.
const NAMESPACE: Uuid = Uuid::from_u128(0x156d8089_5891_4f39_828a_95600e6f5574);

/// `Status.code`
const STATUS_ERROR: u64 = 2;

/// What a span is, in the order of `SpanKind`.
const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

/// The id of a span's event, and of everything that points to it.
pub fn id_of(span: SpanKey) -> Uuid {
    uuid_v5(&NAMESPACE, &span.hex())
}

/// What of a span matters to others.
#[derive(Debug)]
pub struct Glance<'a> {
    /// Which span it is, if its ids are some.
    pub key: Option<SpanKey>,
    /// Whose child it is, if its parent's id is one.
    pub parent: Option<SpanKey>,
    /// The agent that it names itself.
    pub agent: Option<Cow<'a, str>>,
}

/// What a span can have any number of.
enum Part<'a> {
    Attribute(Attribute<'a>),
    Event(&'a [u8]),
    Link(&'a [u8]),
}

/// A span as it was sent.
pub struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: Cow<'a, str>,
    name: Cow<'a, str>,
    kind: u64,
    start: u64,
    end: u64,
    /// What it says of itself.
    pub attributes: Attributes<'a>,
    events: Vec<&'a [u8]>,
    links: Vec<&'a [u8]>,
    dropped: [u64; 3],
    status: u64,
    status_message: Cow<'a, str>,
    flags: u64,
}

impl<'a> Span<'a> {
    /// Reads a `Span`, with at most that many attributes, events and links.
    pub fn read(message: &'a [u8], most: usize) -> Result<Span<'a>, Fault> {
        let (mut attributes, mut events, mut links) = (Attributes::new(most), Vec::new(), Vec::new());
        let mut span = Span::read_with(message, |part| {
            match part {
                _ if events.len() + links.len() > most => return Err(too_many(most)),
                Part::Attribute(attribute) => attributes.push(attribute)?,
                Part::Event(event) => events.push(event),
                Part::Link(link) => links.push(link),
            }
            Ok(())
        })?;
        (span.attributes, span.events, span.links) = (attributes, events, links);
        Ok(span)
    }

    /// Checks that every message of a `Span` is one, and keeps only what matters to others.
    pub fn glance(message: &'a [u8]) -> Result<Glance<'a>, Fault> {
        let mut named = Named::default();
        let span = Span::read_with(message, |part| {
            match part {
                Part::Attribute(attribute) => {
                    check(attribute.value, 0)?;
                    named.note(&attribute);
                }
                Part::Event(event) => {
                    check_attributes(event, Event::ATTRIBUTES, 0)?;
                    Event::read(event)?;
                }
                Part::Link(link) => {
                    check_attributes(link, Link::ATTRIBUTES, 0)?;
                    Link::read(link)?;
                }
            }
            Ok(())
        })?;
        Ok(Glance { key: span.key().ok(), parent: span.parent(), agent: named.first() })
    }

    /// Reads a `Span`, and tells of what it has any number of as it comes by.
    fn read_with(message: &'a [u8], mut tell: impl FnMut(Part<'a>) -> Result<(), Fault>) -> Result<Span<'a>, Fault> {
        let mut span = Span {
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: Cow::Borrowed(""),
            name: Cow::Borrowed(""),
            kind: 0,
            start: 0,
            end: 0,
            attributes: Attributes::new(0),
            events: Vec::new(),
            links: Vec::new(),
            dropped: [0; 3],
            status: 0,
            status_message: Cow::Borrowed(""),
            flags: 0,
        };
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => span.trace_id = field.bytes()?,
                2 => span.span_id = field.bytes()?,
                3 => span.trace_state = field.text()?,
                4 => span.parent_span_id = field.bytes()?,
                5 => span.name = field.text()?,
                6 => span.kind = field.varint()?,
                7 => span.start = field.fixed64()?,
                8 => span.end = field.fixed64()?,
                9 => tell(Part::Attribute(Attribute::read(field.bytes()?)?))?,
                10 => span.dropped[0] = field.varint()?,
                11 => tell(Part::Event(field.bytes()?))?,
                12 => span.dropped[1] = field.varint()?,
                13 => tell(Part::Link(field.bytes()?))?,
                14 => span.dropped[2] = field.varint()?,
                15 => span.read_status(field.bytes()?)?,
                16 => span.flags = field.fixed32()?,
                _ => {}
            }
        }
        Ok(span)
    }

    fn read_status(&mut self, message: &'a [u8]) -> Result<(), Fault> {
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                2 => self.status_message = field.text()?,
                3 => self.status = field.varint()?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Which span it is.
    ///
    /// # Errors
    /// When its ids are none: then it can never be an event, because a second export of it could not be told from it.
    pub fn key(&self) -> Result<SpanKey, Fault> {
        SpanKey::of(self.trace_id, self.span_id).ok_or_else(|| {
            let (trace, span) = (self.trace_id.len(), self.span_id.len());
            let message = "a trace id has 16 bytes and a span id 8, and not all of them are zero";
            Fault::Refused(format!("{message}; found {trace} and {span}"))
        })
    }

    /// Whose child it is, if its parent's id is one.
    pub fn parent(&self) -> Option<SpanKey> {
        SpanKey::of(self.trace_id, self.parent_span_id)
    }

    fn action_type(&self) -> &'static str {
        let of = &self.attributes;
        let is = |known, values: &[&str]| of.text(known).is_some_and(|text| values.contains(&&*text));
        let is_tool = is(Known::GenAiOperation, &["execute_tool", "retrieval", "vector_db_retrieve"])
            || is(Known::OpenInferenceKind, &["TOOL", "RETRIEVER"])
            || is(Known::TraceloopSpanKind, &["tool"])
            || is(Known::SpanType, &["tool"])
            || self.name == "ai.toolCall"
            || self.name.starts_with("tool.")
            || is(Known::McpMethod, &["tools/call"]);
        if is_tool {
            return "TOOL_CALL";
        }
        let is_llm = is(Known::GenAiOperation, &["chat", "text_completion", "generate_content", "embeddings"])
            || is(Known::OpenInferenceKind, &["LLM", "EMBEDDING"])
            || is(Known::LlmRequestType, &["chat", "completion", "embedding"])
            || is(Known::SpanType, &["llm_request"])
            || [".doGenerate", ".doStream", ".doEmbed"].iter().any(|end| self.name.ends_with(end));
        if is_llm {
            return "LLM_CALL";
        }
        let is_turn = is(Known::GenAiOperation, &["invoke_agent"])
            || is(Known::OpenInferenceKind, &["AGENT"])
            || is(Known::TraceloopSpanKind, &["agent"])
            || is(Known::SpanType, &["interaction"])
            || ["ai.generateText", "ai.streamText"].contains(&&*self.name);
        if is_turn { "AGENT_TURN" } else { "CUSTOM" }
    }

    /// Writes all that is not the same for every event: the members of an event's object, all but its id.
    pub fn write(
        &mut self,
        json: &mut Json,
        origin: &Origin<'a>,
        agent: Cow<'a, str>,
        memory: &mut Canonicalizer,
    ) -> Result<(), Fault> {
        let action_type = self.action_type();
        json.field(Field::AgentId);
        json.text(agent);
        json.field(Field::ActionType);
        json.quoted(action_type.as_bytes());
        self.write_name(json, action_type);
        write_content(json, Field::ActionInput, &mut self.attributes, &INPUT, memory)?;
        write_content(json, Field::ActionOutput, &mut self.attributes, &OUTPUT, memory)?;
        write_session(json, &mut self.attributes, self.trace_id);
        self.write_status(json)?;
        if self.start != 0 {
            json.field(Field::Timestamp);
            json.quoted(&time::format_ns(self.start));
        }
        if let Some(took) = self.end.checked_sub(self.start).filter(|_| self.start != 0) {
            json.field(Field::DurationMs);
            json.raw(itoa::Buffer::new().format(took / 1_000_000).as_bytes());
        }
        write_labels(json, origin, &mut self.attributes)?;
        json.field(Field::Metadata);
        json.raw(b"{");
        self.write_metadata(json, origin)?;
        json.raw(b"}");
        Ok(())
    }

    fn write_name(&mut self, json: &mut Json, action_type: &str) {
        const TOOL: [Known; 3] = [Known::GenAiToolName, Known::ToolName, Known::AiToolCallName];
        const OF_A_TOOL: [Known; 2] = [Known::ToolNameShort, Known::TraceloopEntityName];
        const MODEL: [Known; 5] =
            [Known::GenAiRequestModel, Known::LlmModelName, Known::AiModelId, Known::GenAiResponseModel, Known::Model];
        let found = self.attributes.first_text(&TOOL, |_| true).or_else(|| match action_type {
            "TOOL_CALL" => self.attributes.first_text(&OF_A_TOOL, |_| true),
            "LLM_CALL" => self.attributes.first_text(&MODEL, |_| true),
            _ => None,
        });
        if let Some((known, _)) = found {
            self.attributes.mark_used(known);
        }
        let name = found.map_or_else(|| self.name.clone(), |(_, name)| name);
        json.field_unless_empty(Field::ActionName, name);
    }

    fn is_error(&self) -> bool {
        self.status == STATUS_ERROR || self.attributes.text(Known::ErrorType).is_some()
    }

    fn write_status(&mut self, json: &mut Json) -> Result<(), Fault> {
        let error_type = self.attributes.text(Known::ErrorType);
        if !self.is_error() {
            json.field(Field::ActionStatus);
            json.quoted(b"success");
            return Ok(());
        }
        let is_timeout = error_type.as_deref() == Some("timeout");
        json.field(Field::ActionStatus);
        json.quoted(if is_timeout { b"timeout" } else { b"error" });
        let message =
            if self.status_message.is_empty() { self.exception()? } else { Some(self.status_message.clone()) };
        let message = message.or_else(|| {
            self.attributes.mark_used(Known::ErrorType);
            error_type
        });
        json.field_unless_empty(Field::ErrorMessage, message.unwrap_or_default());
        Ok(())
    }

    /// What the last exception says.
    fn exception(&self) -> Result<Option<Cow<'a, str>>, Fault> {
        let mut message = None;
        for event in &self.events {
            let is_exception = Fields::of(event).any(|field| {
                field.is_ok_and(|field| field.number() == 2 && field.bytes().is_ok_and(|name| name == b"exception"))
            });
            if is_exception {
                for attribute in attributes(event, Event::ATTRIBUTES) {
                    let attribute = attribute?;
                    if attribute.key == Known::ExceptionMessage.key() {
                        message = attribute.text().or(message);
                    }
                }
            }
        }
        Ok(message)
    }

    /// The members are in the order of their names.
    fn write_metadata(&self, json: &mut Json, origin: &Origin<'a>) -> Result<(), Fault> {
        if self.attributes.are_any_left() {
            json.key("attributes");
            self.attributes.write_rest(json)?;
        }
        const DROPPED: [&str; 3] = ["dropped_attributes_count", "dropped_events_count", "dropped_links_count"];
        for (name, dropped) in DROPPED.into_iter().zip(self.dropped) {
            json.number_unless_zero(name, dropped);
        }
        if self.end != 0 && (self.start == 0 || self.end < self.start) {
            json.plain("end_timestamp", &time::format_ns(self.end));
        }
        write_list(json, "events", &self.events, Event::write)?;
        json.number_unless_zero("flags", self.flags);
        match KINDS.get(usize::try_from(self.kind).unwrap_or(usize::MAX)) {
            Some(kind) => json.text_unless_empty("kind", Cow::Borrowed(kind)),
            None => json.number_unless_zero("kind", self.kind),
        }
        write_list(json, "links", &self.links, Link::write)?;
        json.text_unless_empty("name", self.name.clone());
        if let Some(parent) = self.parent() {
            json.plain("parent_id", id_of(parent).hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
        }
        json.hex_unless_zero("parent_span_id", self.parent_span_id);
        json.object_unless_empty("resource", &origin.resource_json);
        json.object_unless_empty("scope", &origin.scope_json);
        json.hex_unless_zero("span_id", self.span_id);
        match self.status {
            0 | STATUS_ERROR => {}
            1 => json.plain("status", b"ok"),
            other => json.number_unless_zero("status", other),
        }
        if !self.is_error() {
            json.text_unless_empty("status_message", self.status_message.clone());
        }
        json.hex_unless_zero("trace_id", self.trace_id);
        json.text_unless_empty("trace_state", self.trace_state.clone());
        Ok(())
    }
}
