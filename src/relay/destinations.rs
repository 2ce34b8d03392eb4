//! All destinations: started, changed and stopped together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::backlog;
use super::config::RelayConfig;
use super::error::RelayError;
use super::handle::{DestinationHandle, DestinationSpec, Prepared};
use crate::ledger::Ledger;
use crate::runtime::now_ms;
use crate::text::settings::InvalidSetting;

/// How long requests of a destination that is changed or taken out may take to be answered.
const CHANGE_GRACE: Duration = Duration::from_secs(5);

/// How much of the time for the end is kept for what is in flight then, at most.
const END_TIME: Duration = Duration::from_secs(2);

/// How often it is looked at whether all is sent.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Every destination.
pub struct Relay {
    /// The ledger that it follows.
    pub ledger: Arc<Ledger>,
    destinations: RwLock<Vec<Arc<DestinationHandle>>>,
    /// Held while destinations come or go.
    is_stopped: Mutex<bool>,
}

/// Other destinations than those that run.
pub struct Changes {
    /// All of them, in the order of the configuration.
    names: Vec<String>,
    kept: Vec<Arc<DestinationHandle>>,
    ended: Vec<Arc<DestinationHandle>>,
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
    pub fn prepare(&self, config: &RelayConfig) -> Result<Changes, InvalidSetting> {
        let specs: Vec<DestinationSpec> = config.all().map(|(key, config)| DestinationSpec::of(key, config)).collect();
        let names = specs.iter().map(|spec| spec.name().to_owned()).collect();
        let (kept, ended): (Vec<_>, Vec<_>) =
            self.handles().into_iter().partition(|handle| specs.iter().any(|spec| spec.is_same(&handle.spec)));
        let new = specs.into_iter().filter(|spec| kept.iter().all(|kept| !kept.spec.is_same(spec)));
        let new = new.map(DestinationSpec::prepare).collect::<Result<Vec<Prepared>, InvalidSetting>>()?;
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
        ended.iter().for_each(|handle| handle.end(deadline));
        for handle in &ended {
            handle.join();
            handle.shared.metrics.observe(0, 0, 0, now_ms());
            tracing::info!(destination = handle.spec.name(), "relay destination stopped: configuration changed");
        }
        self.set(kept.clone());
        let mut handle = kept;
        for prepared in new {
            handle.push(Arc::new(DestinationHandle::start(prepared, &self.ledger)?));
            handle.sort_by_key(|handle| names.iter().position(|name| name == handle.spec.name()));
            self.set(handle.clone());
        }
        Ok(())
    }

    fn set(&self, handle: Vec<Arc<DestinationHandle>>) {
        *self.destinations.write().unwrap_or_else(PoisonError::into_inner) = handle;
    }

    /// Those that run.
    pub fn handles(&self) -> Vec<Arc<DestinationHandle>> {
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
        self.handles().iter().for_each(|handle| handle.retry_now());
        let is_at_rest =
            |handle: &Arc<DestinationHandle>| handle.shared.status().is_at_rest(committed, started_ms, last_ms);
        loop {
            let has_all = has_all.load(Ordering::Acquire);
            let end = if has_all { last } else { deadline };
            if Instant::now() >= end || has_all && self.handles().iter().all(is_at_rest) {
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Lets what is in flight come to its end until `deadline`, and ends the threads. Blocks.
    pub fn stop(&self, deadline: Instant) {
        self.close();
        let handle = self.handles();
        handle.iter().for_each(|handle| handle.end(deadline));
        handle.iter().for_each(|handle| handle.join());
    }

    /// Says what was not sent, after the end of everything that writes.
    pub fn report_unsent(&self) {
        for handle in self.handles() {
            let unsent = handle.shared.status().backlog(self.ledger.committed());
            if unsent > 0 {
                let destination = handle.spec.name();
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
        for handle in self.handles() {
            let shared = &handle.shared;
            let status = shared.status();
            let committed = self.ledger.committed();
            if !status.is_known {
                continue;
            }
            match status.oldest_ms(&self.ledger) {
                Ok(oldest_ms) => shared.metrics.observe(
                    status.dead_letters,
                    status.backlog(committed),
                    committed.lag(&status.next),
                    oldest_ms.unwrap_or_else(now_ms),
                ),
                Err(error) => tracing::warn!(%error, "the relay's backlog cannot be measured"),
            }
        }
    }
}
