//! Carries out the commands of operators: dead letters are sent again, or dropped.

use uuid::Uuid;

use super::backlog::DeadLetter;
use super::commands::{Action, Command, Moved};
use super::consumer::Consumer;
use super::sessions::Waiting;
use crate::ledger::store::StoreError;

/// How many dead letters one order moves at most: each may bring a session into memory, and the others wait meanwhile.
const AT_ONCE: usize = 10_000;

impl Consumer<'_> {
    /// Does what is asked for.
    pub(super) fn handle(&mut self, command: Command) {
        let moved = self.move_letters(command.action, command.event);
        self.publish();
        // Whoever asked may have gone.
        let _ = command.reply.send(moved);
    }

    fn move_letters(&mut self, action: Action, event: Option<Uuid>) -> Result<Moved, StoreError> {
        let letters: Vec<(Uuid, DeadLetter)> = match event {
            Some(id) => self.backlog.dead_letter(id)?.map(|letter| (id, letter)).into_iter().collect(),
            None => self.backlog.dead_letters(None, AT_ONCE)?,
        };
        let recipient = self.context.destination.recipient();
        for (id, letter) in &letters {
            if action == Action::Retry {
                let session = letter.session();
                let waiting = Waiting { ticket: self.cursor.ticket, location: letter.location() };
                self.cursor.ticket += 1;
                self.is_moved = true;
                self.sessions.push(session, waiting, || self.backlog.is_announced(session, recipient))?;
                self.backlog.add(&mut self.changes, session, waiting);
            }
            self.backlog.remove_dead_letter(&mut self.changes, *id);
            self.dead_letters = self.dead_letters.saturating_sub(1);
        }
        // What is not written now is written before anything is sent.
        self.write(None);
        Ok(Moved { count: letters.len() as u64, left: self.dead_letters })
    }
}
