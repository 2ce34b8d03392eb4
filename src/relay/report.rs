//! The log lines of the relay. Each condition is logged when it begins and when it ends, not for every request.

use std::time::Duration;

use uuid::Uuid;

use super::destination::Reason;
use super::metrics::DestinationMetrics;
use crate::ledger::format::keys::Location;
use crate::runtime::LogThrottle;

/// The shortest time between two log lines about the same condition.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// The number of failures in a row at which a session is logged as stuck.
const STUCK_FAILURES: u32 = 5;

/// Most characters of an upstream's message in a log line.
const LOGGED_CHARS: usize = 200;

/// Reports an event that cannot be read. It is skipped; the other events are relayed.
pub fn report_damaged(location: Location, metrics: &DestinationMetrics) {
    let (shard, position) = (location.shard.0, location.position.0);
    tracing::error!(shard, position, "an event cannot be read and is not relayed: run `cairn verify --all`");
    metrics.failed(Reason::Damaged);
}

/// Logs the failures of one destination.
pub struct FailureReporter {
    destination: String,
    /// The key of the setting that identifies the organization.
    identity_key: String,
    unauthorized: LogThrottle,
    redirect: LogThrottle,
    refused: LogThrottle,
}

impl FailureReporter {
    /// The reporter of a destination whose organization is set by `identity_key`.
    pub fn new(destination: &str, identity_key: &str) -> FailureReporter {
        FailureReporter {
            destination: destination.to_owned(),
            identity_key: identity_key.to_owned(),
            unauthorized: LogThrottle::new(LOG_INTERVAL),
            redirect: LogThrottle::new(LOG_INTERVAL),
            refused: LogThrottle::new(LOG_INTERVAL),
        }
    }

    /// Reports a failed request. `failures`: how many requests of its session failed in a row.
    pub fn failed(&self, reason: Reason, failures: u32, error: &str) {
        let error = truncate(error);
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
                "upstream rejects all requests: correct {key}; events wait on disk until then"
            );
        }
    }

    /// The upstream accepted a request: the next rejection is logged again.
    pub fn accepted(&self) {
        self.unauthorized.reset();
        self.redirect.reset();
    }

    /// Reports an event that became a dead letter.
    pub fn refused(&self, event: Uuid, status: u16, answer: &str) {
        let answer = truncate(answer);
        if let Some(suppressed) = self.refused.allow() {
            let destination = &self.destination;
            tracing::warn!(
                destination, %event, status, answer, suppressed,
                "upstream refused an event permanently: see `cairn dead-letter list`"
            );
        }
    }

    /// Reports that the circuit opened.
    pub fn opened(&self, error: &str) {
        let error = truncate(error);
        let destination = &self.destination;
        tracing::warn!(
            destination,
            error,
            "upstream unavailable: circuit opened, events wait on disk, single probes are sent"
        );
    }

    /// Reports that the circuit closed.
    pub fn closed(&self) {
        tracing::info!(destination = self.destination, "upstream available again: circuit closed");
    }
}

/// The start of a message of the upstream. The whole response is in the dead letter.
fn truncate(text: &str) -> &str {
    text.char_indices().nth(LOGGED_CHARS).map_or(text, |(end, _)| &text[..end])
}

/// The key of the endpoint in the same section as the organization.
fn endpoint_key(identity_key: &str) -> String {
    let section = identity_key.rsplit_once('.').map_or("", |(section, _)| section);
    format!("{section}.endpoint")
}
