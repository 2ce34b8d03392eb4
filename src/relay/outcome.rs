//! What comes of a request: the event is done, it is tried again, or it is a dead letter.

use std::sync::PoisonError;
use std::time::Instant;

use super::backlog::DeadLetter;
use super::circuit::{Change, back_off};
use super::consumer::{Consumer, End};
use super::destination::{Outcome, Reason};
use super::sessions::Turn;
use super::status::LastError;
use crate::ledger::store::StoreError;
use crate::runtime::now_ms;

impl Consumer<'_> {
    /// Takes the end of a request.
    pub(super) fn on_result(&mut self, end: End) -> Result<(), StoreError> {
        let context = self.context;
        let shared = &context.shared;
        shared.metrics.requested(end.sent.status, end.sent.took);
        let Turn { session, event, .. } = end.turn;
        match end.sent.outcome {
            Outcome::Delivered if end.is_announcement => {
                self.reached();
                self.backlog.announced(&mut self.changes, session, context.destination.recipient());
                self.sessions.announced(session);
                Ok(())
            }
            Outcome::Delivered => {
                self.reached();
                shared.metrics.sent();
                self.cursor.sent += 1;
                self.last_sent_ms = Some(now_ms());
                self.is_moved = true;
                if end.announces {
                    self.backlog.announced(&mut self.changes, session, context.destination.recipient());
                    self.sessions.known(session);
                }
                self.finish(end.turn)
            }
            Outcome::Refused { status, ref answer } => {
                self.reached();
                shared.metrics.failed(Reason::Refused);
                shared.metrics.dead_lettered();
                self.dead_letters += 1;
                self.reporter.refused(end.id, status, answer);
                self.note_error(format!("{status}: {answer}"));
                let letter =
                    DeadLetter::new(event.location, session, status, answer.clone(), now_ms(), end.is_announcement);
                self.backlog.insert_dead_letter(&mut self.changes, end.id, &letter);
                self.finish(end.turn)
            }
            Outcome::Failed { reason, message, retry_after } => {
                shared.metrics.failed(reason);
                let now = Instant::now();
                let failures = self.sessions.failed(session);
                self.reporter.failed(reason, failures, &message);
                let wait = back_off(context.config.retry, failures, retry_after);
                // A session that fails again says nothing of the upstream while others could be asked.
                let is_news = failures == 1 || !self.sessions.has_fresh();
                self.sessions.back_off(session, now + wait);
                if self.circuit.failed(is_news, end.is_probe, retry_after, now) == Change::Opened {
                    self.reporter.opened(&message);
                }
                self.note_error(message);
                Ok(())
            }
        }
    }

    /// An event is done: nothing waits for it any more.
    pub(super) fn finish(&mut self, turn: Turn) -> Result<(), StoreError> {
        self.backlog.remove(&mut self.changes, turn.session, turn.event);
        let backlog = &self.backlog;
        self.sessions.done(turn.session, |ticket, count| backlog.waiting_behind(turn.session, ticket, count))
    }

    /// The upstream answered.
    fn reached(&mut self) {
        self.reporter.accepted();
        if self.circuit.succeeded() == Change::Closed {
            self.reporter.closed();
            self.read_at = Instant::now();
        }
    }

    fn note_error(&self, message: String) {
        let mut status = self.context.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.last_error = Some(LastError { at_ms: now_ms(), message });
    }
}
