//! What the relay says in the process's log: each thing when it begins and ends, not every time.

use std::time::Duration;

use uuid::Uuid;

use super::destination::Reason;
use crate::runtime::LogThrottle;

/// How often the same condition is logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// A session that failed so often in a row is worth a line of its own.
const STUCK_FAILURES: u32 = 5;

/// How much of an upstream's words is told.
const TOLD_CHARS: usize = 200;

/// The relay's voice, for one destination.
pub struct FailureReporter {
    destination: String,
    /// The key of the configuration that says who we are there.
    identity_key: String,
    unauthorized: LogThrottle,
    redirect: LogThrottle,
    refused: LogThrottle,
}

impl FailureReporter {
    /// For a destination whose identity stands under that key.
    pub fn new(destination: &str, identity_key: &str) -> FailureReporter {
        FailureReporter {
            destination: destination.to_owned(),
            identity_key: identity_key.to_owned(),
            unauthorized: LogThrottle::new(LOG_INTERVAL),
            redirect: LogThrottle::new(LOG_INTERVAL),
            refused: LogThrottle::new(LOG_INTERVAL),
        }
    }

    /// A request failed, for the so-manieth time in a row in its session.
    pub fn failed(&self, reason: Reason, failures: u32, error: &str) {
        let error = start_of(error);
        let destination = &self.destination;
        tracing::debug!(destination, ?reason, failures, error, "a request to the upstream failed");
        let (throttle, key) = match reason {
            Reason::Unauthorized => (&self.unauthorized, self.identity_key.clone()),
            Reason::Redirect => (&self.redirect, endpoint_key(&self.identity_key)),
            _ if failures == STUCK_FAILURES => {
                tracing::warn!(destination, error, "relay session is stuck: its first event fails repeatedly");
                return;
            }
            _ => return,
        };
        if throttle.allow().is_some() {
            tracing::error!(
                destination,
                error,
                "upstream rejects our requests: correct {key}; events wait on disk until then"
            );
        }
    }

    /// The upstream let a request in: if it does not any more, that is news.
    pub fn accepted(&self) {
        self.unauthorized.reset();
        self.redirect.reset();
    }

    /// An event became a dead letter.
    pub fn refused(&self, event: Uuid, status: u16, answer: &str) {
        let answer = start_of(answer);
        if let Some(more) = self.refused.allow() {
            let destination = &self.destination;
            tracing::warn!(
                destination, %event, status, answer, suppressed = more,
                "upstream refused an event permanently: see `cairn dead-letter list`"
            );
        }
    }

    /// The circuit opened.
    pub fn opened(&self, error: &str) {
        let error = start_of(error);
        let destination = &self.destination;
        tracing::warn!(
            destination,
            error,
            "upstream unavailable: circuit opened, events wait on disk, single probes are sent"
        );
    }

    /// The circuit closed.
    pub fn closed(&self) {
        tracing::info!(destination = self.destination, "upstream available again: circuit closed");
    }
}

/// The log is no place for whatever an upstream says: the whole answer is in the dead letter.
fn start_of(text: &str) -> &str {
    text.char_indices().nth(TOLD_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// The key of the endpoint that stands beside the identity's.
fn endpoint_key(identity_key: &str) -> String {
    let section = identity_key.rsplit_once('.').map_or("", |(section, _)| section);
    format!("{section}.endpoint")
}
