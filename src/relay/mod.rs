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
mod sessions;
mod status;
mod upstream;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender};
use reqwest::header::{HeaderMap, HeaderValue};
use tokio::runtime::Handle;

use crate::ledger::committed::Committed;
use crate::ledger::keys::Position;
use crate::ledger::store::StoreError;
use crate::ledger::{Ledger, now_ms};
use agnost::Agnost;
use backlog::{Backlog, Changes, Cursor};
pub use config::{DestinationConfig, Mistake, RelayConfig};
use consumer::{Consumer, Outside};
use destination::Destination;
use metrics::DestinationMetrics;
use orders::Order;
pub use routes::routes;
use status::{Shared, Status};
use upstream::Upstream;

/// How long to wait before a consumer that failed starts again from what is on disk.
const RESTART: Duration = Duration::from_secs(5);

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
    destinations: Vec<Running>,
}

struct Running {
    shared: Arc<Shared>,
    orders: Sender<Order>,
}

/// The threads of the relay, for who started it.
pub struct RelayThreads {
    threads: Vec<JoinHandle<()>>,
    stops: Vec<Sender<Instant>>,
}

impl Relay {
    /// Starts a consumer for each destination. Requests run in the runtime that this is called in; metrics register
    /// with the recorder that is in force.
    ///
    /// # Errors
    /// When a setting cannot be used.
    pub fn start(config: &RelayConfig, ledger: Arc<Ledger>) -> Result<(Arc<Relay>, RelayThreads), RelayError> {
        let mut destinations = Vec::new();
        let mut threads = RelayThreads { threads: Vec::new(), stops: Vec::new() };
        for (key, config) in config.all() {
            let (destination, identity_key) = connect(config, &key)?;
            let (orders, ordered) = crossbeam_channel::unbounded();
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
            });
            let outside = Outside {
                store: Arc::clone(ledger.store()),
                committed: Arc::clone(ledger.committed()),
                woken: ledger.committed().subscribe(),
                runtime: Handle::current(),
                destination,
                orders: ordered,
                stop: stopped,
                shared: Arc::clone(&shared),
                config: config.clone(),
            };
            let unread = status::lag(ledger.committed(), &cursor.next);
            tracing::info!(destination = config.name, endpoint = config.endpoint, unread, "relaying");
            let thread = std::thread::Builder::new().name(format!("cairn-relay-{}", config.name));
            threads.threads.push(thread.spawn(move || live(&outside)).map_err(RelayError::Thread)?);
            threads.stops.push(stop);
            destinations.push(Running { shared, orders });
        }
        for name in backlog::names(ledger.store())? {
            if !config.all().any(|(_, known)| known.name == name) {
                tracing::warn!(
                    destination = name,
                    "a destination is not in the configuration any more: what waits for it, and its dead letters, stay \
                     on disk until it is there again under this name"
                );
            }
        }
        Ok((Arc::new(Relay { ledger, destinations }), threads))
    }

    /// Measures what is measured when somebody looks.
    pub fn observe(&self) {
        for Running { shared, .. } in &self.destinations {
            let status = shared.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
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
        match outside.stop.recv_timeout(RESTART) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => return,
        }
    }
}

impl RelayThreads {
    /// Lets what is in flight come to its end until `deadline`, and ends the threads. Blocks.
    pub fn stop(self, deadline: Instant) {
        for stop in self.stops {
            // A thread that has ended needs no word.
            let _ = stop.send(deadline);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}
