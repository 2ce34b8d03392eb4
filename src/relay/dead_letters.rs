//! Executes the commands of operators: retries or drops dead letters.

use uuid::Uuid;

use super::backlog::DeadLetter;
use super::commands::{Action, Command, CommandResult};
use super::consumer::Consumer;
use super::sessions::WaitingEvent;
use crate::ledger::store::StoreError;

/// Most dead letters that one command retries or drops: each may bring a session into memory, and relaying waits
/// meanwhile.
const MAX_LETTERS: usize = 10_000;

impl Consumer<'_> {
    /// Executes a command and sends its result.
    pub(super) fn handle(&mut self, command: Command) {
        let result = self.execute(command.action, command.event);
        self.publish();
        // The receiver is gone if the client has disconnected.
        let _ = command.reply.send(result);
    }

    fn execute(&mut self, action: Action, event: Option<Uuid>) -> Result<CommandResult, StoreError> {
        let letters: Vec<(Uuid, DeadLetter)> = match event {
            Some(id) => self.backlog.dead_letter(id)?.map(|letter| (id, letter)).into_iter().collect(),
            None => self.backlog.dead_letters(None, MAX_LETTERS)?,
        };
        let recipient = self.context.destination.recipient();
        for (id, letter) in &letters {
            if action == Action::Retry {
                let session = letter.session();
                let waiting = WaitingEvent { ticket: self.cursor.ticket, location: letter.location() };
                self.cursor.ticket += 1;
                self.is_cursor_changed = true;
                self.sessions.push(session, waiting, || self.backlog.is_announced(session, recipient))?;
                self.backlog.insert_waiting(&mut self.changes, session, waiting);
            }
            self.backlog.remove_dead_letter(&mut self.changes, *id);
            self.dead_letters = self.dead_letters.saturating_sub(1);
        }
        // If this write fails, the changes are written before anything is sent.
        self.write(None);
        Ok(CommandResult { count: letters.len() as u64, left: self.dead_letters })
    }
}
