//! Checks the member `recorder` of a package: events of the recorder, each with its proof, and what they say about erased events.
//!
//! The rules are specified in `docs/verification.md`, "Erased events" and "Events of the recorder".

use tlog_tiles::{Hash as Node, record_hash};

use super::claims::{Proof, StrictObject};
use super::erasures::Erasures;
use super::package_event::PackageEventReader;
use super::recorder::RecorderReport;
use super::retained::{AnchorProof, Retained};
use super::verdict::Finding;
use crate::chain::{AgentKey, ErasedBy, Field, Hash, RECORDER_PREFIX, Sequence, Stub, canonicalize, scan};
use crate::plural::plural;
use crate::tree::leaf;

/// Consecutive erased events of a package that were erased by one erasure.
struct StubRange {
    first: Sequence,
    last: Sequence,
    erased: ErasedBy,
}

/// The erased events of a package.
#[derive(Default)]
pub struct Stubs(Vec<StubRange>);

impl Stubs {
    /// Adds the next event, which was erased.
    pub fn add(&mut self, sequence: Sequence, stub: Stub) {
        match self.0.last_mut() {
            Some(range) if range.last.next() == sequence && range.erased == stub.erased => range.last = sequence,
            _ => self.0.push(StubRange { first: sequence, last: sequence, erased: stub.erased }),
        }
    }

    /// The number of events.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|range| range.last.0.saturating_sub(range.first.0).saturating_add(1)).sum()
    }

    /// Whether an event was erased.
    fn contains(&self, sequence: Sequence) -> bool {
        let after = self.0.partition_point(|range| range.first <= sequence);
        after.checked_sub(1).is_some_and(|at| sequence <= self.0[at].last)
    }
}

/// The events of the recorder in a package.
#[derive(Default)]
pub struct RecorderCheck {
    reader: PackageEventReader,
    agent_id: String,
    /// The sequence and the hash of the last event.
    last: Option<(Sequence, Hash)>,
    /// The first sequence from which on there are no gaps.
    unbroken_from: Sequence,
    last_leaf_index: Option<u64>,
    events: u64,
    erasures: Erasures,
    retained: Retained,
    report: RecorderReport,
    error: Option<String>,
}

impl RecorderCheck {
    /// Checks the next event and its proof in the tree of this size and root, if there is one.
    pub fn item(&mut self, text: &str, tree: Option<(u64, Node)>) {
        self.events += 1;
        if let Err(why) = self.check(text, tree) {
            let number = self.events;
            self.error.get_or_insert(format!("event {number} of the recorder: {why}"));
        }
    }

