//! Maps a span to an event. `docs/otlp.md`, section "Mapping of spans", specifies the mapping.

use std::borrow::Cow;

use uuid::Uuid;

use super::attributes::{AgentCandidates, Attributes, INPUT, KnownKey, OUTPUT};
use super::event::{ResourceScope, SpanKey, uuid_v5, write_content, write_labels, write_session};
use super::parts::{Event, Link, write_list};
use super::value::{Attribute, Fault, Json, attributes, check, check_attributes, too_many};
use super::wire::Fields;
use cairn_proof::chain::json::ParserScratch;
use cairn_proof::chain::{Field, time};

/// The namespace of the ids of spans: UUIDv5 over the hex trace id followed by the hex span id.
const NAMESPACE: Uuid = Uuid::from_u128(0x156d8089_5891_4f39_828a_95600e6f5574);

/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;

/// The names of the kinds of a span, in the order of `SpanKind`.
const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

/// The id of the event of a span. A `parent_id` in metadata refers to it.
pub fn id_of(span: SpanKey) -> Uuid {
    uuid_v5(&NAMESPACE, &span.hex())
}

/// The parts of a span that the mapping of other spans needs.
#[derive(Debug)]
pub struct SpanOutline<'a> {
    /// The ids of the span, if they are valid.
    pub key: Option<SpanKey>,
    /// The ids of its parent, if they are valid.
    pub parent: Option<SpanKey>,
    /// The agent that its own attributes name.
    pub agent: Option<Cow<'a, str>>,
}

