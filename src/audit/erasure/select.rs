//! Finds the events that a selection means, and leaves out those that are held.

use super::eraser::add_locations;
use super::holds::Hold;
use super::selection::Selection;
use crate::audit::filter::Filter;
use crate::audit::source::{Order, Stream};
use crate::http::Turn;
use crate::ledger::Ledger;
use crate::ledger::format::floor::Anchor;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::{lookup, received};
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::{AgentKey, Field, RECORDER_PREFIX, scan};
use cairn_proof::evidence::{Erased, Erasures};

/// The most ranges of sequences in one record of an erasure, which is one event.
const RANGES_PER_RECORD: usize = 8192;

/// The events that are not erased although a selection means them.
pub struct Kept {
    /// The holds.
    pub holds: Vec<Hold>,
    /// The erasures that are recorded and may not be completed.
    pub recorded: Erasures,
}

/// The events that a selection means.
#[derive(Debug, Default)]
pub struct Selected {
    /// The events to erase, as the outputs of their records.
    pub records: Vec<Erased>,
    /// The number of events to erase.
    pub events: u64,
    /// The number of events that are held.
    pub held: u64,
    /// The number of events that are erased already.
    pub erased: u64,
    /// The number of ranges in the last record.
    ranges: usize,
}

impl Selected {
    /// Adds an event, unless it is the recorder's own, held, or erased.
    fn add(&mut self, record: RecordRef<'_>, kept: &Kept) {
        let agent_id = record.value(Field::AgentId).and_then(scan::text).unwrap_or_default();
        if agent_id.starts_with(RECORDER_PREFIX) && record.value(Field::CaptureMethod) == Some(br#""recorder""#) {
            return;
        }
        if record.is_erased() || kept.recorded.of(record.agent(), record.sequence()).is_some() {
            self.erased += 1;
            return;
        }
        let id = lookup::id(record);
        if kept.holds.iter().any(|hold| hold.holds(id, record)) {
            self.held += 1;
            return;
        }
        if self.records.is_empty() || self.ranges >= RANGES_PER_RECORD {
            self.records.push(Erased::default());
            self.ranges = 0;
        }
        let Some(output) = self.records.last_mut() else { return };
        let sequence = record.sequence().0;
        let ranges = output.agents.entry(agent_id.into_owned()).or_default();
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == sequence => *last = sequence,
            _ => {
                ranges.push((sequence, sequence));
                self.ranges += 1;
            }
        }
        output.events += 1;
        self.events += 1;
    }
}

/// Finds the events of a selection. The index must have everything that is committed.
///
/// # Errors
/// When the database cannot be read.
pub fn select(ledger: &Ledger, selection: &Selection, kept: &Kept, turn: &Turn) -> Result<Selected, StoreError> {
    let (store, filter) = (ledger.store(), Filter::of(selection));
    let mut selected = Selected::default();
    if let Some(id) = selection.id {
        let found = ledger.find(id)?;
        if let Some((_, record)) = found.filter(|(_, record)| is_in(record.as_ref(), &filter)) {
            selected.add(record.as_ref(), kept);
        }
        return Ok(selected);
    }
    let mut events = Events::new(store)?;
    if !selection.agents.is_empty() {
        for (agent_id, ranges) in &selection.agents {
            for location in locations_of(store, AgentKey::of(agent_id), ranges)? {
                if turn.is_over() {
                    return Ok(selected);
                }
                let Some(record) = events.at(location)? else { continue };
                let record = lookup::parse(store, location, record)?;
                if is_in(record, &filter) {
                    selected.add(record, kept);
                }
            }
        }
        return Ok(selected);
    }
    for shard in ledger.committed().shards() {
        let end = ledger.committed().next(shard);
        let ranges = received::ranges(store, shard, end, filter.since_ms, filter.until_ms)?;
        let mut stream = Stream::new(ledger, shard, &filter, Order::Asc, ranges)?;
        while let Some(hit) = stream.next(&filter, turn)? {
            if let Some(record) = events.at(hit.location)? {
                selected.add(lookup::parse(store, hit.location, record)?, kept);
            }
        }
    }
    Ok(selected)
}

/// Finds the events that were received before `until_ms`, at most `max` from the positions `from` on, shard by shard. Returns the
/// positions after them.
///
/// # Errors
/// When the database cannot be read.
pub fn select_old(
    ledger: &Ledger,
    until_ms: u64,
    mut from: Vec<Position>,
    max: u64,
    kept: &Kept,
) -> Result<(Selected, Vec<Position>), StoreError> {
    let (store, mut selected, mut left) = (ledger.store(), Selected::default(), max);
    let mut events = Events::scan(store, 1)?;
    for shard in ledger.committed().shards() {
        let next = &mut from[usize::from(shard.0)];
        let indexed = ledger.index().next(shard);
        for range in received::ranges(store, shard, indexed, None, Some(until_ms))? {
            *next = (*next).max(range.start);
            while *next < range.end && left > 0 {
                let location = Location { shard, position: *next };
                // A damaged event is kept: `cairn verify` reports it.
                if let Some(record) = events.at(location)?.and_then(|record| RecordRef::parse(record).ok()) {
                    selected.add(record, kept);
                }
                *next = next.next();
                left -= 1;
            }
        }
    }
    Ok((selected, from))
}

/// The locations of the events of an agent with these sequences, as far as there are any, each once and in order.
fn locations_of(store: &Store, agent: AgentKey, ranges: &[(u64, u64)]) -> Result<Vec<Location>, StoreError> {
    let last = lookup::agent(store, agent)?.map_or(0, |agent| agent.sequence.0);
    let start = Anchor::read(store, agent)?.map_or(1, |anchor| anchor.sequence.0);
    let mut ranges: Vec<(u64, u64)> = ranges.iter().map(|(first, to)| ((*first).max(start), (*to).min(last))).collect();
    ranges.sort_unstable();
    let (mut locations, mut next) = (Vec::new(), 1);
    for (first, to) in ranges.into_iter().filter(|(first, to)| first <= to) {
        let first = first.max(next);
        if first <= to {
            add_locations(store, agent, (first, to), &mut locations)?;
            next = to + 1;
        }
    }
    Ok(locations)
}

/// Whether an event that was found by its id meets the other conditions.
fn is_in(record: RecordRef<'_>, filter: &Filter) -> bool {
    let ms = record.received_ms().unwrap_or(0);
    filter.matches(record)
        && filter.since_ms.is_none_or(|since| ms >= since)
        && filter.until_ms.is_none_or(|until| ms < until)
}
