//! The trait of destinations: it maps events to a request, and reports the outcome.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::event::RelayEvent;

/// Identifies a session: events of one session are sent in their order, one request after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 16]);

/// A request in flight.
pub type SendFuture = BoxFuture<'static, SendResult>;

/// One type of upstream with its own mapping of events.
///
/// Every method that returns a [`SendFuture`] builds the request at once; only sending is asynchronous.
pub trait Destination: Send + Sync {
    /// The session that an event belongs to.
    fn session(&self, event: &RelayEvent<'_>) -> SessionKey;

    /// Announces a session before its first event is sent; `None` if sessions are not announced.
    fn announce(&self, _first: &RelayEvent<'_>) -> Option<SendFuture> {
        None
    }

    /// Whether sending this event also announces its session.
    fn announces(&self, _event: &RelayEvent<'_>) -> bool {
        false
    }

    /// How much a request may hold.
    fn batch(&self) -> BatchLimits {
        BatchLimits::ONE
    }

    /// Sends events of one session, as many as [`Destination::batch`] permits and at least one, in one request.
    fn send(&self, events: &[RelayEvent<'_>]) -> SendFuture;

    /// Identifies the receiving account. A session that was announced to another recipient is announced again.
    fn recipient(&self) -> [u8; 8] {
        [0; 8]
    }
}

/// How much a request may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most events.
    pub events: usize,
    /// The most bytes of their canonical forms, unless the first event alone is longer.
    pub bytes: usize,
}

impl BatchLimits {
    /// One event in each request.
    pub const ONE: BatchLimits = BatchLimits { events: 1, bytes: usize::MAX };
}

/// The result of a request.
#[derive(Debug)]
pub struct SendResult {
    /// Whether the upstream accepted it.
    pub outcome: Outcome,
    /// The status of the response, if there was one.
    pub status: Option<u16>,
    /// How long the request took.
    pub duration: Duration,
}

/// Whether the upstream accepted a request.
#[derive(Debug)]
pub enum Outcome {
    /// The upstream acknowledged it.
    Delivered,
    /// It failed, or its outcome is unknown; it has to be sent again.
    Failed {
        /// Why it failed.
        reason: Reason,
        /// The message of the upstream or of the system.
        message: String,
        /// The wait that the upstream asks for.
        retry_after: Option<Duration>,
    },
    /// The upstream refused it permanently.
    Refused {
        /// The status of the response.
        status: u16,
        /// The start of the response body.
        answer: String,
    },
}

/// Why a request failed: a label of `cairn_relay_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The connection could not be established.
    Connect,
    /// The request took longer than `timeout`.
    Timeout,
    /// The connection broke.
    Broken,
    /// 401 or 403: the operator has to correct the organization.
    Unauthorized,
    /// 3xx: the operator has to correct the endpoint.
    Redirect,
    /// 408
    RequestTimeout,
    /// 429
    RateLimited,
    /// 5xx
    ServerError,
    /// Any other 4xx, which is permanent.
    Refused,
    /// The event cannot be read: `cairn verify --all` names it.
    Damaged,
    /// Retention dropped the event before it was accepted.
    Dropped,
    /// The file cannot be written.
    Write,
}

impl Reason {
    /// Every reason, and its label.
    pub const ALL: [(Reason, &str); 12] = [
        (Reason::Connect, "connect"),
        (Reason::Timeout, "timeout"),
        (Reason::Broken, "broken"),
        (Reason::Unauthorized, "unauthorized"),
        (Reason::Redirect, "redirect"),
        (Reason::RequestTimeout, "request_timeout"),
        (Reason::RateLimited, "rate_limited"),
        (Reason::ServerError, "server_error"),
        (Reason::Refused, "refused"),
        (Reason::Damaged, "damaged"),
        (Reason::Dropped, "dropped"),
        (Reason::Write, "write"),
    ];
}
