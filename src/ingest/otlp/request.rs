//! An export request: its spans or log records one after the other, each with what it shares with others.

use buffa::DecodeError;

use super::event::Origin;
use super::value::Fault;
use super::wire::Fields;

/// What a request brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `ExportTraceServiceRequest`: spans.
    Traces,
    /// `ExportLogsServiceRequest`: log records.
    Logs,
}

impl Signal {
    /// Where it is sent.
    pub fn path(self) -> &'static str {
        match self {
            Signal::Traces => "/v1/traces",
            Signal::Logs => "/v1/logs",
        }
    }

    /// The field of a request that they are in, in JSON.
    pub fn field(self) -> &'static str {
        match self {
            Signal::Traces => "resourceSpans",
            Signal::Logs => "resourceLogs",
        }
    }

    /// What one of them is called.
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
    /// The `Resource` that it comes from.
    pub resource: &'a [u8],
    /// The `InstrumentationScope` that wrote it.
    pub scope: &'a [u8],
    /// A `Span` or a `LogRecord`.
    pub message: &'a [u8],
}

/// The items of a request. Both kinds of request number their fields alike.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    resources: Fields<'a>,
    scopes: Fields<'a>,
    messages: Fields<'a>,
    resource: &'a [u8],
    scope: &'a [u8],
}

/// `resource_spans` and `resource_logs` of a request.
const RESOURCES: u32 = 1;
/// `resource` of a `ResourceSpans`, `scope` of a `ScopeSpans`.
const ORIGIN: u32 = 1;
/// `scope_spans` of a `ResourceSpans`, `spans` of a `ScopeSpans`.
const PARTS: u32 = 2;

impl<'a> Items<'a> {
    /// Those of this request.
    pub fn of(request: &'a [u8]) -> Items<'a> {
        let none = Fields::of(&[]);
        Items { resources: Fields::of(request), scopes: none.clone(), messages: none, resource: &[], scope: &[] }
    }

    fn item(&mut self) -> Result<Option<Item<'a>>, DecodeError> {
        loop {
            if let Some(message) = self.messages.next_message(PARTS)? {
                return Ok(Some(Item { resource: self.resource, scope: self.scope, message }));
            }
            // What is shared may stand behind what shares it.
            if let Some(part) = self.scopes.next_message(PARTS)? {
                self.scope = Fields::of(part).next_message(ORIGIN)?.unwrap_or_default();
                self.messages = Fields::of(part);
            } else if let Some(part) = self.resources.next_message(RESOURCES)? {
                self.resource = Fields::of(part).next_message(ORIGIN)?.unwrap_or_default();
                self.scopes = Fields::of(part);
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

/// The origin of the last item, because most of a request have the same.
pub struct Origins<'a> {
    /// The most attributes of a list.
    most: usize,
    resource: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    last: Origin<'a>,
}

impl<'a> Origins<'a> {
    /// For lists of at most that many attributes.
    pub fn new(most: usize) -> Origins<'a> {
        Origins { most, resource: None, scope: None, last: Origin::new(most) }
    }

    /// Where an item comes from.
    ///
    /// # Errors
    /// When its resource or scope is none, or nothing that an event can hold.
    pub fn of(&mut self, item: &Item<'a>) -> Result<&Origin<'a>, Fault> {
        let is_same = |last: &Option<&'a [u8]>, now| last.is_some_and(|last| std::ptr::eq(last, now));
        if !is_same(&self.resource, item.resource) {
            self.resource = None;
            self.last.read_resource(item.resource, self.most)?;
            self.resource = Some(item.resource);
        }
        if !is_same(&self.scope, item.scope) {
            self.scope = None;
            self.last.read_scope(item.scope, self.most)?;
            self.scope = Some(item.scope);
        }
        Ok(&self.last)
    }
}
