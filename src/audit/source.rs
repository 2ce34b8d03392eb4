//! Where a list finds its events: all of a shard, the chain of an agent, or the postings of a term.

use super::context::Cancelled;
use super::filter::Filter;
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

/// Positions of one shard that may have what a list wants.
enum Source<'s> {
    All,
    Chain(Chain<'s>),
    Term(Postings<'s>),
}

/// An event that a list shows. Sorts in the order of receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hit {
    /// When it was received, in ms since 1970.
    pub ms: u64,
    /// Where it stands.
    pub location: Location,
}

/// The events of one shard that a list shows, one after the other.
pub struct Stream<'s> {
    store: &'s Store,
    shard: ShardId,
    order: Order,
    source: Source<'s>,
    events: Events<'s>,
    /// What is left: from `low` up to and without `high`.
    low: Position,
    high: Position,
}

impl<'s> Stream<'s> {
    /// The events of `shard` that stand between `low` and `high`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(
        ledger: &'s Ledger,
        shard: ShardId,
        filter: &Filter,
        order: Order,
        low: Position,
        high: Position,
    ) -> Result<Stream<'s>, StoreError> {
        let store = ledger.store();
        let source = match (filter.agent, filter.rarest_term()) {
            (Some(agent), _) if ledger.shard_of(agent) != shard => {
                return Stream::new(ledger, shard, &Filter::default(), order, low, low);
            }
            (Some(agent), _) => Source::Chain(Chain::new(store, agent)),
            (None, Some(term)) => Source::Term(Postings::new(store, term, shard)?),
            (None, None) => Source::All,
        };
        Ok(Stream { store, shard, order, source, events: Events::new(store)?, low, high })
    }

    /// The next event that `filter` shows.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn next(&mut self, filter: &Filter, cancelled: &Cancelled) -> Result<Option<Hit>, StoreError> {
        while let Some(position) = self.candidate()? {
            if cancelled.is_cancelled() {
                return Ok(None);
            }
            let location = Location { shard: self.shard, position };
            let Some(record) = self.events.at(location)? else {
                let (shard, position) = (location.shard.0, position.0);
                tracing::error!(shard, position, "an event is missing: run `cairn verify --all`");
                continue;
            };
            match lookup::parse(self.store, location, record) {
                Ok(record) if filter.shows(record) => {
                    return Ok(Some(Hit { ms: record.received_ms().unwrap_or(0), location }));
                }
                Ok(_) => {}
                Err(error) => tracing::error!(%error, "an event is left out of a list: run `cairn verify --all`"),
            }
        }
        Ok(None)
    }

    /// From where a later list goes on if it shows everything from `next` on, or from here.
    pub fn resume_at(&self, next: Option<Hit>) -> Position {
        match (self.order, next) {
            (Order::Asc, Some(hit)) => hit.location.position,
            (Order::Asc, None) => self.high,
            (Order::Desc, Some(hit)) => hit.location.position.next(),
            (Order::Desc, None) => self.low,
        }
    }

    /// Takes the next position that may be shown.
    fn candidate(&mut self) -> Result<Option<Position>, StoreError> {
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

/// The positions of one agent's events. Asked in one direction, it steps from run to run.
struct Chain<'s> {
    store: &'s Store,
    agent: AgentKey,
    runs: Option<Runs<'s>>,
}

impl<'s> Chain<'s> {
    fn new(store: &'s Store, agent: AgentKey) -> Chain<'s> {
        Chain { store, agent, runs: None }
    }

    /// The runs, standing at the last one that starts at or before `position`, or at the first one. Positions rise
    /// with sequences, so it is found by halving.
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

/// The position behind a run.
fn end(run: Run) -> Position {
    Position(run.location.position.0.saturating_add(u64::from(run.count)))
}
