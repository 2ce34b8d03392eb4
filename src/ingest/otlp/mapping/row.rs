//! The form of a row of the mapping table: a source of an event field, when it applies, and what it gives.

use serde::{Deserialize, Serialize};

/// What a row determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Target {
    /// `agent_id`
    AgentId,
    /// `session_id`
    SessionId,
    /// `metadata.user_id`, which the relay uses as the user of the session.
    UserId,
    /// `action_type`
    ActionType,
    /// `action_name`
    ActionName,
    /// `action_input`
    ActionInput,
    /// `action_output`
    ActionOutput,
    /// `action_status`
    ActionStatus,
    /// `error_message`, of an error or a timeout only.
    ErrorMessage,
    /// Whether `ingest.otlp.select: agent` stores the record.
    #[serde(rename = "select")]
    Selected,
}

impl Target {
    /// All targets, in the order of their numbers.
    pub const ALL: [Target; 10] = [
        Target::AgentId,
        Target::SessionId,
        Target::UserId,
        Target::ActionType,
        Target::ActionName,
        Target::ActionInput,
        Target::ActionOutput,
        Target::ActionStatus,
        Target::ErrorMessage,
        Target::Selected,
    ];

    /// Its name in documents and settings.
    pub fn name(self) -> &'static str {
        match self {
            Target::AgentId => "agent_id",
            Target::SessionId => "session_id",
            Target::UserId => "user_id",
            Target::ActionType => "action_type",
            Target::ActionName => "action_name",
            Target::ActionInput => "action_input",
            Target::ActionOutput => "action_output",
            Target::ActionStatus => "action_status",
            Target::ErrorMessage => "error_message",
            Target::Selected => "select",
        }
    }
}

/// Where a value comes from. A name of an attribute may contain one `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// An attribute of the span or log record.
    Attribute(&'static str),
    /// A member of the JSON object in an attribute.
    Member(&'static str, &'static str),
    /// The attributes `PREFIX.0.NAME`, `PREFIX.1.NAME`, ...: a list of objects.
    Indexed(&'static str),
    /// An attribute of the span events with a name. Lists of several events are joined; of other values the last
    /// applies.
    EventAttribute(&'static str, &'static str),
    /// The span events with one of these names: a list of objects, in the order of the events.
    EventMessages(&'static [&'static str]),
    /// There is a span event with this name.
    Event(&'static str),
    /// An attribute of the resource.
    Resource(&'static str),
    /// The name of the instrumentation scope.
    Scope,
    /// The name of the span, or the event name of the log record.
    Name,
    /// The body of the log record.
    Body,
    /// A member of the body of the log record.
    BodyMember(&'static str),
    /// The status code of the span: `OK` or `ERROR`.
    StatusCode,
    /// The status message of the span.
    StatusMessage,
    /// The severity number of the log record.
    Severity,
    /// A member of the JSON object that became `action_output`.
    OutputMember(&'static str),
    /// The value of the nearest ancestor in the same request.
    Ancestor,
    /// The value of the span in which the log record was written, if the span was received before.
    Span,
    /// The trace id, in hex.
    TraceId,
    /// `ingest.otlp.agent_id`
    DefaultAgent,
}

/// The condition on the value of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// It is there, and not an empty string.
    Present,
    /// It is one of these texts, in any letter case. A text may contain one `*`.
    OneOf(&'static [&'static str]),
    /// It is true in any spelling: `true`, `"True"`, `1`, `"1"`.
    True,
    /// It is false in any spelling.
    False,
    /// It describes an error: not false, null, `"None"`, `0` or empty in any spelling.
    Error,
    /// It is a number of at least this value.
    AtLeast(u64),
    /// It is not the empty object `{}`, which some programs send in place of content.
    NotEmptyObject,
    /// It does not look like a random id: a UUID, or 16 or more hex digits.
    NotRandom,
    /// It is not `unknown_service` or `unknown_service:...`, the defaults of the SDKs.
    NotDefaultService,
    /// It is a text without a stack trace.
    NotTraceback,
    /// It is the same text as that of another source.
    SameAs(&'static Source),
}

/// The condition on the record as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// None.
    Always,
    /// `action_type` is this one.
    Type(&'static str),
    /// `action_type` is a different one.
    NotType(&'static str),
    /// An attribute has this text, in any letter case.
    Attribute(&'static str, &'static str),
    /// An attribute has another text, or none.
    NotAttribute(&'static str, &'static str),
    /// An attribute is there.
    Has(&'static str),
    /// The name of the span or log record is this one. It may contain one `*`.
    Name(&'static str),
    /// The name of the instrumentation scope is this one. It may contain one `*`.
    Scope(&'static str),
}

/// What the field gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gives {
    /// The value of the source.
    Value,
    /// A constant.
    Constant(&'static str),
    /// The text of the source without this suffix.
    WithoutSuffix(&'static str),
    /// What `*` stands for in the pattern of the test.
    Wildcard,
    /// The value that the text of the source contains as JSON: a string, too, without its quotes.
    Decoded,
}

/// The records that a row applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Records {
    /// Spans and log records.
    All,
    /// Spans.
    Spans,
    /// Log records.
    Logs,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Where the value comes from.
    pub source: Source,
    /// The condition on the value.
    pub test: Test,
    /// The condition on the record.
    pub when: When,
    /// What the field gets.
    pub gives: Gives,
    /// The records that the row applies to.
    pub records: Records,
    /// The convention or the framework that the row serves.
    pub serves: &'static str,
}

/// A row that gives the value of a source if it is present.
pub const fn row(source: Source, serves: &'static str) -> Row {
    Row { source, test: Test::Present, when: When::Always, gives: Gives::Value, records: Records::All, serves }
}

/// A row that gives the value of an attribute if it is present.
pub const fn attribute(name: &'static str, serves: &'static str) -> Row {
    row(Source::Attribute(name), serves)
}

impl Row {
    /// Adds a condition on the value.
    pub const fn if_value(self, test: Test) -> Row {
        Row { test, ..self }
    }

    /// Adds the condition that the value is one of these texts.
    pub const fn is(self, texts: &'static [&'static str]) -> Row {
        Row { test: Test::OneOf(texts), ..self }
    }

    /// Adds a condition on the record.
    pub const fn when(self, when: When) -> Row {
        Row { when, ..self }
    }

    /// Sets what the field gets.
    pub const fn gives(self, gives: Gives) -> Row {
        Row { gives, ..self }
    }

    /// Sets the constant that the field gets.
    pub const fn means(self, constant: &'static str) -> Row {
        Row { gives: Gives::Constant(constant), ..self }
    }

    /// Restricts the row to spans.
    pub const fn of_spans(self) -> Row {
        Row { records: Records::Spans, ..self }
    }

    /// Restricts the row to log records.
    pub const fn of_logs(self) -> Row {
        Row { records: Records::Logs, ..self }
    }
}
