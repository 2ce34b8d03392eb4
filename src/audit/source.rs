//! The sources of a list: all events of a shard, the chain of an agent, or the index rows of a term.

use std::ops::Range;

use super::filter::Filter;
use crate::http::Turn;
use crate::ledger::Ledger;
use crate::ledger::format::keys::{Location, Position, Run, ShardId};
use crate::ledger::read::events::Events;
use crate::ledger::read::index::Postings;
use crate::ledger::read::{lookup, runs::Runs};
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::{AgentKey, Sequence};

/// The order of a list, by time of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    Desc,
}

/// The candidate positions of one shard.
enum Source<'s> {
    All,
    Chain(Chain<'s>),
    Term(Postings<'s>),
}

/// An event of a list. The order is that of receipt: by position within a shard, by time between shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// The time of receipt, in ms since 1970.
    pub ms: u64,
    /// The location of the event.
    pub location: Location,
}

/// The events of one shard that match a filter, in the order of the list.
pub struct Stream<'s> {
    store: &'s Store,
    shard: ShardId,
    order: Order,
    source: Source<'s>,
    events: Events<'s>,
    /// The remaining positions of the current range: from `low` (inclusive) to `high` (exclusive).
    low: Position,
    high: Position,
    /// The ranges after the current one, the next one last.
    ranges: Vec<Range<Position>>,
}

impl<'s> Stream<'s> {
    /// The events of `shard` in these ranges, which are in ascending order.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(
        ledger: &'s Ledger,
        shard: ShardId,
        filter: &Filter,
        order: Order,
        mut ranges: Vec<Range<Position>>,
    ) -> Result<Stream<'s>, StoreError> {
        let store = ledger.store();
        let source = match (filter.agent, filter.rarest_term()) {
            (Some(agent), _) if ledger.shard_of(agent) != shard => {
                return Stream::new(ledger, shard, &Filter::default(), order, Vec::new());
            }
            (Some(agent), _) => Source::Chain(Chain::new(store, agent)),
            (None, Some(term)) => Source::Term(Postings::new(store, term, shard)?),
            (None, None) => Source::All,
        };
        if order == Order::Asc {
            ranges.reverse();
        }
        let Range { start: low, end: high } = ranges.pop().unwrap_or(Position(0)..Position(0));
        Ok(Stream { store, shard, order, source, events: Events::new(store)?, low, high, ranges })
    }

    /// The next event that matches `filter`; `None` at the end and when the turn is over.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn next(&mut self, filter: &Filter, turn: &Turn) -> Result<Option<Hit>, StoreError> {
        while let Some(position) = self.candidate()? {
            if turn.is_over() {
                return Ok(None);
            }
            let location = Location { shard: self.shard, position };
            let Some(record) = self.events.at(location)? else {
                if position.0 < self.store.expired().first_kept(self.shard.0) {
                    // Dropped since this list was begun.
                    continue;
                }
                let (shard, position) = (location.shard.0, position.0);
                tracing::error!(shard, position, "an event is missing and is not listed: run `cairn verify --all`");
                continue;
            };
            match lookup::parse(self.store, location, record) {
                Ok(record) if filter.matches(record) => {
                    return Ok(Some(Hit { ms: record.received_ms().unwrap_or(0), location }));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(%error, "an event cannot be read and is not listed: run `cairn verify --all`")
                }
            }
        }
        Ok(None)
    }

    /// The position at which the next page starts, if `next` is the first event that this page does not contain; `None`
    /// if the shard has no more events.
    pub fn resume_at(&self, next: Option<Hit>) -> Position {
        match (self.order, next) {
            (Order::Asc, Some(hit)) => hit.location.position,
            (Order::Asc, None) => self.high,
            (Order::Desc, Some(hit)) => hit.location.position.next(),
            (Order::Desc, None) => self.low,
        }
    }

    /// Takes the next candidate position.
    fn candidate(&mut self) -> Result<Option<Position>, StoreError> {
        loop {
            if let Some(position) = self.candidate_in_range()? {
                return Ok(Some(position));
            }
            let Some(range) = self.ranges.pop() else { return Ok(None) };
            (self.low, self.high) = (range.start, range.end);
        }
    }

    /// Takes the next candidate position of the current range.
    fn candidate_in_range(&mut self) -> Result<Option<Position>, StoreError> {
        if self.low >= self.high {
            return Ok(None);
        }
        let found = match (self.order, &mut self.source) {
            (Order::Asc, Source::All) => Some(self.low),
            (Order::Desc, Source::All) => self.high.0.checked_sub(1).map(Position),
            (Order::Asc, Source::Term(postings)) => postings.at_or_after(self.low)?,
            (Order::Desc, Source::Term(postings)) => postings.before(self.high)?,
            (Order::Asc, Source::Chain(chain)) => chain.at_or_after(self.low)?,
            (Order::Desc, Source::Chain(chain)) => chain.before(self.high)?,
        };
        let found = found.filter(|&found| found >= self.low && found < self.high);
        match (self.order, found) {
            (Order::Asc, None) => self.low = self.high,
            (Order::Desc, None) => self.high = self.low,
            (Order::Asc, Some(found)) => self.low = found.next(),
            (Order::Desc, Some(found)) => self.high = found,
        }
        Ok(found)
    }
}

/// The positions of one agent's events. Calls that move in one direction step from run to run.
struct Chain<'s> {
    store: &'s Store,
    agent: AgentKey,
    runs: Option<Runs<'s>>,
}

impl<'s> Chain<'s> {
    fn new(store: &'s Store, agent: AgentKey) -> Chain<'s> {
        Chain { store, agent, runs: None }
    }

    /// The runs, positioned at the last one that starts at or before `position`, or at the first one. Positions
    /// increase with sequences, so the run is found by binary search.
    fn runs_at(&mut self, position: Position) -> Result<&mut Runs<'s>, StoreError> {
        let runs = match self.runs.take() {
            Some(runs) => runs,
            None => {
                let last = lookup::agent(self.store, self.agent)?.map_or(0, |agent| agent.sequence.0);
                let (mut low, mut high) = (1, last);
                while low < high {
                    let middle = low + (high - low).div_ceil(2);
                    let run = Runs::from(self.store, self.agent, Sequence(middle))?.run()?;
                    if run.is_some_and(|run| run.location.position <= position) {
                        low = middle
                    } else {
                        high = middle - 1
                    }
                }
                Runs::from(self.store, self.agent, Sequence(low))?
            }
        };
        Ok(self.runs.insert(runs))
    }

    fn at_or_after(&mut self, from: Position) -> Result<Option<Position>, StoreError> {
        let runs = self.runs_at(from)?;
        while let Some(run) = runs.run()? {
            if end(run) > from {
                return Ok(Some(run.location.position.max(from)));
            }
            runs.forward()?;
        }
        Ok(None)
    }

    fn before(&mut self, high: Position) -> Result<Option<Position>, StoreError> {
        let runs = self.runs_at(high)?;
        while let Some(run) = runs.run()? {
            if run.location.position < high {
                return Ok(end(run).min(high).0.checked_sub(1).map(Position));
            }
            runs.back();
        }
        Ok(None)
    }
}

/// The position after the last event of a run.
fn end(run: Run) -> Position {
    Position(run.location.position.0.saturating_add(u64::from(run.count)))
}
