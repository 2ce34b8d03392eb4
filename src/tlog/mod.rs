//! The transparency log: one RFC 6962 tree over all events, signed now and then.
//!
//! A chain does not show a cut tail, nor a history that was rewritten from its start. A signed checkpoint that has left
//! the machine shows both.
//!
//! | file | |
//! |---|---|
//! | [`leaf`] | an event, as the tree has it |
//! | [`tree`] | the running edge, and any hash of the tree |
//! | [`rows`] | the log on disk |
//! | [`keys`] | who signs |
//! | [`checkpoint`] | what is signed |
//! | [`sequencer`] | the thread that does it, behind the commits |
//! | [`prover`] | proofs of many events |
//! | [`path`] | the paths of tiles (C2SP tlog-tiles) |
//!
//! Nothing here is on the way of an answer.

pub mod checkpoint;
mod config;
pub mod keys;
pub mod leaf;
pub mod path;
mod prover;
pub mod rows;
mod sequencer;
pub mod tree;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender};
use metrics::{Gauge, Unit, describe_gauge, gauge};
use tlog_tiles::{Error, Hash, prove_record, prove_tree};
use tokio::sync::watch;

use crate::ledger::keys::{Place, Position};
use crate::ledger::store::{Store, StoreError};
use crate::ledger::{Ledger, now_ms};
use checkpoint::Head;
pub use config::LogConfig;
pub use prover::Prover;
use rows::LogRows;
use sequencer::{Outside, Sequencer};
use tree::{Edge, Hashes};

/// How long to wait before a thread that failed starts again from what is on disk.
const RESTART: Duration = Duration::from_secs(1);

/// The log of a running ledger.
pub struct Log {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    size: Gauge,
    signed_size: Gauge,
    signed_at: Gauge,
    rollback: Gauge,
    lag: Gauge,
}

/// What the thread shares with those who look.
pub struct Shared {
    /// The log's name.
    pub origin: String,
    state: watch::Sender<State>,
    /// How many leaves there are, signed or not.
    size: std::sync::atomic::AtomicU64,
    /// When the last checkpoint was published, in ms since 1970; at first, when the log started.
    signed_ms: std::sync::atomic::AtomicU64,
    /// The verifier keys. Written at start.
    keys: RwLock<Vec<String>>,
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

/// A signed tree.
pub struct Signed {
    /// How many leaves it has.
    pub size: u64,
    /// Its root.
    pub root: Hash,
    /// The checkpoint, a signed note.
    pub note: Vec<u8>,
    /// The events before them are its leaves.
    pub next: Vec<Position>,
    edge: Edge,
    rows: LogRows,
}

/// That an event is in a signed tree.
pub struct Proof {
    /// Which leaf it is.
    pub leaf: u64,
    /// The leaf's hash.
    pub leaf_hash: Hash,
    /// The way up, from the leaf's sibling on.
    pub siblings: Vec<Hash>,
}

impl Signed {
    /// The tree that a checkpoint signed, in a ledger that is only read. What was committed since is left out.
    ///
    /// # Errors
    /// When the database cannot be read, or is not the one that was signed.
    pub fn of(rows: LogRows, head: &Head, note: Vec<u8>) -> Result<Signed, StoreError> {
        let size = rows.progress()?.map_or(0, |progress| progress.size);
        if size < head.size {
            let signed = head.size;
            return Err(rows.store().damaged(format!("its log has {size} events, and {signed} were signed")));
        }
        let (edge, next) = (rows.edge(head.size)?, rows.next_at(head.size)?);
        if edge.root() != head.root {
            return Err(rows.store().damaged(format!("its first {} events are not those that were signed", head.size)));
        }
        Ok(Signed { size: head.size, root: head.root, note, next, edge, rows })
    }

    /// The database that it is in.
    pub fn store(&self) -> &Arc<Store> {
        self.rows.store()
    }

    fn hashes(&self) -> Hashes<'_, LogRows> {
        Hashes { tiles: &self.rows, edge: &self.edge }
    }

    /// Whether the event at `place` is a leaf of the tree.
    pub fn covers(&self, place: Place) -> bool {
        self.next.get(usize::from(place.shard.0)).is_some_and(|next| place.position < *next)
    }

