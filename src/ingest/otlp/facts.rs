//! Looks up the fields of an event in a span or log record, by the rows of the mapping. The rows of a field are walked in
//! order of preference; the first that applies gives its value.

use std::borrow::Cow;

use super::any_value::is_present;
use super::assembled::{event_attributes, event_messages, indexed, member_of};
use super::attributes::Attributes;
use super::found::Found;
use super::ids::{SpanKey, TraceId};
use super::mapping::compiled::{CompiledRow, Condition, From, Gift, Guard, KeyId, LastName, Mapping};
use super::mapping::row::{Source, Target, Test};
use super::request::Signal;
use super::resource::ResourceScope;
use super::span_events::is_named;
use super::stored::SpanIdentity;
use super::text_tests::{is_error, is_false, is_random_id, is_scrubbed, is_traceback, is_true};
use super::value::Json;
use cairn_proof::chain::{Field, scan};

/// The status codes of a span, by number.
const STATUS_CODES: [&str; 3] = ["UNSET", "OK", "ERROR"];

/// The contents of a span or log record that rows of the mapping can name.
#[derive(Default)]
pub struct Facts<'a> {
    /// The attributes.
    pub attributes: Attributes<'a>,
    /// The events of a span, encoded.
    pub events: Vec<&'a [u8]>,
    /// The name of a span, or the event name of a log record.
    pub name: Cow<'a, str>,
    /// The body of a log record.
    pub body: Option<&'a [u8]>,
    /// The status code of a span.
    pub status: u64,
    /// The status message of a span.
    pub status_message: Cow<'a, str>,
    /// The severity number of a log record.
    pub severity: u64,
    /// The trace id.
    pub trace: Option<TraceId<'a>>,
    /// Whether the body became a field of the event.
    pub is_body_used: bool,
    /// The attributes of span events that became part of the event's content: the index of the span event, and the
    /// name of the attribute; all its attributes if there is no name.
    pub used_events: Vec<(usize, Option<Box<str>>)>,
    last_name: LastName,
}

/// The other spans of the request.
pub trait Relatives<'a> {
    /// The agent or the session of the nearest ancestor that has one, where `parent` is the first ancestor.
    fn nearest(&mut self, parent: SpanKey<'a>, target: Target) -> Option<Cow<'a, str>>;
}

/// What a lookup needs besides the record.
pub struct Context<'c, 'a> {
    /// The mapping.
    pub mapping: &'a Mapping,
    /// The signal of the record.
    pub signal: Signal,
    /// The resource and the scope of the record.
    pub shared: &'c ResourceScope<'a>,
    /// The spans of the request.
    pub relatives: &'c mut dyn Relatives<'a>,
    /// The parent of a span.
    pub parent: Option<SpanKey<'a>>,
    /// The agent and session of the span in which a log record was written.
    pub span: Option<&'c SpanIdentity>,
    /// `ingest.otlp.agent_id`
    pub default_agent: &'a str,
    /// The action type, once it is known.
    pub action_type: Cow<'a, str>,
    /// Only what the record itself contains counts: neither ancestors nor resource, trace id or default.
    pub is_own_only: bool,
}

/// A value for a field, and what it was taken from.
pub struct Taken<'a> {
    /// The value.
    pub value: Found<'a>,
    used: Used,
}

/// What a value was taken from, so that it is not repeated in `metadata`.
enum Used {
    Nothing,
    Body,
    Key(KeyId),
    Indices(Vec<usize>),
    /// Attributes of span events: all of them, if there is no name.
    Events(Vec<usize>, Option<Box<str>>),
}

impl<'a> Facts<'a> {
    /// Removes everything, and keeps the memory of the attributes and span events for the next record.
    pub fn clear(&mut self) {
        let (mut attributes, mut events) = (std::mem::take(&mut self.attributes), std::mem::take(&mut self.events));
        attributes.clear();
        events.clear();
        let last_name = std::mem::take(&mut self.last_name);
        *self = Facts { attributes, events, last_name, ..Facts::default() };
    }

    /// Notes the rows for the name and the span events, once the record is read.
    pub fn note_rows(&mut self, mapping: &Mapping, signal: Signal) {
        let present = self.attributes.present_mut();
        mapping.note_name(signal, &self.name, &mut self.last_name, present);
        if !self.events.is_empty() {
            mapping.note_events(signal, present);
        }
    }

