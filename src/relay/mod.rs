//! Relay: every committed event reaches each destination at least once, in the order of its session.
//!
//! | file | |
//! |---|---|
//! | [`config`] | what can be set |
//! | [`reader`] | commits, in the order of their receipt |
//! | [`event`] | an event as destinations see it, and which of them they see |
//! | [`sessions`] | whose turn it is |
//! | [`destination`] | what every destination is; one file for each kind: [`agnost`] |
//! | [`upstream`] | requests over HTTP, and what their answers mean |
//! | [`circuit`] | when to try again |
//! | [`outcome`] | done, again, or dead letter |
//! | [`backlog`] | all of it on disk |
//! | [`consumer`] | the thread that does it, one per destination |
//!
//! Nothing here is on the way of an answer: an upstream that is down makes the backlog on disk longer, and nothing else.

mod agnost;
mod backlog;
mod circuit;
mod complaints;
pub mod config;
mod consumer;
mod destination;
mod event;
mod metrics;
mod orders;
mod outcome;
mod passed;
mod reader;
mod routes;
mod running;
mod sessions;
mod status;
mod upstream;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::ledger::store::StoreError;
use crate::ledger::{Ledger, now_ms};
pub use config::{DestinationConfig, Mistake, RelayConfig};
pub use routes::{reads, repairs};
use running::{Plan, Prepared, Running};

/// How long requests of a destination that is changed or taken out may take to be answered.
const CHANGE_GRACE: Duration = Duration::from_secs(5);

/// How much of the time for the end is kept for what is in flight then, at most.
const END_TIME: Duration = Duration::from_secs(2);

/// How often it is looked at whether all is sent.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] Mistake),
    /// A destination's place in the ledger could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be made.
    #[error("the relay's thread cannot be made: {0}")]
    Thread(std::io::Error),
}

/// Every destination.
pub struct Relay {
    ledger: Arc<Ledger>,
    destinations: RwLock<Vec<Arc<Running>>>,
    /// Held while destinations come or go.
    is_stopped: Mutex<bool>,
}

/// Other destinations than those that run.
pub struct Changes {
    /// All of them, in the order of the configuration.
    names: Vec<String>,
    kept: Vec<Arc<Running>>,
    ended: Vec<Arc<Running>>,
    new: Vec<Prepared>,
}

impl Relay {
    /// Starts a consumer for each destination. Requests run in the runtime that this is called in; metrics register
    /// with the recorder that is in force.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn start(config: &RelayConfig, ledger: Arc<Ledger>) -> Result<Arc<Relay>, RelayError> {
        let relay = Relay { ledger, destinations: RwLock::default(), is_stopped: Mutex::new(false) };
        relay.change(relay.prepare(config)?)?;
        for name in backlog::names(relay.ledger.store())? {
            if !config.all().any(|(_, known)| known.name == name) {
                tracing::warn!(
                    destination = name,
                    "a destination is not in the configuration any more: what waits for it, and its dead letters, stay \
                     on disk until it is there again under this name"
                );
            }
        }
        Ok(Arc::new(relay))
    }

    /// Makes what is new in these destinations, and changes nothing yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn prepare(&self, config: &RelayConfig) -> Result<Changes, Mistake> {
        let plans: Vec<Plan> = config.all().map(|(key, config)| Plan::of(key, config)).collect();
        let names = plans.iter().map(|plan| plan.name().to_owned()).collect();
        let (kept, ended): (Vec<_>, Vec<_>) =
            self.running().into_iter().partition(|running| plans.iter().any(|plan| plan.is_same(&running.plan)));
        let new = plans.into_iter().filter(|plan| kept.iter().all(|kept| !kept.plan.is_same(plan)));
        let new = new.map(Plan::prepare).collect::<Result<Vec<Prepared>, Mistake>>()?;
        Ok(Changes { names, kept, ended, new })
    }

    /// Has destinations that were [prepared](Relay::prepare) run, from now on. One that is as it was goes on undisturbed;
    /// one that is changed, or not there any more, ends first, which takes a few seconds at most. Blocks, where a
    /// destination runs already.
    ///
    /// # Errors
    /// When the ledger fails on the way; then some are not there.
    pub fn change(&self, changes: Changes) -> Result<(), RelayError> {
        let Changes { names, kept, ended, new } = changes;
        // Whoever stops the relay waits for this, and nothing starts behind it.
        let is_stopped = self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_stopped {
            return Ok(());
        }
        let deadline = Instant::now() + CHANGE_GRACE;
        ended.iter().for_each(|running| running.end(deadline));
        for running in &ended {
            running.join();
            running.shared.metrics.observe(0, 0, 0, now_ms());
            tracing::info!(destination = running.plan.name(), "relaying no more as it was");
        }
        self.set(kept.clone());
        let mut running = kept;
        for prepared in new {
            running.push(Arc::new(Running::start(prepared, &self.ledger)?));
            running.sort_by_key(|running| names.iter().position(|name| name == running.plan.name()));
            self.set(running.clone());
        }
        Ok(())
    }

    fn set(&self, running: Vec<Arc<Running>>) {
        *self.destinations.write().unwrap_or_else(PoisonError::into_inner) = running;
    }

    /// Those that run.
    fn running(&self) -> Vec<Arc<Running>> {
        self.destinations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what waits as long as upstreams take it and `deadline` is not near: the disk may go with the process, as that of a
    /// pod does. `has_all`: no more comes. Destinations do not change any more. Blocks.
    pub fn finish(&self, deadline: Instant, has_all: &AtomicBool) {
        self.close();
        let (started, started_ms) = (Instant::now(), now_ms());
        let left = deadline.saturating_duration_since(started);
        // Behind it, what is in flight comes to its end.
        let last = deadline - (left / 4).min(END_TIME);
        let last_ms = started_ms + last.saturating_duration_since(started).as_millis() as u64;
        let committed = self.ledger.committed();
        self.running().iter().for_each(|running| running.hurry());
        let is_at_rest = |running: &Arc<Running>| running.shared.status().is_at_rest(committed, started_ms, last_ms);
        loop {
            let has_all = has_all.load(Ordering::Acquire);
            let end = if has_all { last } else { deadline };
            if Instant::now() >= end || has_all && self.running().iter().all(is_at_rest) {
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Lets what is in flight come to its end until `deadline`, and ends the threads. Blocks.
    pub fn stop(&self, deadline: Instant) {
        self.close();
        let running = self.running();
        running.iter().for_each(|running| running.end(deadline));
        running.iter().for_each(|running| running.join());
    }

    /// Says what was not sent, after the end of everything that writes.
    pub fn tell_unsent(&self) {
        for running in self.running() {
            let unsent = running.shared.status().backlog(self.ledger.committed());
            if unsent > 0 {
                let destination = running.plan.name();
                tracing::warn!(destination, unsent, "events were not relayed; they wait on disk for the next start");
            }
        }
    }

    /// Has destinations come and go no more.
    fn close(&self) {
        *self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Measures what is measured when somebody looks.
    pub fn observe(&self) {
        for running in self.running() {
            let shared = &running.shared;
            let status = shared.status();
            let committed = self.ledger.committed();
            if !status.is_known {
                continue;
            }
            match status.oldest_ms(&self.ledger) {
                Ok(oldest_ms) => shared.metrics.observe(
                    status.dead_letters,
                    status.backlog(committed),
                    status::lag(committed, &status.next),
                    oldest_ms.unwrap_or_else(now_ms),
                ),
                Err(error) => tracing::warn!(%error, "the relay's backlog cannot be measured"),
            }
        }
    }
}