    fn check(&mut self, text: &str, tree: Option<(u64, Node)>) -> Result<(), String> {
        let item = canonicalize(text).map_err(|error| error.to_string())?;
        let member = |name: &str| {
            let member = scan::member(&item, name).and_then(|bytes| std::str::from_utf8(bytes).ok());
            member.ok_or_else(|| format!("{name} is missing"))
        };
        if scan::members(&item).count() != 2 {
            return Err("expected event and proof".to_owned());
        }
        let proof: StrictObject<Proof> = serde_json::from_str(member("proof")?).map_err(|error| error.to_string())?;
        let event = self.reader.read(member("event")?)?;
        if let Some(why) = event.invalid {
            return Err(why);
        }
        let agent_id = scan::text(event.agent_id).unwrap_or_default();
        let captured = scan::member(event.canonical, Field::CaptureMethod.name());
        let is_recorder = agent_id.starts_with(RECORDER_PREFIX) && captured == Some(br#""recorder""#);
        if !is_recorder || event.stub.is_some() || self.events > 1 && self.agent_id != *agent_id {
            return Err(format!("agent {agent_id:?} is not the recorder"));
        }
        let (sequence, hash) = (event.sequence, event.hash);
        if Hash::of_event(event.canonical, &event.prev_hash) != hash {
            return Err(format!("hash mismatch at sequence {sequence}"));
        }
        let is_next = self.last.is_some_and(|(last, _)| last.next() == sequence);
        match self.last {
            Some((last, _)) if sequence <= last => return Err(format!("sequence {sequence} follows {last}")),
            Some((_, last)) if is_next && event.prev_hash != last => {
                return Err(format!("broken link at sequence {sequence}"));
            }
            _ => {}
        }
        if let Some((size, root)) = tree {
            let leaf = record_hash(&leaf::data(event.agent_id, hash, sequence));
            if proof.0.leaf_hash.0.0 != leaf.0 {
                return Err("its proof belongs to another event".to_owned());
            }
            if let Some(why) = proof.0.error(self.last_leaf_index, size, root) {
                return Err(why);
            }
            self.last_leaf_index = Some(proof.0.leaf_index);
        }
        if !is_next {
            self.report = RecorderReport::default();
            self.unbroken_from = sequence;
        }
        self.report.add(event.canonical);
        self.erasures.add(event.canonical, sequence)?;
        self.retained.add(event.canonical, sequence)?;
        self.agent_id = agent_id.into_owned();
        self.last = Some((sequence, hash));
        Ok(())
    }

    /// Whether the part without a gap begins with the first event of the recorder, or not after this time in ms since 1970.
    pub fn covers_from(&self, since_ms: u64) -> bool {
        self.unbroken_from == Sequence(1) || self.report.span_ms.is_some_and(|(first, _)| first <= since_ms)
    }

    /// The verdict on the proof that retention has dropped the events of `agent` before `start`: the sequence of its first event and
    /// the hash before that.
    pub fn retention(&self, proof: &AnchorProof, agent: AgentKey, start: (Sequence, Hash)) -> Finding {
        self.retained.finding(proof, agent, start, &self.agent_id)
    }

    /// The sequence of the last event; 0 if there is none.
    pub fn last_sequence(&self) -> Sequence {
        self.last.map_or(Sequence(0), |(last, _)| last)
    }

    /// What the events say about the period that they cover without a gap.
    pub fn report(&self) -> &RecorderReport {
        &self.report
    }

    /// The verdict on these events. `has_tree`: whether their proofs could be checked.
    pub fn finding(&self, has_tree: bool) -> Finding {
        match (&self.error, self.last) {
            (Some(why), _) => Finding::Fails(why.clone()),
            (None, None) => Finding::NotShown("the package has no events of the recorder".to_owned()),
            (None, Some(_)) if !has_tree => Finding::NotShown("the package names no tree".to_owned()),
            (None, Some((last, _))) => Finding::Holds(format!(
                "{} of {}, each a leaf of the tree, without a gap from sequence {} to {last}",
                plural(self.events, "event"),
                self.agent_id,
                self.unbroken_from
            )),
        }
    }

    /// The verdict on the erased events of `agent` in a package with the sequences from `first` to `last`; `None` if nothing was
    /// erased.
    pub fn erasures(&self, stubs: &Stubs, agent: AgentKey, (first, last): (Sequence, Sequence)) -> Option<Finding> {
        let wrong = |sequence: Sequence, why: String| Some(Finding::Fails(format!("sequence {sequence}: {why}")));
        for StubRange { first, last, erased } in &stubs.0 {
            for sequence in (first.0..=last.0).map(Sequence) {
                if !self.erasures.has(erased, agent, sequence, &self.agent_id) {
                    return wrong(sequence, "the content is missing, and no erasure of it is recorded".to_owned());
                }
            }
        }
        for (from, to, record) in self.erasures.ranges(agent) {
            let found = (from.max(first).0..=to.min(last).0).map(Sequence).find(|sequence| !stubs.contains(*sequence));
            if let Some(sequence) = found {
                let why = format!(
                    "the content is there, and its erasure is recorded in {}, sequence {record}",
                    self.agent_id
                );
                return wrong(sequence, why);
            }
        }
        if stubs.0.is_empty() {
            return None;
        }
        let mut records: Vec<&ErasedBy> = stubs.0.iter().map(|range| &range.erased).collect();
        records.sort_by_key(|erased| erased.sequence);
        records.dedup();
        let (shown, more) = (records.iter().take(3), records.len().saturating_sub(3));
        let shown: Vec<String> = shown
            .map(|ErasedBy { at, recorder, sequence }| {
                format!("on {at}, as recorded in {recorder}, sequence {sequence}")
            })
            .collect();
        let more = if more > 0 { format!(", and in {more} more") } else { String::new() };
        Some(Finding::Holds(format!("{}: content erased {}{more}", plural(stubs.count(), "event"), shown.join("; "))))
    }
}
