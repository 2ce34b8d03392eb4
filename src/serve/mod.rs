//! The composition root: builds the stages in the order of the data's way, runs them, changes what can be changed while
//! they run ([`reload`]), and shuts them down in order.

mod reload;
mod routes;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use futures_util::future::{OptionFuture, join_all};
use tokio::sync::{mpsc, watch};

use crate::access::{Guard, KeyError, Keys};
use crate::admin::{self, Admin, Metrics};
use crate::audit::Audit;
use crate::chain::DefaultLabels;
use crate::config::Config;
use crate::http::{self, Address, ConnectionLimits, Inflight, Listener, Tls, TlsError};
use crate::ingest::{Ingest, IngestShortcut};
use crate::ledger::commit::Commit;
use crate::ledger::store::{Store, StoreError};
use crate::ledger::{Clock, Ledger, OnFailure, Outside, Threads};
use crate::relay::{Relay, RelayError};
use crate::tlog::{Log, LogThread, State};
use reload::Parts;
pub use reload::{Changed, Live};

/// How often histograms are tidied up.
const UPKEEP: Duration = Duration::from_secs(5);

/// How long answers may take to be sent when a part of the server cannot go on.
const FAILURE_GRACE: Duration = Duration::from_secs(1);

/// How long an operator's last look may take at the end.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// Why the server did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be bound.
    #[error("{key}: {address} cannot be bound: {source}")]
    Bind {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The relay cannot start.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// A part of the server cannot go on.
    #[error("{0}; the process ends, and its next start recovers")]
    Failed(String),
    /// The data directory is not there any more.
    #[error("{0}; the process ends: restore it before the next start, which would begin a new ledger")]
    Gone(String),
}

/// A server that is ready to take events.
pub struct Server {
    ledger: Arc<Ledger>,
    threads: Threads,
    relay: Arc<Relay>,
    log: Arc<Log>,
    log_thread: LogThread,
    announce_interval: Duration,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    listeners: Vec<Listener>,
    admin_listener: Listener,
    otlp_listener: Option<Listener>,
    shortcut: IngestShortcut,
    routes: Router,
    otlp_routes: Router,
    failed: mpsc::UnboundedReceiver<String>,
    limits: Arc<ConnectionLimits>,
    admin_limits: Arc<ConnectionLimits>,
    live: Arc<Live>,
    grace: Duration,
}

