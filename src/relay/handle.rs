//! A running destination: its specification, its thread, and how to stop it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;

use super::agnost::{self, Agnost};
use super::backlog::{Backlog, RelayCursor, RowChanges};
use super::commands::Command;
use super::config::{self, DestinationConfig};
use super::consumer::{Consumer, DEBOUNCE, RelayContext};
use super::destination::{BatchLimits, Destination};
use super::error::RelayError;
use super::file::Lines;
use super::metrics::DestinationMetrics;
use super::status::{Shared, Status};
use super::upstream::Upstream;
use super::webhook::Webhook;
use crate::ledger::Ledger;
use crate::ledger::format::keys::Position;
use crate::ledger::read::committed::Committed;
use crate::ledger::read::follower::{Cursor, Follower};
use crate::ledger::store::StoreError;
use crate::runtime::supervise;
use crate::text::settings::InvalidSetting;

/// How long to wait before a failed consumer restarts from what is on disk.
const RESTART_DELAY: Duration = Duration::from_secs(5);

/// The specification of a destination: its settings and the contents of the files that they name.
#[derive(Debug)]
pub struct DestinationSpec {
    /// The key of the settings in the configuration.
    key: String,
    config: DestinationConfig,
    files: Vec<Result<Vec<u8>, io::ErrorKind>>,
}

impl DestinationSpec {
    /// The specification of the settings under `key`. Reads the files.
    pub fn of(key: String, config: &DestinationConfig) -> DestinationSpec {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| error.kind());
        let files = [&config.org_id_file, &config.secret_file, &config.ca_file].into_iter().flatten();
        let files = files.map(read).collect();
        DestinationSpec { key, config: config.clone(), files }
    }

    /// Whether both specifications describe the same destination.
    pub fn is_same(&self, other: &DestinationSpec) -> bool {
        self.config == other.config && self.files == other.files
    }

    /// The name of the destination.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// Builds the destination, and starts nothing yet.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn prepare(self) -> Result<Prepared, InvalidSetting> {
        let (destination, identity_key) = build_destination(&self.config, &self.key)?;
        Ok(Prepared { spec: self, destination, identity_key })
    }
}

/// A destination that is ready to start.
pub struct Prepared {
    /// Its specification.
    pub spec: DestinationSpec,
    destination: Arc<dyn Destination>,
    identity_key: String,
}

