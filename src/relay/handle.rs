//! A destination that is running: what it was made of, its thread, and how to end it.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;

use super::agnost::{self, Agnost};
use super::backlog::{Backlog, Changes, RelayCursor};
use super::commands::Command;
use super::config::{self, DestinationConfig};
use super::consumer::{Consumer, DEBOUNCE, RelayContext};
use super::destination::Destination;
use super::error::RelayError;
use super::metrics::DestinationMetrics;
use super::status::{Shared, Status};
use super::upstream::Upstream;
use crate::ledger::Ledger;
use crate::ledger::format::keys::Position;
use crate::ledger::read::committed::Committed;
use crate::ledger::read::follower::{Cursor, Follower};
use crate::ledger::store::StoreError;
use crate::runtime::supervise;
use crate::text::settings::InvalidSetting;

/// How long to wait before a consumer that failed starts again from what is on disk.
const RESTART: Duration = Duration::from_secs(5);

/// What a destination is made of: its settings, and what stands in the files that they name.
#[derive(Debug)]
pub struct DestinationSpec {
    /// The key that the settings stand under.
    key: String,
    config: DestinationConfig,
    files: Vec<Result<Vec<u8>, io::ErrorKind>>,
}

impl DestinationSpec {
    /// Of the settings under `key`.
    pub fn of(key: String, config: &DestinationConfig) -> DestinationSpec {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| error.kind());
        let files = [&config.org_id_file, &config.ca_file].into_iter().flatten().map(read).collect();
        DestinationSpec { key, config: config.clone(), files }
    }

    /// Whether a destination of that plan is one of this plan.
    pub fn is_same(&self, other: &DestinationSpec) -> bool {
        self.config == other.config && self.files == other.files
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Makes the destination, and starts nothing yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn prepare(self) -> Result<Prepared, InvalidSetting> {
        let (destination, identity_key) = connect(&self.config, &self.key)?;
        Ok(Prepared { spec: self, destination, identity_key })
    }
}

/// A destination that can be started.
pub struct Prepared {
    /// What it is made of.
    pub spec: DestinationSpec,
    destination: Arc<dyn Destination>,
    identity_key: String,
}

/// A destination that is running.
pub struct DestinationHandle {
    /// What it was made of.
    pub spec: DestinationSpec,
    /// What others see of it.
    pub shared: Arc<Shared>,
    /// What it is told to do with dead letters.
    pub commands: Sender<Command>,
    retry_now: Sender<()>,
    stop: Sender<Instant>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DestinationHandle {
    /// Starts the thread of a destination.
    ///
    /// # Errors
    /// When its place in the ledger cannot be read or written, or there is no thread.
    pub fn start(prepared: Prepared, ledger: &Ledger) -> Result<DestinationHandle, RelayError> {
        let Prepared { spec, destination, identity_key } = prepared;
        let config = &spec.config;
        let (commands, received) = crossbeam_channel::unbounded();
        let (retry_now, retry_now_received) = crossbeam_channel::bounded(1);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let backlog = Backlog::new(Arc::clone(ledger.store()), &config.name);
        let cursor = find_cursor(&backlog, config, ledger.committed())?;
        let shared = Arc::new(Shared {
            name: config.name.clone(),
            kind: config.kind,
            endpoint: config.endpoint.clone(),
            identity_key,
            backlog,
            metrics: DestinationMetrics::register(&config.name),
            status: Mutex::new(Status::default()),
            is_ending: AtomicBool::new(false),
        });
        let context = RelayContext {
            store: Arc::clone(ledger.store()),
            follower: Follower::new(ledger.committed(), Arc::new(Cursor::new(cursor.next.clone())), DEBOUNCE),
            runtime: Handle::current(),
            destination,
            commands: received,
            retry_now: retry_now_received,
            stop: stopped,
            shared: Arc::clone(&shared),
            config: config.clone(),
        };
        let unread = ledger.committed().lag(&cursor.next);
        tracing::info!(destination = config.name, endpoint = config.endpoint, unread, "relaying");
        let (stopping, ending) = (context.stop.clone(), Arc::clone(&shared));
        // The request to stop may have been received by the run that failed.
        let wait = move |pause| {
            ending.is_ending.load(Ordering::Relaxed) || stopping.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
        };
        let work = move || Consumer::open(&context).and_then(|mut consumer| consumer.run());
        let thread = supervise(format!("cairn-relay-{}", config.name), RESTART, work, wait);
        let thread = thread.map_err(RelayError::Thread)?;
        Ok(DestinationHandle { spec, shared, commands, retry_now, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Has it try once more whatever waits for its next try.
    pub fn retry_now(&self) {
        // A thread that has ended needs no word.
        let _ = self.retry_now.try_send(());
    }

    /// Has what is in flight come to its end until `deadline`, and takes nothing more up.
    pub fn end(&self, deadline: Instant) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        // A thread that has ended needs no word.
        let _ = self.stop.try_send(deadline);
    }

    /// Waits until it has ended. Blocks.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// Makes the destination that a part of the configuration describes, and says which key names us there.
fn connect(config: &DestinationConfig, key: &str) -> Result<(Arc<dyn Destination>, String), InvalidSetting> {
    match config.kind {
        config::DestinationType::Agnost => {
            let (org, identity_key) = config.org(key)?;
            let mut headers = HeaderMap::new();
            // A UUID is always a header's value.
            let value = HeaderValue::try_from(org.hyphenated().to_string());
            headers
                .extend(value.ok().map(|value| (reqwest::header::HeaderName::from_static(agnost::ORG_HEADER), value)));
            let upstream = Upstream::new(config, key, headers, &org.hyphenated().to_string())?;
            Ok((Arc::new(Agnost { org, content: config.content, upstream }), identity_key))
        }
    }
}

/// Makes sure that a destination has a place in the ledger. That of a new one is kept at once: `from: now` means the
/// moment of its first start, also after a restart.
fn find_cursor(
    backlog: &Backlog,
    config: &DestinationConfig,
    committed: &Committed,
) -> Result<RelayCursor, StoreError> {
    let end = || committed.shards().map(|shard| committed.next(shard));
    let known = backlog.cursor()?;
    let mut cursor = known.clone().unwrap_or_else(|| RelayCursor {
        ticket: 0,
        sent: 0,
        next: match config.from {
            config::Start::Start => end().map(|_| Position(0)).collect(),
            config::Start::Now => end().collect(),
        },
    });
    for (next, end) in cursor.next.iter_mut().zip(end()) {
        if *next > end {
            // Positions are given anew, and what gets them must not be passed over.
            tracing::warn!(destination = config.name, "the cursor is ahead of the ledger: it is set back to its end");
            *next = end;
        }
    }
    if known.as_ref() != Some(&cursor) {
        let mut changes = Changes::default();
        backlog.set_cursor(&mut changes, &cursor);
        backlog.write(&changes)?;
    }
    Ok(cursor)
}
