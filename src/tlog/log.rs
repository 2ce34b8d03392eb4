//! The transparency log of a running ledger, and its thread.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use metrics::{Gauge, Unit, describe_gauge, gauge};
use tokio::sync::watch;

use super::config::LogConfig;
use super::rows::LogRows;
use super::sequencer::{DEBOUNCE, LogContext, LogError, Sequencer};
use super::state::{Shared, State};
use crate::ledger::Ledger;
use crate::ledger::format::keys::Position;
use crate::ledger::read::follower::{Cursor, Follower, LagGauge};
use crate::ledger::store::StoreError;
use crate::runtime::{FOR_COLLECTOR, now_ms, supervise};

/// How long to wait before the thread is restarted after a failure.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The transparency log of a running ledger.
pub struct Log {
    shared: Arc<Shared>,
    ledger: Arc<Ledger>,
    size: Gauge,
    signed_size: Gauge,
    signed_at: Gauge,
    rollback: Gauge,
    lag: LagGauge,
    /// The number of events that retention had dropped before the log began.
    base: u64,
}

/// The thread of the log. Its owner stops it.
pub struct LogThread {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl LogThread {
    /// Stops the thread after it has signed all committed events. Blocks until the thread has ended.
    pub fn stop(self) {
        drop(self.stop);
        // A panic was already reported by `supervise`.
        let _ = self.thread.join();
    }
}

/// The origin of a ledger's log: `log.origin`, or the stored one, or `cairn/` and the instance.
///
/// # Errors
/// When the database cannot be read.
pub fn origin(config: &LogConfig, rows: &LogRows, instance: uuid::Uuid) -> Result<String, StoreError> {
    let stored = rows.origin()?;
    Ok(config.origin.clone().or(stored).unwrap_or_else(|| format!("cairn/{instance}")))
}

impl Log {
    /// Starts the thread of the log. Registers metrics with the current recorder.
    ///
    /// # Errors
    /// When the database cannot be read, or the thread cannot be started.
    pub fn start(
        config: &LogConfig,
        data_dir: &Path,
        ledger: Arc<Ledger>,
    ) -> Result<(Arc<Log>, LogThread), StoreError> {
        let rows = LogRows::new(Arc::clone(ledger.store()));
        let origin = origin(config, &rows, ledger.instance())?;
        let size = rows.progress()?.map_or(0, |progress| progress.size);
        let base = rows.base()?.iter().map(|first| first.0).sum();
        let shared = Arc::new(Shared {
            origin,
            state: watch::Sender::new(State::Starting),
            size: size.into(),
            signed_ms: now_ms().into(),
            keys: RwLock::default(),
        });
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let committed = ledger.committed();
        let cursor = Cursor::new(committed.shards().map(|_| Position(0)));
        let context = LogContext {
            follower: Follower::new(committed, Arc::new(cursor), DEBOUNCE),
            rows,
            stop: stopped.clone(),
            shared: Arc::clone(&shared),
            config: config.clone(),
            key_path: config.key_path(data_dir),
            checkpoint_path: config.checkpoint_path(data_dir),
        };
        let wait = move |pause| stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
        let thread = supervise("cairn-log".to_owned(), RESTART_DELAY, move || run(&context), wait);
        let failed = |source| StoreError::Directory { path: data_dir.to_owned(), source };
        describe_gauge!("cairn_log_size", "Events that are leaves of the log, signed or not.");
        describe_gauge!("cairn_log_signed_size", "Leaves under the last signed checkpoint.");
        describe_gauge!(
            "cairn_log_checkpoint_timestamp_seconds",
            Unit::Seconds,
            "When the last checkpoint was signed; the present time, if it covers everything that is committed."
        );
        describe_gauge!(
            "cairn_log_rollback",
            "1 while nothing can be signed, because the database is not the one that was signed last, or key or \
             checkpoint are missing; otherwise 0."
        );
        let log = Log {
            shared,
            ledger,
            size: gauge!("cairn_log_size"),
            signed_size: gauge!("cairn_log_signed_size"),
            signed_at: gauge!("cairn_log_checkpoint_timestamp_seconds"),
            rollback: gauge!("cairn_log_rollback"),
            lag: LagGauge::register("log"),
            base,
        };
        Ok((Arc::new(log), LogThread { thread: thread.map_err(failed)?, stop }))
    }

    /// The current state.
    pub fn state(&self) -> State {
        self.shared.state.borrow().clone()
    }

    /// Subscribes to changes of the state.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }

    /// The verifier keys, which auditors need.
    pub fn verifier_keys(&self) -> Vec<String> {
        self.shared.keys()
    }

    /// Whether events have been unsigned for longer than `time`. Each call while all are signed counts as a time at which they were.
    pub fn is_unsigned_for(&self, time: Duration) -> bool {
        if matches!(self.state(), State::Signed(signed) if self.ledger.committed().lag(&signed.next) == 0) {
            self.shared.signed_ms.fetch_max(now_ms(), Ordering::Relaxed);
            return false;
        }
        let signed_ms = self.shared.signed_ms.load(Ordering::Relaxed);
        u128::from(now_ms().saturating_sub(signed_ms)) > time.as_millis()
    }

    /// Sets the gauges of the log.
    pub fn observe(&self) {
        let size = self.shared.size.load(Ordering::Relaxed);
        self.size.set(size as f64);
        let events = self.ledger.committed().events();
        self.lag.set(events.saturating_sub(self.base + size));
        match self.state() {
            State::Starting => {}
            State::Signed(signed) => {
                self.signed_size.set(signed.size as f64);
                self.rollback.set(0.0);
                // The gauge shows the last time at which everything was signed once there is an unsigned event.
                self.is_unsigned_for(Duration::MAX);
            }
            State::Stopped(_) => self.rollback.set(1.0),
        }
        let signed_ms = self.shared.signed_ms.load(Ordering::Relaxed);
        self.signed_at.set(signed_ms as f64 / 1000.0);
    }

    /// Writes the last checkpoint to the process log, so that it is preserved outside the machine.
    pub fn announce(&self) {
        match self.state() {
            State::Signed(signed) => {
                let checkpoint = String::from_utf8_lossy(&signed.note);
                let keys = self.verifier_keys().join(" ");
                tracing::info!(
                    name: FOR_COLLECTOR, size = signed.size, %checkpoint, verifier_keys = keys, "the log's checkpoint"
                );
            }
            State::Stopped(reason) => tracing::error!(%reason, "checkpoints are not signed"),
            State::Starting => {}
        }
    }
}

/// Runs the log until it is stopped. An error that only an operator can resolve is published, and nothing is signed
/// until the process is restarted. After any other error, the thread is restarted.
fn run(context: &LogContext) -> Result<(), LogError> {
    match Sequencer::open(context).and_then(|mut sequencer| sequencer.run()) {
        Err(error) if !error.is_transient() => {
            tracing::error!(%error, "checkpoints are no longer signed; events are still accepted");
            context.shared.publish(State::Stopped(error.to_string().into()));
            wait_for_stop(&context.stop);
            Ok(())
        }
        result => result,
    }
}

fn wait_for_stop(stop: &Receiver<()>) {
    // The sender is dropped to stop the thread; it never sends a message.
    let _ = stop.recv();
}
