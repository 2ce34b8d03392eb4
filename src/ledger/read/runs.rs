//! The runs of one agent's chain, which map sequences to locations. See
//! `docs/adr/0005-the-run-at-the-head-is-in-the-agent-row.md`.

use cairn_proof::chain::{AgentKey, Sequence};

use super::lookup;
use crate::ledger::format::keys::{Position, Run};
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// Iterates over the runs of one agent's chain.
pub struct Runs<'s> {
    /// The rows of `chain`.
    rows: Rows<'s>,
    agent: AgentKey,
    /// The last run, from the row of the agent; `None` if the agent has no event.
    last: Option<Run>,
    at: At,
    /// The first event of the shard that was kept when the iterator was made, as its rows are of that time.
    first: Position,
}

/// The position of the iterator.
#[derive(PartialEq, Eq)]
enum At {
    /// At a row of `chain`, or before the first run.
    Row,
    Last,
    End,
}

impl<'s> Runs<'s> {
    /// Positions an iterator at the run that contains `from`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn from(store: &'s Store, agent: AgentKey, from: Sequence) -> Result<Runs<'s>, StoreError> {
        // The agent's row is read before `chain`: a run that ends in the meantime is then seen twice, not missed.
        let last = lookup::agent(store, agent)?.map(|agent| agent.run);
        let first = last.map_or(0, |last| store.expired().first_kept(last.location.shard.0));
        let mut runs = Runs { rows: store.rows(Family::Chain)?, agent, last, at: At::Last, first: Position(first) };
        if last.is_some_and(|last| from < last.first) {
            let key = Run::key(agent, from);
            runs.at = At::Row;
            runs.rows.seek_for_prev(&key);
            if runs.row()?.is_none() {
                runs.rows.seek(&key);
                runs.update_position()?;
            }
            // Rows of dropped events are left out some time later.
            while runs.at == At::Row && runs.run()?.is_none() {
                runs.forward()?;
            }
        }
        Ok(runs)
    }

    /// The current run, as far as retention has not dropped its events; `None` after the last one.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&self) -> Result<Option<Run>, StoreError> {
        let run = match self.at {
            At::Row => self.row()?,
            At::Last => self.last,
            At::End => None,
        };
        Ok(run.and_then(|run| run.kept(self.first)))
    }

    /// The current row of `chain`, if it belongs to this agent and precedes the last run.
    fn row(&self) -> Result<Option<Run>, StoreError> {
        let row = self.rows.row()?.and_then(|(key, value)| Run::decode(key, value));
        let is_before_last = |run: &Run| self.last.is_some_and(|last| run.first < last.first);
        Ok(row.filter(|(agent, _)| *agent == self.agent).map(|(_, run)| run).filter(is_before_last))
    }

    /// Moves to the last run if the rows of `chain` are exhausted.
    fn update_position(&mut self) -> Result<(), StoreError> {
        if self.row()?.is_none() {
            self.at = At::Last;
        }
        Ok(())
    }

    /// Moves to the next run.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn forward(&mut self) -> Result<(), StoreError> {
        match self.at {
            At::Row => {
                self.rows.next();
                self.update_position()
            }
            At::Last | At::End => {
                self.at = At::End;
                Ok(())
            }
        }
    }

    /// Moves to the previous run.
    pub fn back(&mut self) {
        match (&self.at, self.last) {
            (At::Row, _) => self.rows.prev(),
            (At::Last, Some(last)) => {
                self.at = At::Row;
                self.rows.seek_for_prev(&Run::key(self.agent, Sequence(last.first.0.saturating_sub(1))));
            }
            (At::Last, None) => {}
            (At::End, _) => self.at = At::Last,
        }
    }
}
