//! An export request: iterates over its spans or log records, each with its resource and scope.

use buffa::DecodeError;

use super::wire::Fields;

/// The kind of an export request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `ExportTraceServiceRequest`: spans.
    Traces,
    /// `ExportLogsServiceRequest`: log records.
    Logs,
}

impl Signal {
    /// The path of its call.
    pub fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/v1/traces",
            Signal::Logs => "/v1/logs",
        }
    }

    /// The JSON name of the field of a request that contains the items.
    pub fn field(self) -> &'static str {
        match self {
            Signal::Traces => "resourceSpans",
            Signal::Logs => "resourceLogs",
        }
    }

    /// The name of one item, for messages.
    pub fn item(self) -> &'static str {
        match self {
            Signal::Traces => "span",
            Signal::Logs => "log record",
        }
    }
}

/// A span or a log record.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Its `Resource`, encoded.
    pub resource: &'a [u8],
    /// The schema URL of its `Resource`.
    pub resource_schema_url: &'a [u8],
    /// Its `InstrumentationScope`, encoded.
    pub scope: &'a [u8],
    /// The schema URL of its `InstrumentationScope`.
    pub scope_schema_url: &'a [u8],
    /// The `Span` or `LogRecord`, encoded.
    pub message: &'a [u8],
}

/// Iterator over the items of a request. Requests of both kinds use the same field numbers.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    resources: Fields<'a>,
    scopes: Fields<'a>,
    messages: Fields<'a>,
    /// The resource, the scope and their schema URLs; the message is empty.
    shared: Item<'a>,
}

/// `resource_spans` and `resource_logs` of a request.
const RESOURCES: u32 = 1;
/// `resource` of a `ResourceSpans`, `scope` of a `ScopeSpans`.
const SHARED: u32 = 1;
/// `scope_spans` of a `ResourceSpans`, `spans` of a `ScopeSpans`. Until 2022 the first was
/// `instrumentation_library_spans`, with the same fields.
const CHILDREN: u32 = 2;
/// `schema_url` of a `ResourceSpans` and a `ScopeSpans`.
const SCHEMA_URL: u32 = 3;

impl<'a> Items<'a> {
    /// The items of an encoded request.
    pub fn of(request: &'a [u8]) -> Items<'a> {
        let none = Fields::of(&[]);
        let shared = Item { resource: &[], resource_schema_url: &[], scope: &[], scope_schema_url: &[], message: &[] };
        Items { resources: Fields::of(request), scopes: none.clone(), messages: none, shared }
    }

    fn item(&mut self) -> Result<Option<Item<'a>>, DecodeError> {
        loop {
            if let Some(message) = self.messages.next_message(CHILDREN)? {
                return Ok(Some(Item { message, ..self.shared }));
            }
            // A resource or scope may be encoded after the items that share it, so it is searched first.
            if let Some(group) = self.scopes.next_message(CHILDREN)? {
                self.shared.scope = field_of(group, SHARED)?;
                self.shared.scope_schema_url = field_of(group, SCHEMA_URL)?;
                self.messages = Fields::of(group);
            } else if let Some(group) = self.resources.next_message(RESOURCES)? {
                self.shared.resource = field_of(group, SHARED)?;
                self.shared.resource_schema_url = field_of(group, SCHEMA_URL)?;
                self.scopes = Fields::of(group);
            } else {
                return Ok(None);
            }
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.item().transpose()
    }
}

/// The first field with this number; empty if there is none.
fn field_of(group: &[u8], number: u32) -> Result<&[u8], DecodeError> {
    Ok(Fields::of(group).next_message(number)?.unwrap_or_default())
}
