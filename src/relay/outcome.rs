//! Handles the result of a request: the event is acknowledged, retried, or a dead letter.

use std::sync::PoisonError;
use std::time::Instant;

use super::backlog::DeadLetter;
use super::circuit::{Transition, back_off};
use super::consumer::{Consumer, RequestEnd};
use super::destination::{Outcome, Reason, SessionKey};
use super::sessions::Turn;
use super::status::LastError;
use crate::ledger::format::keys::Location;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;
use crate::runtime::now_ms;

impl Consumer<'_> {
    /// Handles the result of a request.
    pub(super) fn on_result(&mut self, end: RequestEnd) -> Result<(), StoreError> {
        let context = self.context;
        let shared = &context.shared;
        shared.metrics.record_request(end.sent.status, end.sent.duration);
        let (session, location) = (end.turn.session, end.location);
        match end.sent.outcome {
            Outcome::Delivered if end.is_announcement => {
                self.on_available();
                self.set_announced(session, location);
                self.sessions.on_announced(session);
                Ok(())
            }
            Outcome::Delivered => {
                self.on_available();
                shared.metrics.sent(end.events as u64);
                self.cursor.sent += end.events as u64;
                self.last_sent_ms = Some(now_ms());
                self.is_cursor_changed = true;
                if end.announces {
                    self.set_announced(session, location);
                    self.sessions.set_announced(session);
                }
                self.finish(&end.turn)
            }
            Outcome::Refused { .. } if end.events > 1 => {
                self.on_available();
                self.sessions.split(session, end.events);
                Ok(())
            }
            Outcome::Refused { .. } if self.is_erased(location) => {
                // The answer may quote the event, which was erased while the request was in flight.
                self.on_available();
                self.finish(&end.turn)
            }
            Outcome::Refused { status, ref answer } => {
                self.on_available();
                shared.metrics.failed(Reason::Refused);
                shared.metrics.dead_lettered();
                self.dead_letters += 1;
                self.reporter.refused(end.id, status, answer);
                self.set_last_error(format!("{status}: {answer}"));
                let letter = DeadLetter::new(location, session, status, answer.clone(), now_ms(), end.is_announcement);
                self.backlog.insert_dead_letter(&mut self.changes, end.id, &letter);
                self.finish(&end.turn)
            }
            Outcome::Failed { reason, message, retry_after } => {
                shared.metrics.failed(reason);
                let now = Instant::now();
                let failures = self.sessions.failed(session);
                self.reporter.failed(reason, failures, &message);
                let wait = back_off(context.config.retry, failures, retry_after);
                // A session that fails again does not show that the upstream is unavailable while there are fresh
                // sessions.
                let is_upstream_failure = failures == 1 || !self.sessions.has_fresh();
                self.sessions.back_off(session, now + wait);
                if self.circuit.failed(is_upstream_failure, end.is_probe, retry_after, now) == Transition::Opened {
                    self.reporter.opened(&message);
                }
                self.set_last_error(message);
                Ok(())
            }
        }
    }

    /// Stores that a session was announced, unless its event was erased meanwhile: the key of the row is made of the session's id.
    fn set_announced(&mut self, session: SessionKey, location: Location) {
        if !self.is_erased(location) {
            self.backlog.set_announced(&mut self.changes, session, self.context.destination.recipient());
        }
    }

    fn is_erased(&self, location: Location) -> bool {
        let record = lookup::record(&self.context.store, location).ok().flatten();
        record.is_some_and(|record| record.as_ref().is_erased())
    }

    /// Removes events that do not wait any more.
    pub(super) fn finish(&mut self, turn: &Turn) -> Result<(), StoreError> {
        for event in &turn.events {
            self.backlog.remove_waiting(&mut self.changes, turn.session, *event);
        }
        let (backlog, session) = (&self.backlog, turn.session);
        self.sessions.done(session, turn.events.len(), |ticket, count| backlog.waiting_after(session, ticket, count))
    }

    /// Records that the upstream is available.
    fn on_available(&mut self) {
        self.reporter.accepted();
        if self.circuit.succeeded() == Transition::Closed {
            self.reporter.closed();
            self.read_at = Instant::now();
        }
    }

    fn set_last_error(&self, message: String) {
        let mut status = self.context.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.last_error = Some(LastError { at_ms: now_ms(), message });
    }
}
