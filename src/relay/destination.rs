//! What every destination is: something that takes one event at a time, and says what became of it.

use std::time::Duration;

use futures_util::future::BoxFuture;

use super::event::RelayEvent;

/// Names the events that have to arrive one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 16]);

/// A request on its way.
pub type Sending = BoxFuture<'static, Sent>;

/// One kind of upstream, with its own mapping. One file each.
///
/// The calls make the request from the event at once; only the request itself is awaited.
pub trait Destination: Send + Sync {
    /// The session that an event belongs to.
    fn session(&self, event: &RelayEvent<'_>) -> SessionKey;

    /// Tells of a session before its first event is sent; `None` where sessions need no telling.
    fn announce(&self, first: &RelayEvent<'_>) -> Option<Sending>;

    /// Whether sending this event tells of its session: then nothing else has to.
    fn announces(&self, _event: &RelayEvent<'_>) -> bool {
        false
    }

    /// Sends an event.
    fn send(&self, event: &RelayEvent<'_>) -> Sending;

    /// Stands for whom it is sent to: sessions that were announced to somebody else are announced again.
    fn recipient(&self) -> [u8; 8];
}

/// What became of a request.
#[derive(Debug)]
pub struct Sent {
    /// Whether it arrived.
    pub outcome: Outcome,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
}

/// Whether a request arrived.
#[derive(Debug)]
pub enum Outcome {
    /// It did: the upstream said so.
    Delivered,
    /// It did not, or nobody knows; it has to be sent again.
    Failed {
        /// What happened.
        reason: Reason,
        /// In the words of the upstream or of the system.
        message: String,
        /// How long the upstream asks to wait.
        retry_after: Option<Duration>,
    },
    /// The upstream will never take it.
    Refused {
        /// The status.
        status: u16,
        /// What the upstream said, or the start of it.
        answer: String,
    },
}

/// Why a request failed: a label of `cairn_relay_failures_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// No connection came about.
    Connect,
    /// It took longer than `timeout`.
    Timeout,
    /// The connection broke.
    Broken,
    /// 401 or 403: the operator has to change who we are.
    Unauthorized,
    /// 3xx: the operator has to change the endpoint.
    Redirect,
    /// 408
    RequestTimeout,
    /// 429
    RateLimited,
    /// 5xx
    ServerError,
    /// Any other 4xx, which is final.
    Refused,
    /// The event cannot be read: `cairn verify --all` names it.
    Damaged,
}

impl Reason {
    /// Every reason, and its label.
    pub const ALL: [(Reason, &str); 10] = [
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
    ];
}