/// A repeated field of a span.
enum Part<'a> {
    Attribute(Attribute<'a>),
    Event(&'a [u8]),
    Link(&'a [u8]),
}

/// A decoded span.
pub struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: Cow<'a, str>,
    name: Cow<'a, str>,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    /// The attributes.
    pub attributes: Attributes<'a>,
    events: Vec<&'a [u8]>,
    links: Vec<&'a [u8]>,
    /// The numbers of attributes, events and links that the exporter dropped.
    dropped: [u64; 3],
    status: u64,
    status_message: Cow<'a, str>,
    flags: u64,
}

impl<'a> Span<'a> {
    /// Decodes a `Span` with at most `max` attributes, and a similar bound on its events and links.
    pub fn read(message: &'a [u8], max: usize) -> Result<Span<'a>, Fault> {
        let (mut attributes, mut events, mut links) = (Attributes::new(max), Vec::new(), Vec::new());
        let mut span = Span::read_with(message, |part| {
            match part {
                _ if events.len() + links.len() > max => return Err(too_many(max)),
                Part::Attribute(attribute) => attributes.push(attribute)?,
                Part::Event(event) => events.push(event),
                Part::Link(link) => links.push(link),
            }
            Ok(())
        })?;
        (span.attributes, span.events, span.links) = (attributes, events, links);
        Ok(span)
    }

    /// Checks that a `Span` is well-formed, including all nested values, and returns what other spans need of it.
    pub fn outline(message: &'a [u8]) -> Result<SpanOutline<'a>, Fault> {
        let mut candidates = AgentCandidates::default();
        let span = Span::read_with(message, |part| {
            match part {
                Part::Attribute(attribute) => {
                    check(attribute.value, 0)?;
                    candidates.observe(&attribute);
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
        Ok(SpanOutline { key: span.key().ok(), parent: span.parent(), agent: candidates.first() })
    }

    /// Decodes a `Span`, and calls `visit` for each element of a repeated field. Those fields of the result are empty.
    fn read_with(message: &'a [u8], mut visit: impl FnMut(Part<'a>) -> Result<(), Fault>) -> Result<Span<'a>, Fault> {
        let mut span = Span {
            trace_id: &[],
            span_id: &[],
            parent_span_id: &[],
            trace_state: Cow::Borrowed(""),
            name: Cow::Borrowed(""),
            kind: 0,
            start_ns: 0,
            end_ns: 0,
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
                7 => span.start_ns = field.fixed64()?,
                8 => span.end_ns = field.fixed64()?,
                9 => visit(Part::Attribute(Attribute::read(field.bytes()?)?))?,
                10 => span.dropped[0] = field.varint()?,
                11 => visit(Part::Event(field.bytes()?))?,
                12 => span.dropped[1] = field.varint()?,
                13 => visit(Part::Link(field.bytes()?))?,
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

    /// The ids of the span.
    ///
    /// # Errors
    /// When they are invalid. Such a span can never be an event, because its id could not be derived and a repeated
    /// export would store it twice.
    pub fn key(&self) -> Result<SpanKey, Fault> {
        SpanKey::of(self.trace_id, self.span_id).ok_or_else(|| {
            let (trace, span) = (self.trace_id.len(), self.span_id.len());
            let message = "expected a trace id of 16 bytes and a span id of 8 bytes, neither of them all zero";
            Fault::Refused(format!("{message}; found {trace} and {span} bytes"))
        })
    }

    /// The ids of the parent, if they are valid.
    pub fn parent(&self) -> Option<SpanKey> {
        SpanKey::of(self.trace_id, self.parent_span_id)
    }

    /// The action type. `docs/otlp.md`, section "Action type of a span", specifies the rules; the first that applies
    /// counts.
    fn action_type(&self) -> &'static str {
        let is = |key, values: &[&str]| self.attributes.text(key).is_some_and(|text| values.contains(&&*text));
        let is_tool = is(KnownKey::GenAiOperation, &["execute_tool", "retrieval", "vector_db_retrieve"])
            || is(KnownKey::OpenInferenceKind, &["TOOL", "RETRIEVER"])
            || is(KnownKey::TraceloopSpanKind, &["tool"])
            || is(KnownKey::SpanType, &["tool"])
            || self.name == "ai.toolCall"
            || self.name.starts_with("tool.")
            || is(KnownKey::McpMethod, &["tools/call"]);
        if is_tool {
            return "TOOL_CALL";
        }
        let is_llm = is(KnownKey::GenAiOperation, &["chat", "text_completion", "generate_content", "embeddings"])
            || is(KnownKey::OpenInferenceKind, &["LLM", "EMBEDDING"])
            || is(KnownKey::LlmRequestType, &["chat", "completion", "embedding"])
            || is(KnownKey::SpanType, &["llm_request"])
            || [".doGenerate", ".doStream", ".doEmbed"].iter().any(|end| self.name.ends_with(end));
        if is_llm {
            return "LLM_CALL";
        }
        let is_turn = is(KnownKey::GenAiOperation, &["invoke_agent"])
            || is(KnownKey::OpenInferenceKind, &["AGENT"])
            || is(KnownKey::TraceloopSpanKind, &["agent"])
            || is(KnownKey::SpanType, &["interaction"])
            || ["ai.generateText", "ai.streamText"].contains(&&*self.name);
        if is_turn { "AGENT_TURN" } else { "CUSTOM" }
    }

    /// Writes the members of the JSON object of the event, except its id.
    pub fn write(
        &mut self,
        json: &mut Json,
        shared: &ResourceScope<'a>,
        agent: Cow<'a, str>,
        scratch: &mut ParserScratch,
    ) -> Result<(), Fault> {
        let action_type = self.action_type();
        json.field(Field::AgentId);
        json.text(agent);
        json.field(Field::ActionType);
        json.quoted(action_type.as_bytes());
        self.write_name(json, action_type);
        write_content(json, Field::ActionInput, &mut self.attributes, &INPUT, scratch)?;
        write_content(json, Field::ActionOutput, &mut self.attributes, &OUTPUT, scratch)?;
        write_session(json, &mut self.attributes, self.trace_id);
        self.write_status(json)?;
        if self.start_ns != 0 {
            json.field(Field::Timestamp);
            json.quoted(&time::format_ns(self.start_ns));
        }
        if let Some(duration_ns) = self.end_ns.checked_sub(self.start_ns).filter(|_| self.start_ns != 0) {
            json.field(Field::DurationMs);
            json.raw(itoa::Buffer::new().format(duration_ns / 1_000_000).as_bytes());
        }
        write_labels(json, shared, &mut self.attributes)?;
        json.field(Field::Metadata);
        json.raw(b"{");
        self.write_metadata(json, shared)?;
        json.raw(b"}");
        Ok(())
    }

    fn write_name(&mut self, json: &mut Json, action_type: &str) {
        const TOOL: [KnownKey; 3] = [KnownKey::GenAiToolName, KnownKey::ToolName, KnownKey::AiToolCallName];
        const TOOL_CALL_ONLY: [KnownKey; 2] = [KnownKey::ToolNameShort, KnownKey::TraceloopEntityName];
        const MODEL: [KnownKey; 5] = [
            KnownKey::GenAiRequestModel,
            KnownKey::LlmModelName,
            KnownKey::AiModelId,
            KnownKey::GenAiResponseModel,
            KnownKey::Model,
        ];
        let found = self.attributes.first_text(&TOOL).or_else(|| match action_type {
            "TOOL_CALL" => self.attributes.first_text(&TOOL_CALL_ONLY),
            "LLM_CALL" => self.attributes.first_text(&MODEL),
            _ => None,
        });
        if let Some((key, _)) = found {
            self.attributes.mark_used(key);
        }
        let name = found.map_or_else(|| self.name.clone(), |(_, name)| name);
        json.field_unless_empty(Field::ActionName, name);
    }

    fn is_error(&self) -> bool {
        self.status == STATUS_ERROR || self.attributes.text(KnownKey::ErrorType).is_some()
    }

    fn write_status(&mut self, json: &mut Json) -> Result<(), Fault> {
        let error_type = self.attributes.text(KnownKey::ErrorType);
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
            self.attributes.mark_used(KnownKey::ErrorType);
            error_type
        });
        json.field_unless_empty(Field::ErrorMessage, message.unwrap_or_default());
        Ok(())
    }

    /// The message of the last event named `exception`.
    fn exception(&self) -> Result<Option<Cow<'a, str>>, Fault> {
        let mut message = None;
        for event in &self.events {
            let is_exception = Fields::of(event).any(|field| {
                field.is_ok_and(|field| field.number() == 2 && field.bytes().is_ok_and(|name| name == b"exception"))
            });
            if is_exception {
                for attribute in attributes(event, Event::ATTRIBUTES) {
                    let attribute = attribute?;
                    if attribute.key == KnownKey::ExceptionMessage.name() {
                        message = attribute.text().or(message);
                    }
                }
            }
        }
        Ok(message)
    }

    /// Writes the members of `metadata`, in the order of their names.
    fn write_metadata(&self, json: &mut Json, shared: &ResourceScope<'a>) -> Result<(), Fault> {
        if self.attributes.has_unused() {
            json.key("attributes");
            self.attributes.write_unused(json)?;
        }
        const DROPPED: [&str; 3] = ["dropped_attributes_count", "dropped_events_count", "dropped_links_count"];
        for (name, dropped) in DROPPED.into_iter().zip(self.dropped) {
            json.number_unless_zero(name, dropped);
        }
        if self.end_ns != 0 && (self.start_ns == 0 || self.end_ns < self.start_ns) {
            json.plain("end_timestamp", &time::format_ns(self.end_ns));
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
        json.object_unless_empty("resource", &shared.resource_json);
        json.object_unless_empty("scope", &shared.scope_json);
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
