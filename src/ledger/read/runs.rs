//! The runs of one agent's chain: from sequences to locations.

use cairn_proof::chain::{AgentKey, Sequence};

use super::lookup;
use crate::ledger::format::keys::Run;
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// The runs of one agent's chain.
pub struct Runs<'s> {
    /// The rows of `chain`.
    rows: Rows<'s>,
    agent: AgentKey,
    /// The last run, which is in the row of the agent; `None` if there is no such agent.
    last: Option<Run>,
    at: At,
}

/// Where that is.
#[derive(PartialEq, Eq)]
enum At {
    /// At a row of `chain`, or before the first run.
    Row,
    Last,
    Behind,
}

impl<'s> Runs<'s> {
    /// The runs from the one that has `from` on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn from(store: &'s Store, agent: AgentKey, from: Sequence) -> Result<Runs<'s>, StoreError> {
        // First the row of the agent: a run that ends in the meantime is in both, instead of in none.
        let last = lookup::agent(store, agent)?.map(|agent| agent.run);
        let mut runs = Runs { rows: store.rows(Family::Chain)?, agent, last, at: At::Last };
        if last.is_some_and(|last| from < last.first) {
            let key = Run::key(agent, from);
            runs.at = At::Row;
            runs.rows.seek_back(&key);
            if runs.row()?.is_none() {
                runs.rows.seek(&key);
                runs.arrive()?;
            }
        }
        Ok(runs)
    }

    /// The run at this place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&self) -> Result<Option<Run>, StoreError> {
        match self.at {
            At::Row => self.row(),
            At::Last => Ok(self.last),
            At::Behind => Ok(None),
        }
    }

    /// The row of `chain` here, if it is of this agent and before the last run.
    fn row(&self) -> Result<Option<Run>, StoreError> {
        let row = self.rows.row()?.and_then(|(key, value)| Run::decode(key, value));
        let is_before_last = |run: &Run| self.last.is_some_and(|last| run.first < last.first);
        Ok(row.filter(|(agent, _)| *agent == self.agent).map(|(_, run)| run).filter(is_before_last))
    }

    /// Behind the rows of `chain` is the last run.
    fn arrive(&mut self) -> Result<(), StoreError> {
        if self.row()?.is_none() {
            self.at = At::Last;
        }
        Ok(())
    }

    /// Goes one run on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn forward(&mut self) -> Result<(), StoreError> {
        match self.at {
            At::Row => {
                self.rows.next();
                self.arrive()
            }
            At::Last | At::Behind => {
                self.at = At::Behind;
                Ok(())
            }
        }
    }

    /// Goes one run back.
    pub fn back(&mut self) {
        match (&self.at, self.last) {
            (At::Row, _) => self.rows.back(),
            (At::Last, Some(last)) => {
                self.at = At::Row;
                self.rows.seek_back(&Run::key(self.agent, Sequence(last.first.0.saturating_sub(1))));
            }
            (At::Last, None) => {}
            (At::Behind, _) => self.at = At::Last,
        }
    }
}
