//! Reads a span, and writes it as an event. `docs/otlp.md` specifies the mapping.

use std::borrow::Cow;

use uuid::Uuid;

use super::event::{write_content, write_text};
use super::facts::{Context, Facts};
use super::ids::{SpanKey, TraceId};
use super::labels::LastLabels;
use super::mapping::compiled::Mapping;
use super::mapping::row::Target;
use super::request::Signal;
use super::resource::ResourceScope;
use super::span_events::{Event, Link, write_list};
use super::value::{Fault, Json, too_many};
use super::wire::Fields;
use cairn_proof::chain::json::ParserScratch;
use cairn_proof::chain::{DEFAULT_ACTION_TYPE, Field, time};

/// `STATUS_CODE_OK`
const STATUS_OK: u64 = 1;
/// `STATUS_CODE_ERROR`
const STATUS_ERROR: u64 = 2;

/// The names of the kinds of a span, in the order of `SpanKind`.
const KINDS: [&str; 6] = ["", "internal", "server", "client", "producer", "consumer"];

/// The fields of a span that are not in its [`Facts`].
#[derive(Default)]
pub struct Span<'a> {
    trace_id: &'a [u8],
    span_id: &'a [u8],
    parent_span_id: &'a [u8],
    trace_state: Cow<'a, str>,
    kind: u64,
    start_ns: u64,
    end_ns: u64,
    links: Vec<&'a [u8]>,
    /// The numbers of attributes, events and links that the exporter dropped.
    dropped: [u64; 3],
    flags: u64,
}

impl<'a> Span<'a> {
    /// Decodes a `Span` with at most `max` attributes, and at most `max` events and links. Its attributes, events, name
    /// and status go into `facts`, which are empty.
    ///
    /// # Errors
    /// When the message is malformed, or has too many attributes, events or links.
    pub fn read(message: &'a [u8], facts: &mut Facts<'a>, mapping: &Mapping, max: usize) -> Result<Span<'a>, Fault> {
        let mut span = Span::default();
        for field in Fields::of(message) {
            let field = field?;
            match field.number() {
                1 => span.trace_id = field.bytes()?,
                2 => span.span_id = field.bytes()?,
                3 => span.trace_state = field.text()?,
                4 => span.parent_span_id = field.bytes()?,
                5 => facts.name = field.text()?,
                6 => span.kind = field.varint()?,
                7 => span.start_ns = field.fixed64()?,
                8 => span.end_ns = field.fixed64()?,
                9 => facts.attributes.push(field.bytes()?, mapping, Signal::Traces, max)?,
                10 => span.dropped[0] = field.varint()?,
                11 | 13 if facts.events.len() + span.links.len() >= max => return Err(too_many(max)),
                11 => facts.events.push(field.bytes()?),
                12 => span.dropped[1] = field.varint()?,
                13 => span.links.push(field.bytes()?),
                14 => span.dropped[2] = field.varint()?,
                15 => read_status(facts, field.bytes()?)?,
                16 => span.flags = field.fixed32()?,
                _ => {}
            }
        }
        facts.trace = TraceId::of(span.trace_id);
        facts.note_rows(mapping, Signal::Traces);
        Ok(span)
    }

    /// The ids of the span.
    ///
    /// # Errors
    /// When one is missing or all zero. Such a span can never be an event, because its id could not be derived and a
    /// repeated export would store it twice.
    pub fn key(&self) -> Result<SpanKey<'a>, Fault> {
        SpanKey::of(self.trace_id, self.span_id).ok_or_else(|| {
            let missing = if TraceId::of(self.trace_id).is_none() { "trace id" } else { "span id" };
            Fault::Refused(format!("its {missing} is missing or zero"))
        })
    }

    /// The ids of the parent, if it has one.
    pub fn parent(&self) -> Option<SpanKey<'a>> {
        SpanKey::of(self.trace_id, self.parent_span_id)
    }

    /// Warnings about ids that are not as the protocol requires.
    pub fn warn_of_ids(&self, key: &SpanKey<'_>, warnings: &mut Vec<String>) {
        warn_of_ids("", Some(*key), warnings);
        let parent = self.parent().filter(|parent| !parent.span.is_valid());
        if let Some(parent) = parent {
            warnings.push(format!("parent_span_id: {} is not an id of 8 bytes, and is kept as text", parent.span));
        }
        for link in &self.links {
            let link = Link::read(link).ok().and_then(|link| SpanKey::of(link.trace_id, link.span_id));
            warn_of_ids("links.", link, warnings);
        }
    }

    /// Writes the members of the JSON object of the event, except its id.
    ///
    /// # Errors
    /// When an attribute or span event cannot be a part of an event.
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
        let error = write_outcome(json, facts, context);
        if self.start_ns != 0 {
            json.field(Field::Timestamp);
            json.quoted(&time::format_ns(self.start_ns));
        }
        if let Some(duration_ns) = self.end_ns.checked_sub(self.start_ns).filter(|_| self.start_ns != 0) {
            json.field(Field::DurationMs);
            json.raw(itoa::Buffer::new().format(duration_ns / 1_000_000).as_bytes());
        }
        labels.write(json, context, &mut facts.attributes)?;
        let user = take_user(facts, context, json);
        json.field(Field::Metadata);
        json.raw(b"{");
        self.write_metadata(json, facts, context.shared, user, error)?;
        json.raw(b"}");
        Ok(())
    }

    /// Writes the members of `metadata`, in the order of their names. `error` is the error message of the event.
    fn write_metadata(
        &self,
        json: &mut Json,
        facts: &Facts<'a>,
        shared: &ResourceScope<'a>,
        user: Option<Cow<'a, str>>,
        error: Option<Cow<'a, str>>,
    ) -> Result<(), Fault> {
        if facts.attributes.has_unused() {
            json.key("attributes");
            facts.attributes.write_unused(json)?;
        }
        const DROPPED: [&str; 3] = ["dropped_attributes_count", "dropped_events_count", "dropped_links_count"];
        for (name, dropped) in DROPPED.into_iter().zip(self.dropped) {
            json.number_unless_zero(name, dropped);
        }
        if self.end_ns != 0 && (self.start_ns == 0 || self.end_ns < self.start_ns) {
            json.plain("end_timestamp", &time::format_ns(self.end_ns));
        }
        write_list(json, "events", &facts.events, |json, index, event| {
            Event::write(json, event, |name| facts.is_event_used(index, name))
        })?;
        json.number_unless_zero("flags", self.flags);
        match KINDS.get(usize::try_from(self.kind).unwrap_or(usize::MAX)) {
            Some(kind) => json.text_unless_empty("kind", Cow::Borrowed(kind)),
            None => json.number_unless_zero("kind", self.kind),
        }
        write_list(json, "links", &self.links, |json, _, link| Link::write(json, link))?;
        json.text_unless_empty("name", facts.name.clone());
        if let Some(parent) = self.parent() {
            json.plain("parent_id", parent.event_id().hyphenated().encode_lower(&mut Uuid::encode_buffer()).as_bytes());
            json.id_unless_missing("parent_span_id", Some(parent.span));
        }
        shared.write(json);
        let key = self.key().ok();
        json.id_unless_missing("span_id", key.map(|key| key.span));
        match facts.status {
            0 | STATUS_ERROR => {}
            STATUS_OK => json.plain("status", b"ok"),
            other => json.number_unless_zero("status", other),
        }
        if error.as_ref() != Some(&facts.status_message) {
            json.text_unless_empty("status_message", facts.status_message.clone());
        }
        json.id_unless_missing("trace_id", key.map(|key| key.trace));
        json.text_unless_empty("trace_state", self.trace_state.clone());
        json.text_unless_empty("user_id", user.unwrap_or_default());
        Ok(())
    }
}