impl Server {
    /// Recovers the ledger and binds the addresses. `commit` says how batches are put on disk: by the store, but for
    /// tests that make it fail; `clock` is the system's, but for tests that turn it back.
    ///
    /// # Errors
    /// When something of the configuration cannot be used, or the ledger is broken.
    pub async fn start(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
        clock: Clock,
    ) -> Result<Server, ServeError> {
        // Before they are read: a change in between is not missed.
        let files = reload::contents(config);
        let tls = Tls::load(&config.tls)?;
        let bind = async |key, address: &Address| {
            let bound = Listener::bind(address, config.socket_mode, tls.as_ref()).await;
            bound.map_err(|source| ServeError::Bind { key, address: address.clone(), source })
        };
        let mut listeners = Vec::new();
        for address in &config.listen.0 {
            listeners.push(bind("listen", address).await?);
        }
        let address = Address::Tcp(config.admin.listen);
        let bound = Listener::bind(&address, config.socket_mode, None).await;
        let admin_listener = bound.map_err(|source| ServeError::Bind { key: "admin.listen", address, source })?;
        let otlp_listener = match config.ingest.otlp.listen.as_ref().filter(|_| config.ingest.otlp.enabled) {
            Some(address) => Some(bind("ingest.otlp.listen", address).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new()?);
        let keys = Keys::load(&config.auth)?;
        let guard = metrics.scope(|| Guard::new(keys));
        let (fail, failed) = mpsc::unbounded_channel();
        let on_failure: OnFailure = Arc::new(move |reason| {
            // Nobody listens any more when the server is gone already.
            let _ = fail.send(reason);
        });
        let (ledger, threads) = metrics.scope(|| {
            let store = Arc::new(Store::open(&config.storage)?);
            let labels = DefaultLabels::new(&config.ingest.default_labels);
            let outside = Outside { commit: commit(Arc::clone(&store)), clock, on_failure, labels };
            Ledger::start(store, outside, config.shards, &config.storage, &config.queue)
        })?;
        let ledger = Arc::new(ledger);
        let inflight = Inflight::new(config.limits.inflight_bytes.as_u64());
        let ingest = metrics.scope(|| {
            let (ledger, inflight) = (Arc::clone(&ledger), inflight.clone());
            Ingest::new(ledger, config.ingest.clone(), config.limits, &config.queue, inflight)
        });
        let relay = metrics.scope(|| Relay::start(&config.relay, Arc::clone(&ledger)))?;
        let (log, log_thread) =
            metrics.scope(|| Log::start(&config.log.tree(), &config.storage.data_dir, Arc::clone(&ledger)))?;
        let audit = metrics.scope(|| Audit::new(Arc::clone(&ledger), Arc::clone(&log), inflight.clone()));
        let limits = ConnectionLimits::new(reload::timeouts(&config.limits), config.limits.connections);
        let admin_limits = ConnectionLimits::new(reload::timeouts(&config.limits), config.limits.connections);
        let taking = listeners.iter().chain(&otlp_listener).filter_map(|listener| listener.address().ok()).collect();
        let live = Arc::new(Live::new(
            config,
            files,
            taking,
            Parts {
                guard: Arc::clone(&guard),
                tls,
                ingest: Arc::clone(&ingest),
                connections: [Arc::clone(&limits), Arc::clone(&admin_limits)],
                relay: Arc::clone(&relay),
                ledger: Arc::clone(&ledger),
                metrics: Arc::clone(&metrics),
            },
        ));
        Ok(Server {
            admin: Admin::new(
                Arc::clone(&ledger),
                Arc::clone(&relay),
                Arc::clone(&log),
                Arc::clone(&metrics),
                (inflight, Arc::clone(&limits)),
            ),
            ledger,
            threads,
            log,
            log_thread,
            announce_interval: config.log.announce_interval,
            metrics,
            listeners,
            admin_listener,
            otlp_listener,
            otlp_routes: routes::with_fallbacks(routes::otlp(Arc::clone(&ingest), &guard)),
            routes: routes::public(Arc::clone(&ingest), Arc::clone(&relay), audit, &guard),
            relay,
            shortcut: IngestShortcut::new(ingest, guard),
            failed,
            limits,
            admin_limits,
            live,
            grace: config.shutdown.grace,
        })
    }

    /// Where events are taken.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn addresses(&self) -> io::Result<Vec<Address>> {
        self.listeners.iter().map(Listener::address).collect()
    }

    /// Whether those of the network speak TLS.
    pub fn is_tls(&self) -> bool {
        self.listeners.iter().any(Listener::is_tls)
    }