/// A destination that is running.
pub struct DestinationHandle {
    /// Its specification.
    pub spec: DestinationSpec,
    /// The state that other threads read.
    pub shared: Arc<Shared>,
    /// Where it sends events to.
    pub destination: Arc<dyn Destination>,
    /// Sends commands about dead letters to its consumer.
    pub commands: Sender<Command>,
    retry_now: Sender<()>,
    stop: Sender<Instant>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl DestinationHandle {
    /// Starts the thread of a destination.
    ///
    /// # Errors
    /// When its rows cannot be read or written, or a thread cannot be started.
    pub fn start(prepared: Prepared, ledger: &Ledger) -> Result<DestinationHandle, RelayError> {
        let Prepared { spec, destination, identity_key } = prepared;
        let config = &spec.config;
        let (commands, received) = crossbeam_channel::unbounded();
        let (retry_now, retry_now_received) = crossbeam_channel::bounded(1);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let backlog = Backlog::new(Arc::clone(ledger.store()), &config.name);
        let cursor = load_cursor(&backlog, config, ledger.committed())?;
        let shared = Arc::new(Shared {
            name: config.name.clone(),
            kind: config.kind,
            endpoint: config.target(),
            identity_key,
            backlog,
            metrics: DestinationMetrics::register(&config.name),
            status: Mutex::new(Status::default()),
            is_ending: AtomicBool::new(false),
        });
        // A destination that sends events together waits for more of them.
        let wait = if destination.batch() == BatchLimits::ONE { DEBOUNCE } else { config.batch.wait };
        let context = RelayContext {
            store: Arc::clone(ledger.store()),
            follower: Follower::new(ledger.committed(), Arc::new(Cursor::new(cursor.next.clone())), wait),
            runtime: Handle::current(),
            destination: Arc::clone(&destination),
            commands: received,
            retry_now: retry_now_received,
            stop: stopped,
            shared: Arc::clone(&shared),
            config: config.clone(),
        };
        let unread = ledger.committed().lag(&cursor.next);
        tracing::info!(destination = config.name, endpoint = shared.endpoint, unread, "relay destination started");
        let (stopping, ending) = (context.stop.clone(), Arc::clone(&shared));
        // The consumer that failed may have received the request to stop.
        let wait = move |pause| {
            ending.is_ending.load(Ordering::Relaxed) || stopping.recv_timeout(pause) != Err(RecvTimeoutError::Timeout)
        };
        let work = move || Consumer::open(&context).and_then(|mut consumer| consumer.run());
        let thread = supervise(format!("cairn-relay-{}", config.name), RESTART_DELAY, work, wait);
        let thread = thread.map_err(RelayError::Thread)?;
        Ok(DestinationHandle { spec, shared, destination, commands, retry_now, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Lets it retry everything in back-off now.
    pub fn retry_now(&self) {
        // A thread that has ended needs no message.
        let _ = self.retry_now.try_send(());
    }

    /// Requests a stop. Nothing more is sent, and results of requests in flight are handled until `deadline`.
    pub fn request_stop(&self, deadline: Instant) {
        self.shared.is_ending.store(true, Ordering::Relaxed);
        // A thread that has ended needs no message.
        let _ = self.stop.try_send(deadline);
    }

    /// Waits until the thread has ended. Blocks.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// Builds a destination from its settings. Returns it with the key of the setting that identifies the organization.
fn build_destination(config: &DestinationConfig, key: &str) -> Result<(Arc<dyn Destination>, String), InvalidSetting> {
    match config.kind {
        config::DestinationType::Agnost => {
            let (org, identity_key) = config.org(key)?;
            let mut headers = HeaderMap::new();
            // A UUID is always a valid header value.
            let value = HeaderValue::try_from(org.hyphenated().to_string());
            headers
                .extend(value.ok().map(|value| (reqwest::header::HeaderName::from_static(agnost::ORG_HEADER), value)));
            let upstream = Upstream::new(config, key, headers, vec![org.hyphenated().to_string()])?;
            Ok((Arc::new(Agnost { org, content: config.content, upstream }), identity_key))
        }
        config::DestinationType::Webhook => {
            let (signing_key, batch) = (config.signing_key(key)?, config.batch_limits());
            let secrets = config.headers.values().filter(|value| !value.is_empty()).cloned().collect();
            let upstream = Upstream::new(config, key, config.header_map(key)?, secrets)?;
            Ok((Arc::new(Webhook { key: signing_key, batch, upstream }), format!("{key}.headers")))
        }
        config::DestinationType::File => {
            let path = config.path.as_deref().unwrap_or(Path::new("-"));
            let lines = Lines::new(path, config.rotate, config.batch_limits());
            Ok((Arc::new(lines), format!("{key}.path")))
        }
    }
}

/// Loads the cursor of a destination. A new destination's cursor is stored at once, so that `from: now` means its first
/// start, even after a restart.
fn load_cursor(
    backlog: &Backlog,
    config: &DestinationConfig,
    committed: &Committed,
) -> Result<RelayCursor, StoreError> {
    let end = || committed.shards().map(|shard| committed.next(shard));
    let stored = backlog.cursor()?;
    let mut cursor = stored.clone().unwrap_or_else(|| RelayCursor {
        ticket: 0,
        sent: 0,
        next: match config.from {
            config::Start::Start => end().map(|_| Position(0)).collect(),
            config::Start::Now => end().collect(),
        },
    });
    for (next, end) in cursor.next.iter_mut().zip(end()) {
        if *next > end {
            // These positions will be assigned again, and their events must not be skipped.
            tracing::warn!(
                destination = config.name,
                "relay cursor is ahead of the ledger: resetting it to the end of the ledger"
            );
            *next = end;
        }
    }
    if stored.as_ref() != Some(&cursor) {
        let mut changes = RowChanges::default();
        backlog.set_cursor(&mut changes, &cursor);
        backlog.write(&changes)?;
    }
    Ok(cursor)
}
