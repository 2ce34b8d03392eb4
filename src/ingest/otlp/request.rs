//! An export request: iterates over its spans or log records, each with its resource and scope.

use buffa::DecodeError;

use super::event::ResourceScope;
use super::value::Fault;
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
    /// Its `InstrumentationScope`, encoded.
    pub scope: &'a [u8],
    /// The `Span` or `LogRecord`, encoded.
    pub message: &'a [u8],
}

/// Iterator over the items of a request. Requests of both kinds use the same field numbers.
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
const SHARED: u32 = 1;
/// `scope_spans` of a `ResourceSpans`, `spans` of a `ScopeSpans`.
const CHILDREN: u32 = 2;

impl<'a> Items<'a> {
    /// The items of an encoded request.
    pub fn of(request: &'a [u8]) -> Items<'a> {
        let none = Fields::of(&[]);
        Items { resources: Fields::of(request), scopes: none.clone(), messages: none, resource: &[], scope: &[] }
    }

    fn item(&mut self) -> Result<Option<Item<'a>>, DecodeError> {
        loop {
            if let Some(message) = self.messages.next_message(CHILDREN)? {
                return Ok(Some(Item { resource: self.resource, scope: self.scope, message }));
            }
            // A resource or scope may be encoded after the items that share it, so it is searched first.
            if let Some(group) = self.scopes.next_message(CHILDREN)? {
                self.scope = Fields::of(group).next_message(SHARED)?.unwrap_or_default();
                self.messages = Fields::of(group);
            } else if let Some(group) = self.resources.next_message(RESOURCES)? {
                self.resource = Fields::of(group).next_message(SHARED)?.unwrap_or_default();
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

/// Caches the resource and scope of the last item, because most items of a request share them.
pub struct ResourceScopeCache<'a> {
    /// The maximum number of attributes in a list.
    max_attributes: usize,
    resource: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    last: ResourceScope<'a>,
}

impl<'a> ResourceScopeCache<'a> {
    /// An empty cache. `max_attributes` bounds each list of attributes.
    pub fn new(max_attributes: usize) -> ResourceScopeCache<'a> {
        ResourceScopeCache { max_attributes, resource: None, scope: None, last: ResourceScope::new(max_attributes) }
    }

    /// The resource and scope of an item.
    ///
    /// # Errors
    /// When its resource or scope is malformed, or does not fit into an event.
    pub fn of(&mut self, item: &Item<'a>) -> Result<&ResourceScope<'a>, Fault> {
        let is_same = |last: &Option<&'a [u8]>, now| last.is_some_and(|last| std::ptr::eq(last, now));
        if !is_same(&self.resource, item.resource) {
            self.resource = None;
            self.last.read_resource(item.resource, self.max_attributes)?;
            self.resource = Some(item.resource);
        }
        if !is_same(&self.scope, item.scope) {
            self.scope = None;
            self.last.read_scope(item.scope, self.max_attributes)?;
            self.scope = Some(item.scope);
        }
        Ok(&self.last)
    }
}
