//! The schema of the OTLP 1.x messages, as far as they are read here, with their JSON names.

/// The type of a field.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A string.
    Text,
    /// An id: bytes, as hex digits in JSON.
    Hex,
    /// Bytes.
    Base64,
    /// A boolean.
    Bool,
    /// An `int64`, as a varint. An integer that does not fit is written as a double to another field.
    Integer {
        /// The number of that field.
        or_double: u32,
    },
    /// A `uint32`, as a varint.
    Count,
    /// A `fixed64`.
    Fixed64,
    /// A `fixed32`.
    Fixed32,
    /// A `double`.
    Double,
    /// An enum: the names of its values, from 0 on.
    Enum(&'static [&'static str]),
    /// A message.
    Message(&'static Message),
    /// An object with the fields of an `AnyValue`, which belong to the message itself.
    Inline,
    /// Any number of messages.
    List(&'static Message),
}

impl Kind {
    /// The JSON type of a value, for messages.
    pub fn expected(self) -> &'static str {
        match self {
            Kind::Text => "a string",
            Kind::Hex => "hex digits",
            Kind::Base64 => "base64",
            Kind::Bool => "true or false",
            Kind::Integer { .. } => "an integer",
            Kind::Count | Kind::Fixed64 | Kind::Fixed32 => "a non-negative integer",
            Kind::Double => "a number",
            Kind::Enum(_) => "the number of an enum",
            Kind::Message(_) | Kind::Inline => "an object",
            Kind::List(_) => "an array",
        }
    }
}

/// The fields of a message: name, number and type.
pub type Message = [Field];

type Field = (&'static str, u32, Kind);

/// `ExportTraceServiceRequest`
pub static TRACES: [Field; 1] = [("resourceSpans", 1, Kind::List(&RESOURCE_SPANS))];

/// `ExportLogsServiceRequest`
pub static LOGS: [Field; 1] = [("resourceLogs", 1, Kind::List(&RESOURCE_LOGS))];

static RESOURCE_SPANS: [Field; 4] = [
    ("resource", 1, Kind::Message(&RESOURCE)),
    ("scopeSpans", 2, Kind::List(&SCOPE_SPANS)),
    // The name until 2022.
    ("instrumentationLibrarySpans", 2, Kind::List(&SCOPE_SPANS)),
    ("schemaUrl", 3, Kind::Text),
];

static RESOURCE_LOGS: [Field; 4] = [
    ("resource", 1, Kind::Message(&RESOURCE)),
    ("scopeLogs", 2, Kind::List(&SCOPE_LOGS)),
    ("instrumentationLibraryLogs", 2, Kind::List(&SCOPE_LOGS)),
    ("schemaUrl", 3, Kind::Text),
];

/// `Resource`
pub static RESOURCE: [Field; 2] =
    [("attributes", 1, Kind::List(&KEY_VALUE)), ("droppedAttributesCount", 2, Kind::Count)];

static SCOPE_SPANS: [Field; 4] = [
    ("scope", 1, Kind::Message(&SCOPE)),
    ("instrumentationLibrary", 1, Kind::Message(&SCOPE)),
    ("spans", 2, Kind::List(&SPAN)),
    ("schemaUrl", 3, Kind::Text),
];

static SCOPE_LOGS: [Field; 5] = [
    ("scope", 1, Kind::Message(&SCOPE)),
    ("instrumentationLibrary", 1, Kind::Message(&SCOPE)),
    ("logRecords", 2, Kind::List(&LOG_RECORD)),
    ("logs", 2, Kind::List(&LOG_RECORD)),
    ("schemaUrl", 3, Kind::Text),
];

/// `InstrumentationScope`
pub static SCOPE: [Field; 4] = [
    ("name", 1, Kind::Text),
    ("version", 2, Kind::Text),
    ("attributes", 3, Kind::List(&KEY_VALUE)),
    ("droppedAttributesCount", 4, Kind::Count),
];

/// `Span`
pub static SPAN: [Field; 16] = [
    ("traceId", 1, Kind::Hex),
    ("spanId", 2, Kind::Hex),
    ("traceState", 3, Kind::Text),
    ("parentSpanId", 4, Kind::Hex),
    ("name", 5, Kind::Text),
    ("kind", 6, Kind::Enum(&SPAN_KINDS)),
    ("startTimeUnixNano", 7, Kind::Fixed64),
    ("endTimeUnixNano", 8, Kind::Fixed64),
    ("attributes", 9, Kind::List(&KEY_VALUE)),
    ("droppedAttributesCount", 10, Kind::Count),
    ("events", 11, Kind::List(&SPAN_EVENT)),
    ("droppedEventsCount", 12, Kind::Count),
    ("links", 13, Kind::List(&SPAN_LINK)),
    ("droppedLinksCount", 14, Kind::Count),
    ("status", 15, Kind::Message(&STATUS)),
    ("flags", 16, Kind::Fixed32),
];

static SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];

