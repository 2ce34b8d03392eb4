//! The events of the recorder in an evidence package: the records of the erasures that its stubs name and, if they are asked for,
//! those of the period of the package.

use std::collections::BTreeSet;

use super::package_parts::{ExportRange, location, write_proof};
use crate::ledger::format::meta::Meta;
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use crate::recorder;
use crate::tlog::{Prover, SignedTree};
use cairn_proof::chain::{AgentKey, Field, Sequence, Stub, scan};
use cairn_proof::evidence::Erasures;
use cairn_proof::evidence::recorder::action;

/// The events of the recorder in a package.
pub struct RecorderPart {
    recorder: AgentKey,
    /// The sequences of the events of the period that were asked for.
    period: BTreeSet<u64>,
    /// The records that the stubs of the package name.
    named: BTreeSet<u64>,
    /// The sequences of the stubs, as ranges that include both ends.
    stubs: Vec<(u64, u64)>,
    /// What is to be written, the next one last; `None` before the first event is written.
    rest: Option<Vec<u64>>,
}

impl RecorderPart {
    /// Prepares the events of the recorder for a package under this tree; `None` if the last erasure is not under it yet.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn prepare(signed: &SignedTree, range: &ExportRange) -> Result<Option<RecorderPart>, StoreError> {
        let store = signed.store();
        let instance = Meta::read(store)?.map(|meta| meta.instance).unwrap_or_default();
        let (mut before, mut period, mut is_covered, mut is_after) = (None, BTreeSet::new(), true, false);
        recorder::read(store, instance, Sequence(1), |location, record| {
            let (sequence, is_signed) = (record.sequence().0, signed.covers(location));
            let name = record.value(Field::ActionName).and_then(scan::text);
            is_covered &= is_signed || name.as_deref() != Some(action::ERASURE);
            let ms = record.received_ms().unwrap_or(0);
            if range.since_ms.is_some_and(|since| ms < since) {
                // The last event before the period shows in which state it began.
                before = Some(sequence);
            } else if is_signed && !is_after {
                period.extend([sequence]);
                // As does the first one after it for its end.
                is_after = range.until_ms.is_some_and(|until| ms >= until);
            }
            Ok(())
        })?;
        period.extend(before);
        if !range.with_recorder {
            period.clear();
        }
        let recorder = AgentKey::of(&recorder::id_of(instance));
        let part = RecorderPart { recorder, period, named: BTreeSet::new(), stubs: Vec::new(), rest: None };
        Ok(is_covered.then_some(part))
    }

    /// Adds an event of the package.
    pub fn add(&mut self, record: RecordRef<'_>) {
        if !record.is_erased() {
            return;
        }
        let sequence = record.sequence().0;
        match self.stubs.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => self.stubs.push((sequence, sequence)),
        }
        // A stub that cannot be read is reported by the verifier.
        self.named.extend(Stub::parse(record.canonical(), record.agent()).map(|stub| stub.erased.sequence));
    }

    /// Adds the record of dropped events.
    pub fn add_record(&mut self, sequence: Sequence) {
        self.named.insert(sequence.0);
    }

    /// Appends the next part of the member `recorder`, up to about `max` bytes. `agent`, `first` and `last` are those of the
    /// package. Returns whether more follows.
    ///
    /// # Errors
    /// When the database cannot be read, or events of the package were erased while it was written.
    pub fn write(
        &mut self,
        prover: &mut Prover,
        (agent, first, last): (AgentKey, Sequence, Sequence),
        max: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, StoreError> {
        let signed = prover.signed().clone();
        let store = signed.store();
        let is_begun = self.rest.is_some();
        let mut rest = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let all: Vec<u64> = self.named.union(&self.period).copied().collect();
                self.require_whole(store, &all, (agent, first, last))?;
                all.into_iter().rev().collect()
            }
        };
        if !is_begun && !rest.is_empty() {
            out.extend_from_slice(br#","recorder":["#);
        }
        let mut is_first = !is_begun;
        while let Some(sequence) = rest.pop() {
            let at = location(store, self.recorder, Sequence(sequence))?;
            let record =
                lookup::record(store, at)?.ok_or_else(|| store.damaged("an event of the recorder is missing"))?;
            if !signed.covers(at) {
                return Err(store.failed("events were erased while the package was written: export it again"));
            }
            out.extend_from_slice(if is_first { br#"{"event":"# } else { br#",{"event":"# });
            record.as_ref().write_answer(out);
            out.extend_from_slice(br#","proof":"#);
            write_proof(prover, at, record.as_ref(), out)?;
            out.push(b'}');
            is_first = false;
            if rest.is_empty() {
                out.push(b']');
            } else if out.len() >= max {
                break;
            }
        }
        let is_more = !rest.is_empty();
        self.rest = Some(rest);
        Ok(is_more)
    }

    /// Checks that no event was written with its content although one of these records erased it.
    fn require_whole(
        &self,
        store: &Store,
        records: &[u64],
        (agent, first, last): (AgentKey, Sequence, Sequence),
    ) -> Result<(), StoreError> {
        let mut erasures = Erasures::default();
        for sequence in records.iter().map(|sequence| Sequence(*sequence)) {
            let record = lookup::record(store, location(store, self.recorder, sequence)?)?;
            let record = record.ok_or_else(|| store.damaged("an event of the recorder is missing"))?;
            erasures.add(record.as_ref().canonical(), sequence).map_err(|why| store.damaged(why))?;
        }
        for (from, to, _) in erasures.ranges(agent) {
            let (from, to) = (from.max(first).0, to.min(last).0);
            // Consecutive stubs are one range.
            let at = self.stubs.partition_point(|(first, _)| *first <= from);
            let is_stub = at.checked_sub(1).is_some_and(|at| to <= self.stubs[at].1);
            if from <= to && !is_stub {
                return Err(store.failed("events are being erased: export the package again"));
            }
        }
        Ok(())
    }
}
