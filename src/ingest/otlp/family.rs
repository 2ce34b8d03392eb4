//! Finds the agent of a span that names none: the agent of its nearest ancestor in the same request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::event::SpanKey;

/// The agent of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    /// The span names none; the agent of its parent applies.
    Inherited { parent: Option<u64> },
    /// The name with this index.
    Named(u32),
    /// Neither the span nor any of its ancestors names one.
    Unknown,
}

/// The spans of one request, by parent and child, with their agents.
#[derive(Default)]
pub struct Family<'a> {
    /// Spans are identified by a hash of their ids. Its key is random, so a sender cannot construct collisions.
    hasher: RandomState,
    agents: HashMap<u64, Agent, foldhash::fast::RandomState>,
    names: Vec<Cow<'a, str>>,
}

impl<'a> Family<'a> {
    /// Adds a span. Of several spans with the same id, the first one applies.
    pub fn add(&mut self, span: SpanKey, parent: Option<SpanKey>, name: Option<Cow<'a, str>>) {
        let parent = parent.map(|parent| self.hasher.hash_one(parent));
        let agent = match name {
            Some(name) => Agent::Named(self.name(name)),
            None => Agent::Inherited { parent },
        };
        self.agents.entry(self.hasher.hash_one(span)).or_insert(agent);
    }

    /// Returns the index of a name. A name is reused only for consecutive spans, which often have the same agent.
    fn name(&mut self, name: Cow<'a, str>) -> u32 {
        if self.names.last() != Some(&name) {
            self.names.push(name);
        }
        self.names.len() as u32 - 1
    }

    /// The agent of the nearest ancestor that names one, where `parent` is the first ancestor.
    pub fn agent_of_ancestor(&mut self, parent: SpanKey) -> Option<&Cow<'a, str>> {
        let mut path = Vec::new();
        let mut current = Some(self.hasher.hash_one(parent));
        let found = loop {
            let Some(agent) = current.and_then(|span| self.agents.get_mut(&span)) else { break Agent::Unknown };
            match *agent {
                Agent::Inherited { parent } => {
                    path.extend(current);
                    // Ends the loop if the ancestors form a cycle.
                    *agent = Agent::Unknown;
                    current = parent;
                }
                resolved => break resolved,
            }
        };
        // Later searches through these spans end at once.
        for span in path {
            self.agents.insert(span, found);
        }
        match found {
            Agent::Named(index) => self.names.get(index as usize),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(span: u64) -> SpanKey {
        SpanKey { trace: [1; 16], span: span.to_be_bytes() }
    }

    fn agent_of<'f>(family: &'f mut Family<'_>, parent: u64) -> Option<&'f str> {
        family.agent_of_ancestor(key(parent)).map(|name| &**name)
    }

    #[test]
    fn the_nearest_ancestor_names_the_agent() {
        let mut family = Family::default();
        // Children are added before their parents.
        family.add(key(4), Some(key(3)), None);
        family.add(key(3), Some(key(2)), None);
        family.add(key(2), Some(key(1)), Some("inner".into()));
        family.add(key(1), None, Some("outer".into()));
        family.add(key(9), None, None);
        assert_eq!(agent_of(&mut family, 4), Some("inner"));
        assert_eq!(agent_of(&mut family, 3), Some("inner"));
        assert_eq!(agent_of(&mut family, 1), Some("outer"));
        assert_eq!(agent_of(&mut family, 9), None);
        assert_eq!(agent_of(&mut family, 7), None);
        let other_trace = SpanKey { trace: [2; 16], ..key(1) };
        assert_eq!(family.agent_of_ancestor(other_trace), None);
    }

    #[test]
    fn a_search_ends_in_a_cycle_and_follows_a_long_path_only_once() {
        let mut family = Family::default();
        family.add(key(1), Some(key(2)), None);
        family.add(key(2), Some(key(1)), None);
        assert_eq!(agent_of(&mut family, 1), None);
        let last = 200_000;
        family.add(key(10), None, Some("root".into()));
        (11..last).for_each(|span| family.add(key(span), Some(key(span - 1)), None));
        // Following the path for each span would take 20,000,000,000 steps.
        (11..last).rev().for_each(|span| assert_eq!(agent_of(&mut family, span), Some("root")));
    }
}
