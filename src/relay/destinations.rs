//! All destinations: starts, changes and stops them together.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::backlog;
use super::config::RelayConfig;
use super::error::RelayError;
use super::handle::{DestinationHandle, DestinationSpec, Prepared};
use crate::http::Readers;
use crate::ledger::Ledger;
use crate::ledger::format::keys::{Position, ShardId};
use crate::ledger::store::StoreError;
use crate::runtime::now_ms;
use crate::text::plural;
use crate::text::settings::InvalidSetting;

/// How long to wait for requests in flight of a destination that is changed or removed.
const CHANGE_GRACE: Duration = Duration::from_secs(5);

/// Most of the shutdown time that is reserved for requests in flight.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The interval at which everything in back-off is retried at shutdown.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How often to check whether the backlog is sent.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// All running destinations.
pub struct Relay {
    /// The ledger whose commits are relayed.
    pub ledger: Arc<Ledger>,
    /// Reads for operators, and the memory of their responses.
    pub readers: Arc<Readers>,
    destinations: RwLock<Vec<Arc<DestinationHandle>>>,
    /// The number of configured destinations. Some of them may not run while they change.
    configured: AtomicUsize,
    /// Whether destinations may not change any more. Locked while they change.
    is_stopped: Mutex<bool>,
}

/// What was not relayed to a destination when the process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// The name of the destination.
    pub destination: String,
    /// The number of events.
    pub events: u64,
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} not relayed to {}", plural(self.events, "event"), self.destination)
    }
}

/// A prepared change of the destinations.
pub struct PreparedChanges {
    /// The names of all destinations after the change, in the order of the configuration.
    names: Vec<String>,
    kept: Vec<Arc<DestinationHandle>>,
    ended: Vec<Arc<DestinationHandle>>,
    new: Vec<Prepared>,
}

impl Relay {
    /// Starts a consumer for each destination. Requests run in the current runtime; metrics register with the current
    /// recorder.
    ///
    /// # Errors
    /// When a setting cannot be used, the ledger cannot be read or written, or a thread cannot be started.
    pub fn start(config: &RelayConfig, ledger: Arc<Ledger>, readers: Arc<Readers>) -> Result<Arc<Relay>, RelayError> {
        let relay = Relay {
            ledger,
            readers,
            destinations: RwLock::default(),
            configured: AtomicUsize::new(0),
            is_stopped: Mutex::new(false),
        };
        relay.apply(relay.prepare(config)?)?;
        for name in backlog::names(relay.ledger.store())? {
            if !config.all().any(|(_, configured)| configured.name == name) {
                tracing::warn!(
                    destination = name,
                    "relay destination is not configured any more: its backlog and its dead letters stay on disk \
                     until a destination with this name is configured again"
                );
            }
        }
        Ok(Arc::new(relay))
    }

