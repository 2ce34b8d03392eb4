//! What operators ask of a destination while it runs: dead letters are sent again, or dropped.

use tokio::sync::oneshot;
use uuid::Uuid;

use super::backlog::DeadLetter;
use super::consumer::Consumer;
use super::sessions::Waiting;
use crate::ledger::store::StoreError;

/// How many dead letters one order moves at most: each may bring a session into memory, and the others wait meanwhile.
const AT_ONCE: usize = 10_000;

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send them again, behind everything that waits in their sessions.
    Retry,
    /// Forget them. The events stay in the ledger.
    Drop,
}

/// What an order did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// To so many dead letters.
    pub count: u64,
    /// So many are left.
    pub left: u64,
}

/// An action, and who waits for what came of it.
pub struct Order {
    /// What to do.
    pub action: Action,
    /// To the dead letter of this event, or to all; not to more than 10,000 of them.
    pub event: Option<Uuid>,
    /// Gets the number.
    pub reply: oneshot::Sender<Result<Moved, StoreError>>,
}

impl Consumer<'_> {
    /// Does what is asked for.
    pub(super) fn obey(&mut self, order: Order) {
        let moved = self.move_letters(order.action, order.event);
        self.publish();
        // Whoever asked may have gone.
        let _ = order.reply.send(moved);
    }

    fn move_letters(&mut self, action: Action, event: Option<Uuid>) -> Result<Moved, StoreError> {
        let letters: Vec<(Uuid, DeadLetter)> = match event {
            Some(id) => self.backlog.dead_letter(id)?.map(|letter| (id, letter)).into_iter().collect(),
            None => self.backlog.dead_letters(None, AT_ONCE)?,
        };
        let recipient = self.outside.destination.recipient();
        for (id, letter) in &letters {
            if action == Action::Retry {
                let session = letter.session();
                let waiting = Waiting { ticket: self.cursor.ticket, place: letter.place() };
                self.cursor.ticket += 1;
                self.is_moved = true;
                self.sessions.push(session, waiting, || self.backlog.is_announced(session, recipient))?;
                self.backlog.add(&mut self.changes, session, waiting);
            }
            self.backlog.unearth(&mut self.changes, *id);
            self.dead_letters = self.dead_letters.saturating_sub(1);
        }
        // What is not written now is written before anything is sent.
        self.write(None);
        Ok(Moved { count: letters.len() as u64, left: self.dead_letters })
    }
}
