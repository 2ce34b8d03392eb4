//! Whose agent's a span is that does not say: that of its nearest ancestor in the same request.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use super::event::SpanKey;

/// What a span says of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    /// Nothing: its parent may know.
    Inherited { parent: Option<u64> },
    /// That of the names with this index.
    Named(u32),
    /// Neither it nor any of its ancestors does.
    Unknown,
}

/// The spans of one request and their agents.
#[derive(Default)]
pub struct Family<'a> {
    /// Spans are known by a hash of their ids, with a key that no sender knows.
    hasher: RandomState,
    agents: HashMap<u64, Agent, foldhash::fast::RandomState>,
    names: Vec<Cow<'a, str>>,
}

impl<'a> Family<'a> {
    /// Adds a span. Of several with one id the first counts.
    pub fn add(&mut self, span: SpanKey, parent: Option<SpanKey>, name: Option<Cow<'a, str>>) {
        let parent = parent.map(|parent| self.hasher.hash_one(parent));
        let agent = match name {
            Some(name) => Agent::Named(self.name(name)),
            None => Agent::Inherited { parent },
        };
        self.agents.entry(self.hasher.hash_one(span)).or_insert(agent);
    }

    /// The index of a name. Spans of one agent often come one behind the other.
    fn name(&mut self, name: Cow<'a, str>) -> u32 {
        if self.names.last() != Some(&name) {
            self.names.push(name);
        }
        self.names.len() as u32 - 1
    }

    /// The agent of a span's nearest ancestor that names one, from its parent on.
    pub fn agent_above(&mut self, parent: SpanKey) -> Option<&Cow<'a, str>> {
        let mut way = Vec::new();
        let mut at = Some(self.hasher.hash_one(parent));
        let found = loop {
            let Some(agent) = at.and_then(|at| self.agents.get_mut(&at)) else { break Agent::Unknown };
            match *agent {
                Agent::Inherited { parent } => {
                    way.extend(at);
                    // Whoever comes back here has gone round in a circle.
                    *agent = Agent::Unknown;
                    at = parent;
                }
                known => break known,
            }
        };
        // The next one of these finds it at once.
        for span in way {
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

    fn above<'f>(family: &'f mut Family<'_>, parent: u64) -> Option<&'f str> {
        family.agent_above(key(parent)).map(|name| &**name)
    }

    #[test]
    fn the_nearest_ancestor_names_the_agent() {
        let mut family = Family::default();
        // Children come before their parents.
        family.add(key(4), Some(key(3)), None);
        family.add(key(3), Some(key(2)), None);
        family.add(key(2), Some(key(1)), Some("inner".into()));
        family.add(key(1), None, Some("outer".into()));
        family.add(key(9), None, None);
        assert_eq!(above(&mut family, 4), Some("inner"));
        assert_eq!(above(&mut family, 3), Some("inner"));
        assert_eq!(above(&mut family, 1), Some("outer"));
        assert_eq!(above(&mut family, 9), None);
        assert_eq!(above(&mut family, 7), None);
        let other_trace = SpanKey { trace: [2; 16], ..key(1) };
        assert_eq!(family.agent_above(other_trace), None);
    }

    #[test]
    fn circles_end_and_long_ways_are_gone_once() {
        let mut family = Family::default();
        family.add(key(1), Some(key(2)), None);
        family.add(key(2), Some(key(1)), None);
        assert_eq!(above(&mut family, 1), None);
        let last = 200_000;
        family.add(key(10), None, Some("root".into()));
        (11..last).for_each(|span| family.add(key(span), Some(key(span - 1)), None));
        // One way for each would be 20,000,000,000 steps.
        (11..last).rev().for_each(|span| assert_eq!(above(&mut family, span), Some("root")));
    }
}