    /// Proves that the event at `place` is in the tree.
    ///
    /// # Errors
    /// When it is not, or the database cannot be read.
    pub fn prove(&self, place: Place) -> Result<Proof, StoreError> {
        let leaf = self.rows.leaf_of(place)?;
        let damaged = |error: Error| self.rows.store().damaged(format!("the log cannot be read: {error}"));
        let siblings = prove_record(self.size, leaf, &self.hashes()).map_err(damaged)?;
        let leaf_hash = leaf::hash(self.rows.event_of(leaf)?.as_ref());
        Ok(Proof { leaf, leaf_hash, siblings })
    }

    /// Proves that the tree of size `to` begins with the tree of size `from`: 1 <= from <= to <= size.
    ///
    /// # Errors
    /// When the sizes are others, or the database cannot be read.
    pub fn prove_extension(&self, from: u64, to: u64) -> Result<Vec<Hash>, Error> {
        if to > self.size {
            return Err(Error::InvalidInput(format!("{to} is more than the {} leaves that are signed", self.size)));
        }
        prove_tree(to, from, &self.hashes())
    }

    /// The first `count` hashes of a tile.
    ///
    /// # Errors
    /// When the tree has not so many, or they cannot be read.
    pub fn tile(&self, level: u8, index: u64, count: usize) -> Result<Vec<u8>, Error> {
        self.hashes().tile(level, index, count)
    }

    /// The data of the first `count` leaves of a bundle of 256, each with its length u16 in front (C2SP tlog-tiles).
    ///
    /// # Errors
    /// When the tree has not so many, or they cannot be read.
    pub fn entries(&self, index: u64, count: usize) -> Result<Vec<u8>, Error> {
        let first = index.checked_mul(tree::WIDTH as u64).ok_or(Error::IndexesNotInTree)?;
        let end = first.checked_add(count as u64).filter(|&end| end <= self.size).ok_or(Error::IndexesNotInTree)?;
        let mut bundle = Vec::with_capacity(count * 192);
        for leaf in first..end {
            let record = self.rows.event_of(leaf).map_err(|error| Error::InvalidInput(error.to_string()))?;
            let data = leaf::data(record.as_ref());
            // An agent's id has 256 bytes at most, so the length fits.
            bundle.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bundle.extend_from_slice(&data);
        }
        Ok(bundle)
    }
}

impl Shared {
    fn publish(&self, state: State) {
        if matches!(state, State::Signed(_)) {
            self.signed_ms.store(now_ms(), std::sync::atomic::Ordering::Relaxed);
        }
        self.state.send_replace(state);
    }

    fn is_signed(&self) -> bool {
        matches!(*self.state.borrow(), State::Signed(_))
    }

    fn sequenced(&self, size: u64) {
        self.size.store(size, std::sync::atomic::Ordering::Relaxed);
    }

    fn set_keys(&self, keys: &[String]) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys.to_vec();
    }

    fn keys(&self) -> Vec<String> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The log's thread, for who started it.
