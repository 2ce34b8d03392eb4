//! Finds the agent and the session of a span that names none: those of its nearest ancestor in the same request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::facts::{Context, Facts, Relatives};
use super::ids::SpanKey;
use super::mapping::compiled::Mapping;
use super::mapping::row::Target;
use super::request::{Items, Signal};
use super::resource::ResourceScopeCache;
use super::span::Span;
use super::value::Json;

/// A value of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// The span has none; that of its parent applies.
    Inherited,
    /// The text with this index.
    Own(u32),
    /// Neither the span nor any of its ancestors has one.
    Unknown,
}

/// A span of the request.
struct Node {
    parent: Option<u64>,
    /// The agent and the session.
    values: [Value; 2],
}

/// The spans of one request, by parent and child, with their agents and sessions. They are read when the first span
/// without an agent or session of its own needs them.
pub struct Ancestors<'a> {
    /// The request, until it is read.
    unread: Option<Unread<'a>>,
    /// Spans are identified by a hash of their ids. Its key is random, so a sender cannot construct collisions.
    hasher: RandomState,
    nodes: HashMap<u64, Node, foldhash::fast::RandomState>,
    texts: Vec<Cow<'a, str>>,
}

/// A request of spans, and what reading it needs.
#[derive(Clone, Copy)]
pub struct Unread<'a> {
    /// The request, encoded.
    pub request: &'a [u8],
    /// The mapping.
    pub mapping: &'a Mapping,
    /// The maximum number of attributes of a span.
    pub max_attributes: usize,
    /// The maximum length of a resource and a scope, in bytes. Longer ones are not read.
    pub max_len: usize,
}

impl<'a> Relatives<'a> for Ancestors<'a> {
    fn nearest(&mut self, parent: SpanKey<'a>, target: Target) -> Option<Cow<'a, str>> {
        if let Some(unread) = self.unread.take() {
            self.read(unread);
        }
        self.find(parent, target).cloned()
    }
}

/// A span has no relatives while its own agent and session are looked up.
struct NoRelatives;

impl<'a> Relatives<'a> for NoRelatives {
    fn nearest(&mut self, _: SpanKey<'a>, _: Target) -> Option<Cow<'a, str>> {
        None
    }
}

impl<'a> Ancestors<'a> {
    /// The memory for each span, in bytes: a node and its share of the table.
    pub const NODE_BYTES: usize = 2 * (size_of::<u64>() + size_of::<Node>());