    /// Where operators look.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn admin_address(&self) -> io::Result<Address> {
        self.admin_listener.address()
    }

    /// Where OpenTelemetry's exporters have an address of their own, if they do.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn otlp_address(&self) -> io::Result<Option<Address>> {
        self.otlp_listener.as_ref().map(Listener::address).transpose()
    }

    /// What can be changed while it runs.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Serves until `shutdown` comes, then answers what is in flight, commits, and closes.
    ///
    /// # Errors
    /// When a part of the server cannot go on.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), ServeError> {
        let (stop, stopping) = watch::channel(false);
        let (stop_admin, admin_stopping) = watch::channel(false);
        let public = self.listeners.into_iter().map(|listener| {
            let routes = (self.shortcut.clone(), self.routes.clone());
            http::serve(listener, routes, Arc::clone(&self.limits), stopping.clone())
        });
        let (public, limits) = (join_all(public.collect::<Vec<_>>()), Arc::clone(&self.limits));
        let mut public = tokio::spawn(async move {
            let otlp = self.otlp_listener.map(|it| http::serve(it, ((), self.otlp_routes), limits, stopping));
            tokio::join!(public, OptionFuture::from(otlp))
        });
        let admin_routes = routes::with_fallbacks(admin::routes(Arc::clone(&self.admin)));
        let admin_port = http::serve(self.admin_listener, ((), admin_routes), self.admin_limits, admin_stopping);
        let mut admin = tokio::spawn(admin_port);
        let watching = tokio::spawn(self.live.watch_files());
        let upkeep = tokio::spawn(keep_up(self.metrics));
        let log = Arc::clone(&self.log);
        let announcing = tokio::spawn(announce(self.log, self.announce_interval));
        let failure = tokio::select! {
            () = shutdown => None,
            reason = self.failed.recv() => reason,
        };
        self.admin.drain();
        stop.send_replace(true);
        // After a failure there is nothing to wait for but the answers that say so.
        let grace = if failure.is_some() { FAILURE_GRACE } else { self.grace };
        let deadline = tokio::time::Instant::now() + grace;
        // Relay and senders share the time; the relay keeps nothing from being answered.
        let (relay, is_committed) = (self.relay, Arc::new(AtomicBool::new(false)));
        let (has_all, is_failing, relayed) = (Arc::clone(&is_committed), failure.is_some(), Arc::clone(&relay));
        let relay = tokio::task::spawn_blocking(move || {
            if !is_failing {
                relay.finish(deadline.into_std(), &has_all);
            }
            relay.stop(deadline.into_std());
        });
        if tokio::time::timeout_at(deadline, &mut public).await.is_err() {
            tracing::warn!(?grace, "some requests were not answered in time");
            public.abort();
        }
        announcing.abort();
        watching.abort();
        // They hold the ledger.
        let _ = tokio::join!(announcing, watching);
        if let Some(reason) = failure.as_ref().filter(|_| self.ledger.is_gone()) {
            // Closing the database would make its directory anew, with what was in memory alone. So nothing of it ends
            // but with the process.
            std::mem::forget((self.ledger, self.threads, self.log_thread));
            return Err(ServeError::Gone(reason.clone()));
        }
        let (ledger, threads, log_thread) = (self.ledger, self.threads, self.log_thread);
        let closed = async {
            let committing = Arc::clone(&ledger);
            let committed = tokio::task::spawn_blocking(move || {
                committing.close();
                threads.join();
                is_committed.store(true, Ordering::Release);
                // Behind the last commit: a clean end leaves nothing unsigned, and tells it. The disk may go now.
                log_thread.stop();
                log.announce();
            });
            // Who still writes needs a database that works.
            let _ = tokio::join!(committed, relay);
            relayed.tell_unsent();
            tokio::task::spawn_blocking(move || ledger.store().stop_background_work()).await
        };
        if tokio::time::timeout_at(deadline + Duration::from_secs(1), closed).await.is_err() {
            tracing::warn!("the ledger was not closed within shutdown.grace; the next start recovers");
        }
        stop_admin.send_replace(true);
        if tokio::time::timeout(ADMIN_GRACE, &mut admin).await.is_err() {
            admin.abort();
        }
        upkeep.abort();
        match failure.or(self.failed.try_recv().ok()) {
            Some(reason) => Err(ServeError::Failed(reason)),
            None => Ok(()),
        }
    }
}

async fn keep_up(metrics: Arc<Metrics>) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        metrics.upkeep();
    }
}

/// Writes the log's checkpoint to the process's log: soon after the start, then now and then.
async fn announce(log: Arc<Log>, interval: Duration) {
    let mut state = log.watch();
    // It ends with the server.
    let _ = state.wait_for(|state| !matches!(state, State::Starting)).await;
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        log.announce();
    }
}