fn read_status<'a>(facts: &mut Facts<'a>, message: &'a [u8]) -> Result<(), Fault> {
    for field in Fields::of(message) {
        let field = field?;
        match field.number() {
            2 => facts.status_message = field.text()?,
            3 => facts.status = field.varint()?,
            _ => {}
        }
    }
    Ok(())
}

/// Writes `action_status` and, for an error or a timeout, `error_message`, which is returned.
pub fn write_outcome<'a>(
    json: &mut Json,
    facts: &mut Facts<'a>,
    context: &mut Context<'_, 'a>,
) -> Option<Cow<'a, str>> {
    let status = write_text(json, Field::ActionStatus, Target::ActionStatus, facts, context)?;
    if status == "success" {
        return None;
    }
    write_text(json, Field::ErrorMessage, Target::ErrorMessage, facts, context)
}

/// The user, whose attribute is then not repeated in the metadata.
pub fn take_user<'a>(facts: &mut Facts<'a>, context: &mut Context<'_, 'a>, json: &Json) -> Option<Cow<'a, str>> {
    let (user, taken) = facts.text(Target::UserId, context, json)?;
    facts.mark_used(taken);
    Some(user)
}

/// Adds a warning for each id that is not as the protocol requires.
pub fn warn_of_ids(place: &str, key: Option<SpanKey<'_>>, warnings: &mut Vec<String>) {
    let Some(key) = key else { return };
    if !key.trace.is_valid() {
        warnings.push(format!("{place}trace_id: {} is not an id of 16 bytes, and is kept as text", key.trace));
    }
    if !key.span.is_valid() {
        warnings.push(format!("{place}span_id: {} is not an id of 8 bytes, and is kept as text", key.span));
    }
}