    /// The position of each shard before which every destination has accepted, refused for good or left out every event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn accepted(&self) -> Result<Vec<Position>, StoreError> {
        let (committed, handles) = (self.ledger.committed(), self.handles());
        if handles.len() < self.configured.load(Ordering::Acquire) {
            return Ok(committed.shards().map(|_| Position(0)).collect());
        }
        let mut accepted: Vec<Position> = committed.shards().map(|shard| committed.next(shard)).collect();
        for handle in handles {
            let backlog = &handle.shared.backlog;
            let mut lower = |shard: ShardId, position: Position| {
                if let Some(accepted) = accepted.get_mut(usize::from(shard.0)) {
                    *accepted = (*accepted).min(position);
                }
            };
            // The cursor first: an event that is read in between then has a waiting row, or is behind the cursor.
            let cursor = backlog.cursor()?;
            for shard in committed.shards() {
                let next = cursor.as_ref().and_then(|cursor| cursor.next.get(usize::from(shard.0)));
                lower(shard, next.copied().unwrap_or(Position(0)));
            }
            backlog.for_each_waiting(|_, event| {
                lower(event.location.shard, event.location.position);
                Ok(())
            })?;
        }
        Ok(accepted)
    }

    /// Prepares a change to the configured destinations, and starts nothing yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn prepare(&self, config: &RelayConfig) -> Result<PreparedChanges, InvalidSetting> {
        let specs: Vec<DestinationSpec> = config.all().map(|(key, config)| DestinationSpec::of(key, config)).collect();
        let names = specs.iter().map(|spec| spec.name().to_owned()).collect();
        let (kept, ended): (Vec<_>, Vec<_>) =
            self.handles().into_iter().partition(|handle| specs.iter().any(|spec| spec.is_same(&handle.spec)));
        let new = specs.into_iter().filter(|spec| kept.iter().all(|kept| !kept.spec.is_same(spec)));
        let new = new.map(DestinationSpec::prepare).collect::<Result<Vec<Prepared>, InvalidSetting>>()?;
        Ok(PreparedChanges { names, kept, ended, new })
    }

    /// Applies a [prepared](Relay::prepare) change. An unchanged destination continues undisturbed; one that is changed
    /// or removed ends first, which takes a few seconds at most. Blocks if a destination ends.
    ///
    /// # Errors
    /// When the ledger cannot be read or written, or a thread cannot be started. Some destinations do not run then.
    pub fn apply(&self, changes: PreparedChanges) -> Result<(), RelayError> {
        let PreparedChanges { names, kept, ended, new } = changes;
        // The lock is held to the end, so that no destination starts after the relay is stopped.
        let is_stopped = self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_stopped {
            return Ok(());
        }
        self.configured.store(names.len(), Ordering::Release);
        let deadline = Instant::now() + CHANGE_GRACE;
        ended.iter().for_each(|handle| handle.request_stop(deadline));
        for handle in &ended {
            handle.join();
            handle.shared.metrics.observe(0, 0, 0, now_ms());
            tracing::info!(destination = handle.spec.name(), "relay destination stopped: configuration changed");
        }
        self.set(kept.clone());
        let mut handles = kept;
        for prepared in new {
            handles.push(Arc::new(DestinationHandle::start(prepared, &self.ledger)?));
            handles.sort_by_key(|handle| names.iter().position(|name| name == handle.spec.name()));
            self.set(handles.clone());
        }
        Ok(())
    }

    fn set(&self, handles: Vec<Arc<DestinationHandle>>) {
        *self.destinations.write().unwrap_or_else(PoisonError::into_inner) = handles;
    }

    /// The running destinations.
    pub fn handles(&self) -> Vec<Arc<DestinationHandle>> {
        self.destinations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends the backlog at shutdown until `deadline`, and gives up a destination that accepts nothing for `patience`. Until
    /// then, everything is tried again and again: the disk may be lost with the process, as that of a pod is, and an
    /// upstream that restarts is back within seconds. `is_complete` is set when no more events will be committed.
    /// Destinations cannot change any more. Blocks.
    pub fn send_backlog(&self, deadline: Instant, patience: Duration, is_complete: &AtomicBool) {
        self.close();
        let (started, started_ms) = (Instant::now(), now_ms());
        let left = deadline.saturating_duration_since(started);
        // The time after it is for requests in flight.
        let last = deadline - (left / 4).min(DRAIN_TIME);
        let committed = self.ledger.committed();
        let is_done = |handle: &Arc<DestinationHandle>| {
            let status = handle.shared.status();
            let accepted = started + Duration::from_millis(status.last_sent_ms.unwrap_or(0).saturating_sub(started_ms));
            let is_given_up = accepted.elapsed() >= patience && status.in_flight == 0;
            status.is_loaded && (is_given_up || status.is_sent(committed))
        };
        let mut retry_at = Instant::now();
        loop {
            let is_complete = is_complete.load(Ordering::Acquire);
            let end = if is_complete { last } else { deadline };
            if Instant::now() >= end || is_complete && self.handles().iter().all(is_done) {
                return;
            }
            if Instant::now() >= retry_at {
                self.handles().iter().for_each(|handle| handle.retry_now());
                retry_at += RETRY_INTERVAL;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits until `deadline` for requests in flight, and ends the threads. Blocks.
    pub fn stop(&self, deadline: Instant) {
        self.close();
        let handles = self.handles();
        handles.iter().for_each(|handle| handle.request_stop(deadline));
        handles.iter().for_each(|handle| handle.join());
    }

    /// The destinations with events that were not relayed, and their numbers. Called when nothing is written any more.
    pub fn unsent(&self) -> Vec<Unsent> {
        let unsent = self.handles().into_iter().map(|handle| Unsent {
            destination: handle.spec.name().to_owned(),
            events: handle.shared.status().backlog(self.ledger.committed()),
        });
        unsent.filter(|unsent| unsent.events > 0).collect()
    }

    /// Prevents further changes of the destinations.
    fn close(&self) {
        *self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Sets the gauges of all destinations.
    pub fn observe(&self) {
        for handle in self.handles() {
            let shared = &handle.shared;
            let status = shared.status();
            let committed = self.ledger.committed();
            if !status.is_loaded {
                continue;
            }
            match status.oldest_ms(&self.ledger) {
                Ok(oldest_ms) => shared.metrics.observe(
                    status.dead_letters,
                    status.backlog(committed),
                    committed.lag(&status.next),
                    oldest_ms.unwrap_or_else(now_ms),
                ),
                Err(error) => tracing::warn!(%error, "reading the relay backlog for metrics failed"),
            }
        }
    }
}