static SPAN_EVENT: [Field; 4] = [
    ("timeUnixNano", 1, Kind::Fixed64),
    ("name", 2, Kind::Text),
    ("attributes", 3, Kind::List(&KEY_VALUE)),
    ("droppedAttributesCount", 4, Kind::Count),
];

static SPAN_LINK: [Field; 6] = [
    ("traceId", 1, Kind::Hex),
    ("spanId", 2, Kind::Hex),
    ("traceState", 3, Kind::Text),
    ("attributes", 4, Kind::List(&KEY_VALUE)),
    ("droppedAttributesCount", 5, Kind::Count),
    ("flags", 6, Kind::Fixed32),
];

static STATUS: [Field; 2] = [("message", 2, Kind::Text), ("code", 3, Kind::Enum(&STATUS_CODES))];

static STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

/// `LogRecord`
pub static LOG_RECORD: [Field; 12] = [
    ("timeUnixNano", 1, Kind::Fixed64),
    ("severityNumber", 2, Kind::Enum(&SEVERITIES)),
    ("severityText", 3, Kind::Text),
    ("body", 5, Kind::Message(&ANY_VALUE)),
    ("attributes", 6, Kind::List(&KEY_VALUE)),
    ("droppedAttributesCount", 7, Kind::Count),
    ("flags", 8, Kind::Fixed32),
    ("traceId", 9, Kind::Hex),
    ("spanId", 10, Kind::Hex),
    ("observedTimeUnixNano", 11, Kind::Fixed64),
    ("eventName", 12, Kind::Text),
    // The name until 2022.
    ("name", 12, Kind::Text),
];

static SEVERITIES: [&str; 25] = [
    "SEVERITY_NUMBER_UNSPECIFIED",
    "SEVERITY_NUMBER_TRACE",
    "SEVERITY_NUMBER_TRACE2",
    "SEVERITY_NUMBER_TRACE3",
    "SEVERITY_NUMBER_TRACE4",
    "SEVERITY_NUMBER_DEBUG",
    "SEVERITY_NUMBER_DEBUG2",
    "SEVERITY_NUMBER_DEBUG3",
    "SEVERITY_NUMBER_DEBUG4",
    "SEVERITY_NUMBER_INFO",
    "SEVERITY_NUMBER_INFO2",
    "SEVERITY_NUMBER_INFO3",
    "SEVERITY_NUMBER_INFO4",
    "SEVERITY_NUMBER_WARN",
    "SEVERITY_NUMBER_WARN2",
    "SEVERITY_NUMBER_WARN3",
    "SEVERITY_NUMBER_WARN4",
    "SEVERITY_NUMBER_ERROR",
    "SEVERITY_NUMBER_ERROR2",
    "SEVERITY_NUMBER_ERROR3",
    "SEVERITY_NUMBER_ERROR4",
    "SEVERITY_NUMBER_FATAL",
    "SEVERITY_NUMBER_FATAL2",
    "SEVERITY_NUMBER_FATAL3",
    "SEVERITY_NUMBER_FATAL4",
];

static KEY_VALUE: [Field; 2] = [("key", 1, Kind::Text), ("value", 2, Kind::Message(&ANY_VALUE))];

/// `AnyValue`
pub static ANY_VALUE: [Field; 8] = [
    ("stringValue", 1, Kind::Text),
    ("boolValue", 2, Kind::Bool),
    ("intValue", 3, Kind::Integer { or_double: 4 }),
    ("doubleValue", 4, Kind::Double),
    ("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
    ("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
    ("bytesValue", 7, Kind::Base64),
    ("value", 0, Kind::Inline),
];

static ARRAY_VALUE: [Field; 1] = [("values", 1, Kind::List(&ANY_VALUE))];

static KEY_VALUE_LIST: [Field; 1] = [("values", 1, Kind::List(&KEY_VALUE))];
