//! The rows of the table, prepared for the lookup: names of attributes are numbers, patterns are parsed.

use std::collections::HashMap;

use super::row::{Gives, Records, Row, Source, Target, Test, When};
use crate::ingest::otlp::request::Signal;
use crate::text::glob::Glob;

/// The number of an attribute that a row names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub u16);

/// Where a value comes from, see [`Source`].
#[derive(Debug)]
pub enum From {
    /// An attribute.
    Attribute(KeyId),
    /// The first attribute whose name matches.
    Pattern(Glob),
    /// A member of the JSON object in an attribute.
    Member(KeyId, Box<str>),
    /// The attributes whose names begin with this, a number and a dot.
    Indexed(Box<str>),
    /// An attribute of the span events with a name.
    EventAttribute(Box<str>, Box<str>),
    /// The span events with one of these names.
    EventMessages(&'static [&'static str]),
    /// There is a span event with this name.
    Event(Box<str>),
    /// An attribute of the resource.
    Resource(KeyId),
    /// A member of the body.
    BodyMember(Box<str>),
    /// A member of the output.
    OutputMember(Box<str>),
    /// A source without a name.
    Plain(Source),
}

impl From {
    /// Whether the source is a part of the record, rather than of its resource, another span, or a default.
    pub fn is_own(&self) -> bool {
        !matches!(
            self,
            From::Resource(_)
                | From::Plain(Source::Scope | Source::TraceId | Source::DefaultAgent | Source::Ancestor | Source::Span)
        )
    }
}

/// A condition on a value, see [`Test`].
#[derive(Debug)]
pub enum Condition {
    /// A condition without texts.
    Plain(Test),
    /// The value matches one of these.
    OneOf(Vec<Glob>),
    /// The value is the same text as that of this source.
    SameAs(From),
}

/// A condition on a record, see [`When`].
#[derive(Debug)]
pub enum Guard {
    /// None.
    Always,
    /// `action_type` is this one.
    Type(Box<str>),
    /// `action_type` is a different one.
    NotType(Box<str>),
    /// An attribute has this text.
    Attribute(KeyId, Box<str>),
    /// An attribute has another text, or none.
    NotAttribute(KeyId, Box<str>),
    /// An attribute is there.
    Has(KeyId),
    /// The name of the record matches.
    Name(Glob),
    /// The name of the scope matches.
    Scope(Glob),
}

/// What a field gets, see [`Gives`].
#[derive(Debug)]
pub enum Gift {
    /// The value.
    Value,
    /// A constant.
    Constant(Box<str>),
    /// The text without a suffix.
    WithoutSuffix(Box<str>),
    /// What `*` stands for.
    Wildcard,
    /// The value that the text contains as JSON.
    Decoded,
}

/// A row.
#[derive(Debug)]
pub struct CompiledRow {
    /// Where the value comes from.
    pub from: From,
    /// The condition on the value.
    pub condition: Condition,
    /// The condition on the record.
    pub guard: Guard,
    /// What the field gets.
    pub gift: Gift,
}

/// The rows of one signal.
#[derive(Debug, Default)]
struct SignalRows {
    /// The rows of all fields, in the order of [`Target::ALL`] and of preference.
    rows: Vec<CompiledRow>,
    /// The end of the rows of each field in `rows`.
    ends: [usize; Target::ALL.len()],
    /// A bit for each row that may apply whatever the record has.
    always: Vec<u64>,
    /// A bit for each row whose source is in span events.
    of_events: Vec<u64>,
    /// The numbers of the rows that apply to records with some names.
    of_names: Vec<u16>,
    /// Per [`KeyId`], the numbers of the rows whose source is that attribute.
    rows_of_key: Vec<Vec<u16>>,
}

impl SignalRows {
    /// Adds a row after the others of its field.
    fn add(&mut self, target: Target, row: CompiledRow) {
        self.rows.insert(self.ends[target as usize], row);
        self.ends[target as usize..].iter_mut().for_each(|end| *end += 1);
    }

