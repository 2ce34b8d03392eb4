//! What operators ask of a destination while it runs: dead letters are sent again, or dropped.

use tokio::sync::oneshot;
use uuid::Uuid;

use super::consumer::Consumer;
use super::sessions::Waiting;
use crate::ledger::store::StoreError;

/// How many dead letters are moved in one batch.
const BATCH: usize = 1000;

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send them again, behind everything that waits in their sessions.
    Retry,
    /// Forget them. The events stay in the ledger.
    Drop,
}

/// An action, and who waits for the number of dead letters that it was done to.
pub struct Order {
    /// What to do.
    pub action: Action,
    /// To the dead letter of this event, or to all.
    pub event: Option<Uuid>,
    /// Gets the number.
    pub reply: oneshot::Sender<Result<u64, StoreError>>,
}

impl Consumer<'_> {
    /// Does what is asked for.
    pub(super) fn obey(&mut self, order: Order) -> Result<(), StoreError> {
        let done = self.move_letters(order.action, order.event);
        self.publish();
        // Whoever asked may have gone.
        let _ = order.reply.send(done);
        Ok(())
    }

    fn move_letters(&mut self, action: Action, event: Option<Uuid>) -> Result<u64, StoreError> {
        let outside = self.outside;
        let mut count = 0;
        let mut behind = None;
        loop {
            let letters = match event {
                Some(id) => self.backlog.dead_letter(id)?.map(|letter| (id, letter)).into_iter().collect(),
                None => self.backlog.dead_letters(behind, BATCH)?,
            };
            for (id, letter) in &letters {
                self.backlog.unearth(&mut self.changes, *id);
                if action == Action::Retry {
                    let session = letter.session();
                    let recipient = outside.destination.recipient();
                    let is_announced = !self.sessions.has(session) && self.backlog.is_announced(session, recipient)?;
                    let waiting = Waiting { ticket: self.cursor.ticket, place: letter.place() };
                    self.cursor.ticket += 1;
                    self.is_moved = true;
                    self.backlog.add(&mut self.changes, session, waiting);
                    self.sessions.push(session, waiting, is_announced);
                }
                behind = Some(*id);
            }
            self.write();
            self.dead_letters -= letters.len() as u64;
            count += letters.len() as u64;
            if event.is_some() || letters.len() < BATCH {
                return Ok(count);
            }
        }
    }
}
