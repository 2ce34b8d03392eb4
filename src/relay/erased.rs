//! Removes what the relay has of erased events: dead letters, because the answer of the upstream may quote the event, and the
//! rows of announced sessions, whose keys are made of the ids of the sessions.

use std::collections::HashSet;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::backlog::{self, Backlog, RowChanges};
use super::commands::{Action, Command, CommandResult};
use super::destination::SessionKey;
use super::destinations::Relay;
use super::event::RelayEvent;
use super::handle::DestinationHandle;
use crate::ledger::format::keys::Location;
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;

/// The number of dead letters that are read at a time.
const PAGE: usize = 1000;

impl Relay {
    /// Removes the dead letters of erased events, of all destinations that have any. Returns their number. Blocks; must not be
    /// called on a thread of the runtime.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn drop_letters_of_erased(&self) -> Result<u64, StoreError> {
        // Each consumer writes what it has in memory before it answers a command, also one about no dead letter.
        for handle in self.handles() {
            command(&handle, Uuid::nil());
        }
        let mut dropped = 0;
        for name in backlog::names(self.ledger.store())? {
            let backlog = Backlog::new(self.ledger.store().clone(), &name);
            for event in self.erased_letters(&backlog)? {
                self.drop_letter(&name, &backlog, event)?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }

    /// Forgets the sessions of events that are about to be erased. A later event of such a session announces it again.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn forget_sessions(&self, locations: &[Location]) -> Result<(), StoreError> {
        let store = self.ledger.store();
        for handle in self.handles() {
            let (mut sessions, mut events) = (HashSet::new(), Events::new(store)?);
            for location in locations {
                let record = events.at(*location)?.and_then(|record| RecordRef::parse(record).ok());
                if let Some(record) = record.filter(|record| !record.is_erased()) {
                    sessions.insert(handle.destination.session(&RelayEvent::new(record)).0);
                }
            }
            let (backlog, mut changes) = (&handle.shared.backlog, RowChanges::default());
            sessions.into_iter().for_each(|session| backlog.remove_announced(&mut changes, SessionKey(session)));
            backlog.write(&changes)?;
        }
        Ok(())
    }

    /// The erased events that are dead letters.
    fn erased_letters(&self, backlog: &Backlog) -> Result<Vec<Uuid>, StoreError> {
        let (mut erased, mut after) = (Vec::new(), None);
        loop {
            let letters = backlog.dead_letters(after, PAGE)?;
            for (id, letter) in &letters {
                let record = lookup::record(self.ledger.store(), letter.location())?;
                if record.is_some_and(|record| record.as_ref().is_erased()) {
                    erased.push(*id);
                }
            }
            match letters.last() {
                Some((last, _)) => after = Some(*last),
                None => return Ok(erased),
            }
        }
    }

    /// Removes a dead letter, through the consumer of its destination if that runs.
    fn drop_letter(&self, name: &str, backlog: &Backlog, event: Uuid) -> Result<(), StoreError> {
        let handles = self.handles();
        if let Some(handle) = handles.iter().find(|handle| handle.spec.name() == name)
            && let Some(result) = command(handle, event)
        {
            return result.map(|_| ());
        }
        let mut changes = RowChanges::default();
        backlog.remove_dead_letter(&mut changes, event);
        backlog.write(&changes)
    }
}

/// Lets a consumer drop the dead letter of an event, and waits for the result; `None` if the consumer has ended.
fn command(handle: &DestinationHandle, event: Uuid) -> Option<Result<CommandResult, StoreError>> {
    let (reply, replied) = oneshot::channel();
    handle.commands.send(Command { action: Action::Drop, event: Some(event), reply }).ok()?;
    replied.blocking_recv().ok()
}