    /// The spans of a request; none without a request.
    pub fn new(unread: Option<Unread<'a>>) -> Ancestors<'a> {
        Ancestors { unread, hasher: RandomState::default(), nodes: HashMap::default(), texts: Vec::new() }
    }

    /// Reads the ids, the agent and the session of every span of the request.
    fn read(&mut self, unread: Unread<'a>) {
        let (mut facts, event) = (Facts::default(), Json::new(0));
        let mut shared = ResourceScopeCache::new(unread.max_attributes);
        let is_short = |part: &[u8]| part.len() <= unread.max_len;
        for item in Items::of(unread.request).map_while(Result::ok) {
            facts.clear();
            if ![item.resource, item.scope].into_iter().all(is_short) {
                continue;
            }
            let Ok(span) = Span::read(item.message, &mut facts, unread.mapping, unread.max_attributes) else {
                continue;
            };
            let (Ok(key), Ok(shared)) = (span.key(), shared.of(&item, unread.mapping)) else { continue };
            let mut context = Context {
                mapping: unread.mapping,
                signal: Signal::Traces,
                shared,
                relatives: &mut NoRelatives,
                parent: None,
                span: None,
                default_agent: "",
                action_type: Cow::Borrowed(""),
                is_own_only: true,
            };
            let own = [Target::AgentId, Target::SessionId]
                .map(|target| facts.text(target, &mut context, &event).map(|(text, _)| text));
            self.add(key, span.parent(), own);
        }
    }

    /// Adds a span with its agent and session. Of several spans with the same id, the first one applies.
    fn add(&mut self, span: SpanKey<'_>, parent: Option<SpanKey<'_>>, own: [Option<Cow<'a, str>>; 2]) {
        let parent = parent.map(|parent| self.hasher.hash_one(parent));
        let values = own.map(|text| text.map_or(Value::Inherited, |text| Value::Own(self.index(text))));
        self.nodes.entry(self.hasher.hash_one(span)).or_insert(Node { parent, values });
    }

    /// Returns the index of a text. The texts of the span before are reused: consecutive spans often have the same.
    fn index(&mut self, text: Cow<'a, str>) -> u32 {
        let last = self.texts.len().saturating_sub(2);
        if let Some(position) = self.texts[last..].iter().position(|other| *other == text) {
            return (last + position) as u32;
        }
        self.texts.push(text);
        self.texts.len() as u32 - 1
    }

    fn find(&mut self, parent: SpanKey<'_>, target: Target) -> Option<&Cow<'a, str>> {
        if self.nodes.is_empty() {
            return None;
        }
        let which = if target == Target::AgentId { 0 } else { 1 };
        let mut path = Vec::new();
        let mut current = Some(self.hasher.hash_one(parent));
        let found = loop {
            let Some(node) = current.and_then(|span| self.nodes.get_mut(&span)) else { break Value::Unknown };
            match node.values[which] {
                Value::Inherited => {
                    path.extend(current);
                    // Ends the loop if the ancestors form a cycle.
                    node.values[which] = Value::Unknown;
                    current = node.parent;
                }
                resolved => break resolved,
            }
        };
        // Later searches through these spans end at once.
        for span in path {
            if let Some(node) = self.nodes.get_mut(&span) {
                node.values[which] = found;
            }
        }
        match found {
            Value::Own(index) => self.texts.get(index as usize),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::otlp::ids::Id;

    fn key(span: u64) -> SpanKey<'static> {
        SpanKey { trace: Id::Bytes([1; 16]), span: Id::Bytes(span.to_be_bytes()) }
    }

    fn agent_of<'f>(ancestors: &'f mut Ancestors<'_>, parent: u64) -> Option<&'f str> {
        ancestors.find(key(parent), Target::AgentId).map(|name| &**name)
    }

    #[test]
    fn the_nearest_ancestor_names_the_agent_and_another_may_name_the_session() {
        let mut ancestors = Ancestors::new(None);
        // Children are added before their parents.
        ancestors.add(key(4), Some(key(3)), [None, None]);
        ancestors.add(key(3), Some(key(2)), [None, None]);
        ancestors.add(key(2), Some(key(1)), [Some("inner".into()), None]);
        ancestors.add(key(1), None, [Some("outer".into()), Some("session".into())]);
        ancestors.add(key(9), None, [None, None]);
        assert_eq!(agent_of(&mut ancestors, 4), Some("inner"));
        assert_eq!(agent_of(&mut ancestors, 3), Some("inner"));
        assert_eq!(agent_of(&mut ancestors, 1), Some("outer"));
        assert_eq!(agent_of(&mut ancestors, 9), None);
        assert_eq!(agent_of(&mut ancestors, 7), None);
        assert_eq!(ancestors.find(key(4), Target::SessionId).map(|text| &**text), Some("session"));
        let other_trace = SpanKey { trace: Id::Bytes([2; 16]), ..key(1) };
        assert_eq!(ancestors.find(other_trace, Target::AgentId), None);
    }

    #[test]
    fn a_search_ends_in_a_cycle_and_follows_a_long_path_only_once() {
        let mut ancestors = Ancestors::new(None);
        ancestors.add(key(1), Some(key(2)), [None, None]);
        ancestors.add(key(2), Some(key(1)), [None, None]);
        assert_eq!(agent_of(&mut ancestors, 1), None);
        let last = 200_000;
        ancestors.add(key(10), None, [Some("root".into()), None]);
        (11..last).for_each(|span| ancestors.add(key(span), Some(key(span - 1)), [None, None]));
        // Following the path for each span would take 20,000,000,000 steps.
        (11..last).rev().for_each(|span| assert_eq!(agent_of(&mut ancestors, span), Some("root")));
    }
}
