//! What the thread of the log shares with everyone else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::signed::Signed;
use crate::runtime::now_ms;

/// What the thread shares with those who look.
pub struct Shared {
    /// The log's name.
    pub origin: String,
    pub state: watch::Sender<State>,
    /// How many leaves there are, signed or not.
    pub size: AtomicU64,
    /// When the last checkpoint was published, in ms since 1970; at first, when the log started.
    pub signed_ms: AtomicU64,
    /// The verifier keys. Written at start.
    pub keys: RwLock<Vec<String>>,
}

/// How the log is.
#[derive(Clone)]
pub enum State {
    /// It has not signed anything since the start.
    Starting,
    /// This is the last checkpoint.
    Signed(Arc<Signed>),
    /// Nothing is signed, for this reason.
    Stopped(Arc<str>),
}

impl Shared {
    pub fn publish(&self, state: State) {
        if matches!(state, State::Signed(_)) {
            self.signed_ms.store(now_ms(), Ordering::Relaxed);
        }
        self.state.send_replace(state);
    }

    pub fn is_signed(&self) -> bool {
        matches!(*self.state.borrow(), State::Signed(_))
    }

    pub fn sequenced(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    pub fn set_keys(&self, keys: &[String]) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    pub fn keys(&self) -> Vec<String> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
