//! The state that the log thread shares with other threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use super::signed::SignedTree;
use crate::runtime::{FOR_TERMINAL, now_ms};
use crate::text::plural;

/// The shared state. Written by the log thread; [`super::Log::observe`] also advances `signed_ms`.
pub struct Shared {
    /// The origin of the log.
    pub origin: String,
    /// The current state, and the channel that announces its changes.
    pub state: watch::Sender<State>,
    /// The number of leaves, signed or not.
    pub size: AtomicU64,
    /// When the last checkpoint was published, in ms since 1970; before the first one, when the log started.
    pub signed_ms: AtomicU64,
    /// The verifier keys. Written at start.
    pub keys: RwLock<Vec<String>>,
}

/// The state of the log.
#[derive(Clone)]
pub enum State {
    /// Nothing was signed since the start.
    Starting,
    /// The tree of the last checkpoint.
    Signed(Arc<SignedTree>),
    /// Nothing is signed, for this reason.
    Stopped(Arc<str>),
}

impl Shared {
    pub fn publish(&self, state: State) {
        if let State::Signed(signed) = &state {
            self.signed_ms.store(now_ms(), Ordering::Relaxed);
            // Not repeated, as the announcements for a collector are.
            if !matches!(&*self.state.borrow(), State::Signed(last) if last.size == signed.size) {
                tracing::info!(name: FOR_TERMINAL, "checkpoint of {} signed", plural(signed.size, "event"));
            }
        }
        self.state.send_replace(state);
    }

    pub fn is_signed(&self) -> bool {
        matches!(*self.state.borrow(), State::Signed(_))
    }

    pub fn set_size(&self, size: u64) {
        self.size.store(size, Ordering::Relaxed);
    }

    pub fn set_keys(&self, keys: &[String]) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    pub fn keys(&self) -> Vec<String> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
