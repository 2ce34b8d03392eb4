//! The erasures that the chain of a recorder has, by agent and sequence.
//!
//! The record of an erasure is an event of the recorder; `docs/recorder.md` specifies it. It names every erased event by agent and
//! sequence, so that a stub is checked by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::recorder::action;
use crate::chain::walk::FieldValues;
use crate::chain::{AgentKey, AgentMap, ErasedBy, Field, Sequence, Stub, scan};

/// What an erasure has erased: the member `action_output` of its record.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// The sequences of each agent, as ranges that include both ends.
    pub agents: BTreeMap<String, Vec<(u64, u64)>>,
    /// The number of events.
    pub events: u64,
}

/// An erasure of consecutive events of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    last: u64,
    record: Sequence,
}

/// All erasures of a recorder.
#[derive(Debug, Default)]
pub struct Erasures {
    /// The ranges of each agent, by their first sequence.
    agents: AgentMap<BTreeMap<u64, Range>>,
    /// When each record was received.
    times: BTreeMap<Sequence, String>,
}

impl Erasures {
    /// Adds an event of the recorder, given its canonical bytes and its sequence. Events that are no erasures are left out.
    ///
    /// # Errors
    /// When it is an erasure that cannot be read, or that erases what is erased already.
    pub fn add(&mut self, canonical: &[u8], record: Sequence) -> Result<(), String> {
        let values = FieldValues::of(canonical);
        if values.get(Field::ActionName).and_then(scan::text).as_deref() != Some(action::ERASURE) {
            return Ok(());
        }
        let output = values.get(Field::ActionOutput).unwrap_or_default();
        let erased: Erased =
            serde_json::from_slice(output).map_err(|error| format!("the record {record} of an erasure: {error}"))?;
        let lengths =
            erased.agents.values().flatten().map(|(first, last)| last.saturating_sub(*first).saturating_add(1));
        let events = lengths.fold(0u64, u64::saturating_add);
        if events != erased.events {
            return Err(format!(
                "the record {record} of an erasure names {events} events, and counts {}",
                erased.events
            ));
        }
        let at = values.get(Field::ReceivedAt).and_then(scan::text).unwrap_or_default();
        self.times.insert(record, at.into_owned());
        for (agent_id, ranges) in erased.agents {
            let agent = self.agents.entry(AgentKey::of(&agent_id)).or_default();
            for (first, last) in ranges {
                let is_after = |(_, before): (&u64, &Range)| before.last < first;
                let is_free = agent.range(..=last).next_back().is_none_or(is_after);
                if first == 0 || first > last || !is_free {
                    return Err(format!("the record {record} of an erasure has the wrong sequences {first} to {last}"));
                }
                agent.insert(first, Range { last, record });
            }
        }
        Ok(())
    }

    /// The record that erased an event, if one did.
    pub fn of(&self, agent: AgentKey, sequence: Sequence) -> Option<Sequence> {
        let (_, range) = self.agents.get(&agent)?.range(..=sequence.0).next_back()?;
        (sequence.0 <= range.last).then_some(range.record)
    }

    /// The last record; 0 if there is none.
    pub fn last_record(&self) -> Sequence {
        self.times.last_key_value().map_or(Sequence(0), |(record, _)| *record)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// Checks an event with its content against the erasures. Those after `done` may not be completed yet.
    ///
    /// # Errors
    /// When its erasure is recorded.
    pub fn check_content(&self, agent: AgentKey, sequence: Sequence, done: Sequence) -> Result<(), String> {
        match self.of(agent, sequence) {
            Some(record) if record <= done => {
                Err(format!("the content is still there, and the recorder has its erasure (sequence {record})"))
            }
            _ => Ok(()),
        }
    }

    /// Whether an event was erased by this record of `recorder`.
    pub fn has(&self, by: &ErasedBy, agent: AgentKey, sequence: Sequence, recorder: &str) -> bool {
        by.recorder == recorder
            && self.of(agent, sequence) == Some(by.record())
            && self.times.get(&by.record()) == Some(&by.at)
    }

    /// Checks a stub against the erasures of `recorder`.
    ///
    /// # Errors
    /// When they do not have the one that it names.
    pub fn check_stub(&self, stub: &Stub, agent: AgentKey, sequence: Sequence, recorder: &str) -> Result<(), String> {
        if self.has(&stub.erased, agent, sequence, recorder) {
            return Ok(());
        }
        let named = &stub.erased.recorder;
        let record = stub.erased.sequence;
        Err(format!("the content is missing, and no erasure of it is recorded ({named}, sequence {record}, is named)"))
    }

    /// The ranges of an agent: first, last, and the record.
    pub fn ranges(&self, agent: AgentKey) -> impl Iterator<Item = (Sequence, Sequence, Sequence)> + '_ {
        let ranges = self.agents.get(&agent).into_iter().flatten();
        ranges.map(|(first, range)| (Sequence(*first), Sequence(range.last), range.record))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(output: &serde_json::Value) -> String {
        format!(r#"{{"action_name":"recorder.erasure","action_output":{output},"agent_id":"cairn/x"}}"#)
    }

    #[test]
    fn an_event_is_erased_by_the_record_that_names_it() {
        let mut erasures = Erasures::default();
        let mut add = |output, at| erasures.add(record(&output).as_bytes(), Sequence(at));
        add(json!({"agents": {"a": [[3, 5], [9, 9]], "b": [[1, 1]]}, "events": 5}), 7).unwrap();
        add(json!({"agents": {"a": [[6, 8]]}, "events": 3}), 8).unwrap();
        for (wrong, events) in [([5, 6], 2), ([1, 3], 3), ([0, 1], 2), ([20, 19], 1), ([1, 20], 20)] {
            let found = add(json!({"agents": {"a": [wrong]}, "events": events}), 9);
            assert!(found.unwrap_err().contains("wrong sequences"), "{wrong:?}");
        }
        assert!(add(json!({"agents": {"c": [[1, 2]]}, "events": 3}), 9).is_err(), "another number of events");
        assert!(add(json!({"agents": 3}), 9).is_err());
        let (a, b) = (AgentKey::of("a"), AgentKey::of("b"));
        let of = |agent, sequence| erasures.of(agent, Sequence(sequence)).map(|record| record.0);
        let found: Vec<_> = (1..=10).map(|sequence| of(a, sequence)).collect();
        let (one, two) = (Some(7), Some(8));
        assert_eq!(found, [None, None, one, one, one, two, two, two, one, None]);
        assert_eq!((of(b, 1), of(b, 2), of(AgentKey::of("c"), 1)), (one, None, None));
        assert!(erasures.check_content(a, Sequence(6), Sequence(7)).is_ok(), "not completed yet");
        assert!(erasures.check_content(a, Sequence(6), Sequence(8)).is_err());
    }
}