    /// The first text that the rows of a field give. `event` is what was written of the event so far.
    pub fn text(
        &self,
        target: Target,
        context: &mut Context<'_, 'a>,
        event: &Json,
    ) -> Option<(Cow<'a, str>, Taken<'a>)> {
        self.candidates(target, context).find_map(|row| {
            let taken = self.apply(row, target, context, event)?;
            let text = match target {
                Target::ErrorMessage => taken.value.error_text(),
                _ => taken.value.text(),
            };
            text.map(|text| (text, taken))
        })
    }

    /// The first value that the rows of a field give.
    pub fn value(&self, target: Target, context: &mut Context<'_, 'a>, event: &Json) -> Option<Taken<'a>> {
        self.candidates(target, context).find_map(|row| self.apply(row, target, context, event))
    }

    /// Notes that a value is a field of the event.
    pub fn mark_used(&mut self, taken: Taken<'a>) {
        match taken.used {
            Used::Nothing => {}
            Used::Body => self.is_body_used = true,
            Used::Key(key) => self.attributes.mark_used(key),
            Used::Indices(list) => list.into_iter().for_each(|index| self.attributes.mark_index_used(index)),
            Used::Events(list, name) => {
                self.used_events.extend(list.into_iter().map(|index| (index, name.clone())));
            }
        }
    }

    /// Whether an attribute of the span event with this index became part of the event's content.
    pub fn is_event_used(&self, event: usize, name: &str) -> bool {
        let is_used = |used: &Option<Box<str>>| used.as_deref().is_none_or(|used| used == name);
        self.used_events.iter().any(|(index, used)| *index == event && is_used(used))
    }

    /// The rows of a field that may apply, in order of preference.
    fn candidates<'f>(
        &'f self,
        target: Target,
        context: &Context<'_, 'a>,
    ) -> impl Iterator<Item = &'a CompiledRow> + use<'f, 'a> {
        context.mapping.candidates(context.signal, target, self.attributes.present())
    }

    /// The value that a row gives, if it applies.
    fn apply(
        &self,
        row: &'a CompiledRow,
        target: Target,
        context: &mut Context<'_, 'a>,
        event: &Json,
    ) -> Option<Taken<'a>> {
        if context.is_own_only && !row.from.is_own() {
            return None;
        }
        let (value, used) = self.find(&row.from, target, context, event)?;
        let is_identity = matches!(target, Target::AgentId | Target::SessionId | Target::UserId);
        if !self.holds(&row.guard, context)
            || !self.passes(&row.condition, &value, context, event)
            || is_identity && value.text().is_some_and(|text| is_scrubbed(&text) || text.trim().is_empty())
        {
            return None;
        }
        let (value, used) = match &row.gift {
            Gift::Value => (value, used),
            Gift::Decoded => (value.decoded(), used),
            Gift::Constant(constant) => (Found::Text(Cow::Borrowed(&**constant)), Used::Nothing),
            Gift::Wildcard => {
                let Condition::OneOf(patterns) = &row.condition else { return None };
                let text = value.text()?;
                let wildcard = patterns.iter().find_map(|pattern| pattern.wildcard(&text))?;
                (Found::Text(Cow::Owned(wildcard.to_owned())), Used::Nothing)
            }
            Gift::WithoutSuffix(suffix) => {
                let whole = value.text()?;
                let text = whole.strip_suffix(&**suffix).unwrap_or(&whole);
                (Found::Text(Cow::Owned(text.to_owned())), Used::Nothing)
            }
        };
        value.is_present().then_some(Taken { value, used })
    }

    /// The value of a source.
    fn find(
        &self,
        from: &From,
        target: Target,
        context: &mut Context<'_, 'a>,
        event: &Json,
    ) -> Option<(Found<'a>, Used)> {
        let unused = |value| Some((value, Used::Nothing));
        match from {
            From::Attribute(key) => Some((Found::Any(self.attributes.any(*key)?), Used::Key(*key))),
            From::Pattern(pattern) => {
                let is_match = |name: &str, value| pattern.matches(name) && is_present(value);
                let (index, found) =
                    self.attributes.iter().find(|(_, attribute)| is_match(&attribute.key, attribute.value))?;
                Some((Found::Any(found.value), Used::Indices(vec![index])))
            }
            From::Indexed(prefix) => {
                let (json, indices) = indexed(&self.attributes, prefix)?;
                Some((Found::Json(json), Used::Indices(indices)))
            }
            From::EventAttribute(of, name) => {
                let (list, indices) = event_attributes(&self.events, of, name)?;
                Some((Found::Several(list), Used::Events(indices, Some(name.clone()))))
            }
            From::EventMessages(names) => {
                let (json, indices) = event_messages(&self.events, names)?;
                Some((Found::Json(json), Used::Events(indices, None)))
            }
            From::Event(name) => {
                unused(self.events.iter().any(|event| is_named(event, name)).then_some(Found::Exists)?)
            }
            From::Member(key, member) => unused(member_of(self.attributes.any(*key)?, member)?),
            From::BodyMember(member) => unused(member_of(self.body?, member)?),
            From::Resource(key) => unused(Found::Any(context.shared.resource.any(*key)?)),
            From::OutputMember(member) => {
                unused(Found::Json(scan::member(event.value(Field::ActionOutput)?, member)?.to_vec()))
            }
            From::Plain(Source::Body) => Some((Found::Any(self.body?), Used::Body)),
            From::Plain(source) => unused(self.plain(*source, target, context)?),
        }
    }

    fn plain(&self, source: Source, target: Target, context: &mut Context<'_, 'a>) -> Option<Found<'a>> {
        let text = |text: &Cow<'a, str>| (!text.is_empty()).then(|| Found::Text(text.clone()));
        match source {
            Source::Scope => text(&context.shared.scope_name),
            Source::Name => text(&self.name),
            Source::StatusCode => {
                let code = STATUS_CODES.get(usize::try_from(self.status).ok()?)?;
                Some(Found::Text(Cow::Borrowed(code)))
            }
            Source::StatusMessage => text(&self.status_message),
            Source::Severity if self.severity == 0 => None,
            Source::Severity => Some(Found::Text(Cow::Owned(self.severity.to_string()))),
            Source::Ancestor => context.relatives.nearest(context.parent?, target).map(Found::Text),
            Source::Span => {
                let text = context.span?.text(target)?;
                Some(Found::Text(Cow::Owned(text.to_owned())))
            }
            Source::TraceId => self.trace.map(|trace| Found::Text(Cow::Owned(trace.to_string()))),
            Source::DefaultAgent => Some(Found::Text(Cow::Borrowed(context.default_agent))),
            _ => None,
        }
    }

    fn holds(&self, guard: &Guard, context: &Context<'_, 'a>) -> bool {
        match guard {
            Guard::Always => true,
            Guard::Type(name) => context.action_type == **name,
            Guard::NotType(name) => context.action_type != **name,
            Guard::Attribute(key, text) => {
                self.attributes.scalar_text(*key).is_some_and(|found| found.eq_ignore_ascii_case(text))
            }
            Guard::NotAttribute(key, text) => {
                self.attributes.scalar_text(*key).is_none_or(|found| !found.eq_ignore_ascii_case(text))
            }
            Guard::Has(key) => self.attributes.has(*key),
            Guard::Name(pattern) => pattern.matches(&self.name),
            Guard::Scope(pattern) => pattern.matches(&context.shared.scope_name),
        }
    }

    /// Whether a value meets a condition.
    fn passes(&self, condition: &Condition, value: &Found<'a>, context: &mut Context<'_, 'a>, event: &Json) -> bool {
        let is = |test: fn(&str) -> bool| value.text().is_some_and(|text| test(&text));
        match condition {
            Condition::OneOf(patterns) => {
                value.text().is_some_and(|text| patterns.iter().any(|pattern| pattern.matches(&text)))
            }
            Condition::SameAs(other) => {
                let other = self.find(other, Target::ActionName, context, event).and_then(|(other, _)| other.text());
                other.is_some() && other == value.text()
            }
            Condition::Plain(test) => match test {
                Test::Present | Test::OneOf(_) | Test::SameAs(_) => value.is_present(),
                Test::True => is(is_true),
                Test::False => is(is_false),
                Test::Error => match value.text() {
                    Some(text) => is_error(&text),
                    None => value.is_present() && !value.is_empty_object(),
                },
                Test::AtLeast(least) => {
                    let number = value.text().and_then(|text| text.parse::<f64>().ok());
                    number.is_some_and(|number| number >= *least as f64)
                }
                Test::NotEmptyObject => !value.is_empty_object(),
                Test::NotRandom => is(|text| !is_random_id(text)),
                Test::NotDefaultService => {
                    is(|text| text != "unknown_service" && !text.starts_with("unknown_service:"))
                }
                Test::NotTraceback => is(|text| !is_traceback(text)),
            },
        }
    }
}