    /// Prepares the lookup, once all rows are added.
    fn finish(&mut self, keys: usize) {
        let words = self.rows.len().div_ceil(BITS);
        (self.always, self.of_events) = (vec![0; words], vec![0; words]);
        self.rows_of_key = vec![Vec::new(); keys];
        for (number, row) in self.rows.iter().enumerate() {
            let short = u16::try_from(number).unwrap_or(u16::MAX);
            match (&row.from, &row.condition) {
                (From::Attribute(key) | From::Member(key, _), _) => self.rows_of_key[usize::from(key.0)].push(short),
                (From::EventAttribute(..) | From::EventMessages(_) | From::Event(_), _) => {
                    set(&mut self.of_events, number);
                }
                (From::Plain(Source::Name), Condition::OneOf(_)) => self.of_names.push(short),
                _ => set(&mut self.always, number),
            }
        }
    }
}

fn set(bits: &mut Present, number: usize) {
    bits[number / BITS] |= 1 << (number % BITS);
}

/// Adds the rows of `more`.
fn add(present: &mut Present, more: &Present) {
    present.resize(more.len(), 0);
    present.iter_mut().zip(more).for_each(|(word, more)| *word |= more);
}

/// The number of rows of an element of [`Present`].
const BITS: usize = u64::BITS as usize;

/// A bit for each row whose attribute, name or span event is there. Most rows name one that a record does not have, so a
/// lookup that visits the others only takes a fraction of the time.
pub type Present = Vec<u64>;

/// Caches the rows for the name of the last record, which is often that of the next one, too.
#[derive(Debug, Default)]
pub struct LastName {
    name: String,
    rows: Present,
}

/// An attribute that becomes a label.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name, which is that of the attribute.
    pub name: &'static str,
    /// The attribute.
    pub key: KeyId,
    /// Whether it is an attribute of the resource.
    pub is_of_resource: bool,
}

/// The attributes that become labels, in the order of their names, each with whether it is one of the resource.
const LABELS: [(&str, bool); 5] = [
    ("deployment.environment.name", true),
    ("gen_ai.operation.name", false),
    ("gen_ai.provider.name", false),
    ("gen_ai.request.model", false),
    ("service.name", true),
];

/// The mapping: the built-in rows and those of the user.
#[derive(Debug)]
pub struct Mapping {
    keys: HashMap<Box<str>, KeyId, foldhash::fast::FixedState>,
    labels: Vec<Label>,
    /// `event.name` and `duration_ms` of log records.
    log_keys: [KeyId; 2],
    spans: SignalRows,
    logs: SignalRows,
}

impl Default for Mapping {
    /// A mapping without rows.
    fn default() -> Mapping {
        let mut mapping = Mapping {
            keys: HashMap::default(),
            labels: Vec::new(),
            log_keys: [KeyId(0); 2],
            spans: SignalRows::default(),
            logs: SignalRows::default(),
        };
        mapping.log_keys = ["event.name", "duration_ms"].map(|name| mapping.key(name));
        mapping.labels =
            LABELS.map(|(name, is_of_resource)| Label { name, key: mapping.key(name), is_of_resource }).into();
        mapping
    }
}

impl Mapping {
    /// Prepares the lookup, once all rows are added.
    #[must_use]
    pub fn finish(mut self) -> Mapping {
        let keys = self.keys.len();
        [&mut self.spans, &mut self.logs].into_iter().for_each(|rows| rows.finish(keys));
        self
    }

    fn of(&self, signal: Signal) -> &SignalRows {
        match signal {
            Signal::Traces => &self.spans,
            Signal::Logs => &self.logs,
        }
    }

    /// Notes that an attribute is there.
    pub fn note(&self, signal: Signal, key: KeyId, present: &mut Present) {
        let rows = self.of(signal);
        present.resize(rows.always.len(), 0);
        rows.rows_of_key[usize::from(key.0)].iter().for_each(|number| set(present, usize::from(*number)));
    }

    /// Notes the name of the record.
    pub fn note_name(&self, signal: Signal, name: &str, last: &mut LastName, present: &mut Present) {
        let rows = self.of(signal);
        if last.rows.len() != rows.always.len() || last.name != name {
            last.name.clear();
            last.name.push_str(name);
            last.rows.clear();
            last.rows.resize(rows.always.len(), 0);
            for number in rows.of_names.iter().map(|number| usize::from(*number)) {
                let Some(Condition::OneOf(patterns)) = rows.rows.get(number).map(|row| &row.condition) else {
                    continue;
                };
                if patterns.iter().any(|pattern| pattern.matches(name)) {
                    set(&mut last.rows, number);
                }
            }
        }
        add(present, &last.rows);
    }

    /// Notes that the record has span events.
    pub fn note_events(&self, signal: Signal, present: &mut Present) {
        add(present, &self.of(signal).of_events);
    }

