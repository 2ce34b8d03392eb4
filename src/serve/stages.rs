//! The stages of a server, started in the order of the data flow.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_proof::chain::DefaultLabels;
use cairn_proof::evidence::recorder::action;
use tokio::sync::mpsc;

use super::error::ServeError;
use super::recorded;
use crate::audit::{Accepted, Audit, Dropper, Eraser, EraserThread, RelayErasure};
use crate::auth::{Guard, Keys};
use crate::config::Config;
use crate::http::{Address, Readers};
use crate::ingest::Ingest;
use crate::ledger::shard::commit::Commit;
use crate::ledger::shard::thread::OnClockStep;
use crate::ledger::store::Store;
use crate::ledger::store::directory::require_ledger_or_empty;
use crate::ledger::{Ledger, LedgerHooks, RetentionConsumer, Threads};
use crate::recorder::{self, Notes, Recorder, Watch};
use crate::relay::Relay;
use crate::runtime::{Clock, OnFailure};
use crate::tlog::{Log, LogThread};

/// Every stage of a running server.
pub struct Stages {
    /// Authentication.
    pub guard: Arc<Guard>,
    /// Reads of the ledger, and the memory of responses.
    pub readers: Arc<Readers>,
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The threads of the ledger.
    pub threads: Threads,
    /// Reports to the recorder.
    pub notes: Notes,
    /// What the recorder watches, with the input of its first event, until the server runs; `None` if it is off.
    pub watch: Option<(Watch, serde_json::Value)>,
    /// Ingestion.
    pub ingest: Arc<Ingest>,
    /// The relay.
    pub relay: Arc<Relay>,
    /// The transparency log.
    pub log: Arc<Log>,
    /// The thread of the log.
    pub log_thread: LogThread,
    /// Query, verify, export and erase.
    pub audit: Arc<Audit>,
    /// The thread that carries out erasures.
    pub eraser: EraserThread,
    /// Drops events by age and size, once it runs.
    pub dropper: Option<Dropper>,
    /// Receives the reason when a thread fails.
    pub failed: mpsc::UnboundedReceiver<String>,
}

impl Stages {
    /// Recovers the ledger and starts the stages on it. Metrics register with the current recorder.
    ///
    /// # Errors
    /// When a setting cannot be applied, or the ledger cannot be opened or recovered.
    pub fn start(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
        clock: Clock,
    ) -> Result<Stages, ServeError> {
        let guard = Guard::new(Keys::load(&config.auth)?);
        let readers = Readers::new(config.limits.response_bytes.as_u64(), config.limits.read_timeout);
        let (on_failure, failed) = failure_channel();
        require_ledger_or_empty(&config.storage.data_dir, &own_files(config))?;
        let store = Arc::new(Store::open(&config.storage)?);
        let labels = DefaultLabels::new(&config.ingest.default_labels);
        let (notes, noted) = recorder::notes();
        let commit = commit(Arc::clone(&store));
        let on_clock_step = report_clock_steps(&notes);
        let hooks = LedgerHooks { commit, clock, on_failure, on_clock_step, labels, config: config.ledger };
        let (ledger, threads) = Ledger::start(store, hooks, config.shards, &config.storage, &config.queue)?;
        let ledger = Arc::new(ledger);
        let ingest =
            Ingest::new(Arc::clone(&ledger), config.ingest.clone(), &config.redaction, config.limits, &config.queue)?;
        let relay = Relay::start(&config.relay, Arc::clone(&ledger), Arc::clone(&readers))?;
        let (log, log_thread) = Log::start(&config.log.tree(), &config.storage.data_dir, Arc::clone(&ledger))?;
        let recorder = Arc::new(Recorder::new(Arc::clone(&ledger)));
        let (sessions, letters) = (Arc::clone(&relay), Arc::clone(&relay));
        let of_relay = RelayErasure {
            forget_sessions: Box::new(move |locations| sessions.forget_sessions(locations)),
            drop_letters: Box::new(move || letters.drop_letters_of_erased()),
        };
        let (carry_out, eraser) = Eraser::start(Arc::clone(&recorder), config.storage.compression, of_relay)?;
        let audit = Audit::new(Arc::clone(&ledger), Arc::clone(&log), Arc::clone(&readers), carry_out);
        let start = recorded::start(config, guard.fingerprints(), recorder.was_stopped()?);
        let refusals = Arc::clone(ingest.refusals());
        let watch = Watch {
            recorder,
            heartbeat: config.recorder.heartbeat,
            notes: noted,
            refusals: Box::new(move || refusals.take()),
            log: Arc::clone(&log),
        };
        let watch = config.recorder.enabled.then_some((watch, start));
        let dropper = Dropper::new(Arc::clone(&audit), config.retention.events, relayed(config, &relay));
        Ok(Stages {
            guard,
            readers,
            ledger,
            threads,
            notes,
            watch,
            ingest,
            relay,
            log,
            log_thread,
            audit,
            eraser,
            dropper: Some(dropper),
            failed,
        })
    }
}

/// The files of the configuration, which may be in the data directory.
fn own_files(config: &Config) -> Vec<PathBuf> {
    let (log, data_dir) = (config.log.tree(), &config.storage.data_dir);
    let log = [log.key_path(data_dir), log.checkpoint_path(data_dir)];
    let sockets = config.listen.0.iter().chain(&config.ingest.otlp.listen).filter_map(Address::unix);
    log.into_iter().chain(sockets.chain(config.secret_files()).map(Path::to_owned)).collect()
}

/// How far the relay is, if retention waits for it.
fn relayed(config: &Config, relay: &Arc<Relay>) -> Option<Accepted> {
    let relay = Arc::clone(relay);
    let waits = config.retention.after.contains(&RetentionConsumer::Relay);
    waits.then(|| Arc::new(move || relay.accepted()) as Accepted)
}

/// The callback with which shards report steps of the clock.
fn report_clock_steps(notes: &Notes) -> OnClockStep {
    let notes = notes.clone();
    Arc::new(move |shard, step| notes.add(action::CLOCK_STEP, recorded::clock_step(shard, step)))
}

/// The callback with which threads report that they failed, and the receiver of their reports.
fn failure_channel() -> (OnFailure, mpsc::UnboundedReceiver<String>) {
    let (fail, failed) = mpsc::unbounded_channel();
    let on_failure: OnFailure = Arc::new(move |reason| {
        // Without a receiver the server has already stopped.
        let _ = fail.send(reason);
    });
    (on_failure, failed)
}