pub struct LogThread {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl LogThread {
    /// Ends the thread; what is committed is signed before. Blocks.
    pub fn stop(self) {
        drop(self.stop);
        // A panic was told when it happened.
        let _ = self.thread.join();
    }
}

/// The name of a ledger's log.
///
/// # Errors
/// When the database cannot be read.
pub fn origin(config: &LogConfig, rows: &LogRows, instance: uuid::Uuid) -> Result<String, StoreError> {
    let kept = rows.origin()?;
    Ok(config.origin.clone().or(kept).unwrap_or_else(|| format!("cairn/{instance}")))
}

impl Log {
    /// Starts the log's thread. Metrics register with the recorder that is in force.
    ///
    /// # Errors
    /// When the database cannot be read, or the thread cannot be made.
    pub fn start(
        config: &LogConfig,
        data_dir: &Path,
        ledger: Arc<Ledger>,
    ) -> Result<(Arc<Log>, LogThread), StoreError> {
        let rows = LogRows::new(Arc::clone(ledger.store()));
        let origin = origin(config, &rows, ledger.instance())?;
        let size = rows.progress()?.map_or(0, |progress| progress.size);
        let shared = Arc::new(Shared {
            origin,
            state: watch::Sender::new(State::Starting),
            size: size.into(),
            signed_ms: now_ms().into(),
            keys: RwLock::default(),
        });
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let outside = Outside {
            rows,
            committed: Arc::clone(ledger.committed()),
            woken: ledger.committed().subscribe(),
            stop: stopped,
            shared: Arc::clone(&shared),
            config: config.clone(),
            key_path: config.key_path(data_dir),
            checkpoint_path: config.checkpoint_path(data_dir),
        };
        let thread = std::thread::Builder::new().name("cairn-log".to_owned()).spawn(move || live(&outside));
        let failed = |source| StoreError::Directory { path: data_dir.to_owned(), source };
        describe_gauge!("cairn_log_size", "Events that are leaves of the log.");
        describe_gauge!("cairn_log_signed_size", "Events under the last signed checkpoint.");
        describe_gauge!(
            "cairn_log_checkpoint_timestamp_seconds",
            Unit::Seconds,
            "When the last checkpoint was signed; now, if there is nothing that it does not cover."
        );
        describe_gauge!(
            "cairn_log_rollback",
            "1 while nothing can be signed, because the database is not the one that was signed, or its keys are gone."
        );
        let log = Log {
            shared,
            ledger,
            size: gauge!("cairn_log_size"),
            signed_size: gauge!("cairn_log_signed_size"),
            signed_at: gauge!("cairn_log_checkpoint_timestamp_seconds"),
            rollback: gauge!("cairn_log_rollback"),
            lag: gauge!("cairn_consumer_lag_events", "consumer" => "log"),
        };
        Ok((Arc::new(log), LogThread { thread: thread.map_err(failed)?, stop }))
    }

    /// How the log is.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Tells when the log changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The verifier keys, as auditors need them.
    pub fn verifier_keys(&self) -> Vec<String> {
        self.shared.keys()
    }

    /// Measures what is measured when somebody looks.
    pub fn observe(&self) {
        let size = self.shared.size.load(std::sync::atomic::Ordering::Relaxed);
        self.size.set(size as f64);
        let events = self.ledger.committed().events();
        self.lag.set(events.saturating_sub(size) as f64);
        match self.state() {
            State::Starting => {}
            State::Signed(signed) => {
                self.signed_size.set(signed.size as f64);
                self.rollback.set(0.0);
                if signed.size >= events {
                    // Kept, so that what comes next is as old as it is.
                    self.shared.signed_ms.fetch_max(now_ms(), std::sync::atomic::Ordering::Relaxed);
                }
            }
            State::Stopped(_) => self.rollback.set(1.0),
        }
        let signed_ms = self.shared.signed_ms.load(std::sync::atomic::Ordering::Relaxed);
        self.signed_at.set(signed_ms as f64 / 1000.0);
    }

    /// Writes the last checkpoint to the process's log, where others keep it.
    pub fn announce(&self) {
        match self.state() {
            State::Signed(signed) => {
                let checkpoint = String::from_utf8_lossy(&signed.note);
                let keys = self.verifier_keys().join(" ");
                tracing::info!(size = signed.size, %checkpoint, verifier_keys = keys, "the log's checkpoint");
            }
            State::Stopped(reason) => tracing::error!(%reason, "nothing is signed"),
            State::Starting => {}
        }
    }
}

/// The life of the log's thread. Time mends some of what goes wrong; the rest is told, and nothing is signed.
fn live(outside: &Outside) {
    loop {
        let run = || Sequencer::open(outside).and_then(|mut sequencer| sequencer.run());
        let error = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) if !error.may_pass() => {
                tracing::error!(%error, "nothing is signed");
                outside.shared.publish(State::Stopped(error.to_string().into()));
                // A restart of the process looks again.
                let _ = outside.stop.recv();
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked, which is a bug".to_owned(),
        };
        tracing::error!(error, "the log stopped; it starts again");
        if outside.stop.recv_timeout(RESTART) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