    /// Adds a row after the others of its field. `compile` prepares it.
    pub fn add(&mut self, target: Target, records: Records, compile: impl Fn(&mut Mapping) -> CompiledRow) {
        if records != Records::Logs {
            let row = compile(self);
            self.spans.add(target, row);
        }
        if records != Records::Spans {
            let row = compile(self);
            self.logs.add(target, row);
        }
    }

    /// Prepares a built-in row.
    pub fn compile(&mut self, row: &Row) -> CompiledRow {
        CompiledRow {
            from: self.source(row.source),
            condition: match row.test {
                Test::OneOf(texts) => Condition::OneOf(texts.iter().map(|text| Glob::new(text)).collect()),
                Test::SameAs(source) => Condition::SameAs(self.source(*source)),
                test => Condition::Plain(test),
            },
            guard: match row.when {
                When::Always => Guard::Always,
                When::Type(name) => Guard::Type(name.into()),
                When::NotType(name) => Guard::NotType(name.into()),
                When::Attribute(name, text) => Guard::Attribute(self.key(name), text.into()),
                When::NotAttribute(name, text) => Guard::NotAttribute(self.key(name), text.into()),
                When::Has(name) => Guard::Has(self.key(name)),
                When::Name(pattern) => Guard::Name(Glob::new(pattern)),
                When::Scope(pattern) => Guard::Scope(Glob::new(pattern)),
            },
            gift: match row.gives {
                Gives::Value => Gift::Value,
                Gives::Constant(text) => Gift::Constant(text.into()),
                Gives::WithoutSuffix(suffix) => Gift::WithoutSuffix(suffix.into()),
                Gives::Wildcard => Gift::Wildcard,
                Gives::Decoded => Gift::Decoded,
            },
        }
    }

    fn source(&mut self, source: Source) -> From {
        match source {
            Source::Attribute(name) => self.attribute(name),
            Source::Member(name, member) => From::Member(self.key(name), member.into()),
            Source::Indexed(prefix) => From::Indexed(format!("{prefix}.").into()),
            Source::EventAttribute(event, name) => From::EventAttribute(event.into(), name.into()),
            Source::EventMessages(names) => From::EventMessages(names),
            Source::Event(name) => From::Event(name.into()),
            Source::Resource(name) => From::Resource(self.key(name)),
            Source::BodyMember(name) => From::BodyMember(name.into()),
            Source::OutputMember(name) => From::OutputMember(name.into()),
            source => From::Plain(source),
        }
    }

    /// An attribute with this name, or the first one that matches it.
    pub fn attribute(&mut self, name: &str) -> From {
        if name.contains('*') { From::Pattern(Glob::new(name)) } else { From::Attribute(self.key(name)) }
    }

    /// The number of an attribute; a new one if no row has named it before.
    pub fn key(&mut self, name: &str) -> KeyId {
        let next = KeyId(u16::try_from(self.keys.len()).unwrap_or(u16::MAX));
        *self.keys.entry(name.into()).or_insert(next)
    }

    /// The number of an attribute that a row names.
    pub fn find_key(&self, name: &str) -> Option<KeyId> {
        self.keys.get(name).copied()
    }

    /// The number of attributes that rows name.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// The attributes that become labels, in the order of their names.
    pub fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// The attribute with the event name of a log record.
    pub fn event_name(&self) -> KeyId {
        self.log_keys[0]
    }

    /// The attribute with the duration of a log record, in ms.
    pub fn duration_ms(&self) -> KeyId {
        self.log_keys[1]
    }

    /// The rows of a field that may apply, in order of preference: those that were noted, and those that need not be.
    pub fn candidates<'m>(
        &'m self,
        signal: Signal,
        target: Target,
        present: &Present,
    ) -> impl Iterator<Item = &'m CompiledRow> {
        let rows = self.of(signal);
        let mut number = if target as usize == 0 { 0 } else { rows.ends[target as usize - 1] };
        let end = rows.ends[target as usize];
        std::iter::from_fn(move || {
            while number < end {
                let word = number / BITS;
                let bits = (rows.always[word] | present.get(word).copied().unwrap_or(0)) >> (number % BITS);
                if bits == 0 {
                    number = (word + 1) * BITS;
                    continue;
                }
                number += bits.trailing_zeros() as usize + 1;
                return rows.rows[..end].get(number - 1);
            }
            None
        })
    }
}
