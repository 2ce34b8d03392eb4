//! A destination that is running: what it was made of, its thread, and how to end it.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;

use super::RelayError;
use super::agnost::{self, Agnost};
use super::backlog::{Backlog, Changes, Cursor};
use super::config::{self, DestinationConfig, Mistake};
use super::consumer::{Consumer, Outside};
use super::destination::Destination;
use super::metrics::DestinationMetrics;
use super::orders::Order;
use super::status::{self, Shared, Status};
use super::upstream::Upstream;
use crate::ledger::Ledger;
use crate::ledger::committed::Committed;
use crate::ledger::keys::Position;
use crate::ledger::store::StoreError;

/// How long to wait before a consumer that failed starts again from what is on disk.
const RESTART: Duration = Duration::from_secs(5);

/// What a destination is made of: its settings, and what stands in the files that they name.
#[derive(Debug)]
pub struct Plan {
    /// The key that the settings stand under.
    key: String,
    config: DestinationConfig,
    files: Vec<Result<Vec<u8>, io::ErrorKind>>,
}

impl Plan {
    /// Of the settings under `key`.
    pub fn of(key: String, config: &DestinationConfig) -> Plan {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| error.kind());
        let files = [&config.org_id_file, &config.ca_file].into_iter().flatten().map(read).collect();
        Plan { key, config: config.clone(), files }
    }

    /// Whether a destination of that plan is one of this plan.
    pub fn is_same(&self, other: &Plan) -> bool {
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
    pub fn prepare(self) -> Result<Prepared, Mistake> {
        let (destination, identity_key) = connect(&self.config, &self.key)?;
        Ok(Prepared { plan: self, destination, identity_key })
    }
}

/// A destination that can be started.
pub struct Prepared {
    /// What it is made of.
    pub plan: Plan,
    destination: Arc<dyn Destination>,
    identity_key: String,
}

/// A destination that is running.
pub struct Running {
    /// What it was made of.
    pub plan: Plan,
    /// What others see of it.
    pub shared: Arc<Shared>,
    /// What it is told to do with dead letters.
    pub orders: Sender<Order>,
    hurry: Sender<()>,
    stop: Sender<Instant>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// Starts the thread of a destination.
    ///
    /// # Errors
    /// When its place in the ledger cannot be read or written, or there is no thread.
    pub fn start(prepared: Prepared, ledger: &Ledger) -> Result<Running, RelayError> {
        let Prepared { plan, destination, identity_key } = prepared;
        let config = &plan.config;
        let (orders, ordered) = crossbeam_channel::unbounded();
        let (hurry, hurried) = crossbeam_channel::bounded(1);
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let backlog = Backlog::new(Arc::clone(ledger.store()), &config.name);
        let cursor = find_place(&backlog, config, ledger.committed())?;
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
        let outside = Outside {
            store: Arc::clone(ledger.store()),
            committed: Arc::clone(ledger.committed()),
            woken: ledger.committed().subscribe(),
            runtime: Handle::current(),
            destination,
            orders: ordered,
            hurry: hurried,
            stop: stopped,
            shared: Arc::clone(&shared),
            config: config.clone(),
        };
        let unread = status::lag(ledger.committed(), &cursor.next);
        tracing::info!(destination = config.name, endpoint = config.endpoint, unread, "relaying");
        let thread = std::thread::Builder::new().name(format!("cairn-relay-{}", config.name));
        let thread = thread.spawn(move || live(&outside)).map_err(RelayError::Thread)?;
        Ok(Running { plan, shared, orders, hurry, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Has it try once more whatever waits for its next try.
    pub fn hurry(&self) {
        // A thread that has ended needs no word.
        let _ = self.hurry.try_send(());
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
fn connect(config: &DestinationConfig, key: &str) -> Result<(Arc<dyn Destination>, String), Mistake> {
    match config.kind {
        config::Kind::Agnost => {
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
fn find_place(backlog: &Backlog, config: &DestinationConfig, committed: &Committed) -> Result<Cursor, StoreError> {
    let end = || committed.shards().map(|shard| committed.next(shard));
    let known = backlog.cursor()?;
    let mut cursor = known.clone().unwrap_or_else(|| Cursor {
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

/// The life of a consumer's thread. Whatever goes wrong in it, even a bug, harms nobody else: it starts again from what
/// is on disk.
fn live(outside: &Outside) {
    let name = &outside.config.name;
    loop {
        let run = || Consumer::open(outside).and_then(|mut consumer| consumer.run());
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::error!(%error, destination = name, "the relay stopped; it starts again"),
            Err(_) => tracing::error!(destination = name, "the relay panicked, which is a bug; it starts again"),
        }
        // The word to end may have been heard by the one that failed.
        if outside.shared.is_ending.load(Ordering::Relaxed) {
            return;
        }
        match outside.stop.recv_timeout(RESTART) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}
