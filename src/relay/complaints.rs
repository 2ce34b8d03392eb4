//! What the relay says in the process's log: each thing when it begins and ends, not every time.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::destination::Reason;

/// How often the same thing is said at most.
const PAUSE: Duration = Duration::from_secs(30);
/// A session that failed so often in a row is worth a line of its own.
const STUCK_FAILURES: u32 = 5;

/// How much of an upstream's words is told.
const TOLD_CHARS: usize = 200;

/// The relay's voice, for one destination.
pub struct Complaints {
    destination: String,
    /// The key of the configuration that says who we are there.
    identity_key: String,
    unauthorized: Pause,
    redirect: Pause,
    refused: Pause,
}

/// Lets something be said once in a while, and counts what is left unsaid.
#[derive(Default)]
struct Pause {
    said: Option<Instant>,
    unsaid: u64,
}

impl Pause {
    /// How often it was not said since the last time; `None` if it is too early to say it again.
    fn over(&mut self) -> Option<u64> {
        if self.said.is_some_and(|said| said.elapsed() < PAUSE) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(Instant::now());
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Complaints {
    /// For a destination whose identity stands under that key.
    pub fn new(destination: &str, identity_key: &str) -> Complaints {
        Complaints {
            destination: destination.to_owned(),
            identity_key: identity_key.to_owned(),
            unauthorized: Pause::default(),
            redirect: Pause::default(),
            refused: Pause::default(),
        }
    }

    /// A request failed, for the so-manieth time in a row in its session.
    pub fn failed(&mut self, reason: Reason, failures: u32, error: &str) {
        let error = start_of(error);
        let destination = &self.destination;
        tracing::debug!(destination, ?reason, failures, error, "a request to the upstream failed");
        let (pause, key) = match reason {
            Reason::Unauthorized => (&mut self.unauthorized, self.identity_key.clone()),
            Reason::Redirect => (&mut self.redirect, endpoint_key(&self.identity_key)),
            _ if failures == STUCK_FAILURES => {
                tracing::warn!(
                    destination,
                    error,
                    "a session of the relay is stuck: its first event is tried again and again"
                );
                return;
            }
            _ => return,
        };
        if pause.over().is_some() {
            tracing::error!(
                destination,
                error,
                "the upstream does not let us in: change {key} and restart; events wait until then"
            );
        }
    }

    /// The upstream let a request in: if it does not any more, that is news.
    pub fn let_in(&mut self) {
        self.unauthorized = Pause::default();
        self.redirect = Pause::default();
    }

    /// An event became a dead letter.
    pub fn refused(&mut self, event: Uuid, status: u16, answer: &str) {
        let answer = start_of(answer);
        if let Some(more) = self.refused.over() {
            let destination = &self.destination;
            tracing::warn!(
                destination, %event, status, answer, not_told_before = more,
                "the upstream refused an event for good: see `cairn dead-letter list`"
            );
        }
    }

    /// The circuit opened.
    pub fn opened(&self, error: &str) {
        let error = start_of(error);
        let destination = &self.destination;
        tracing::warn!(destination, error, "the upstream takes nothing: events wait on disk, one at a time is tried");
    }

    /// The circuit closed.
    pub fn closed(&self) {
        tracing::info!(destination = self.destination, "the upstream takes events again");
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
