//! The composition root: builds the stages in the order of the data's way, runs them, and shuts them down in order.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::admin::{self, Admin, Metrics};
use crate::audit::{self, Audit};
use crate::config::Config;
use crate::http::{self, Inflight, Problem, Timeouts};
use crate::ingest::{self, Ingest, IngestShortcut, Keys};
use crate::ledger::commit::Commit;
use crate::ledger::store::{Store, StoreError};
use crate::ledger::{Clock, Ledger, OnFailure, Outside, Threads};
use crate::relay::{self, Relay, RelayError, RelayThreads};
use crate::tlog::{Log, LogThread, State};

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
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The keys cannot be read.
    #[error("auth.api_keys_file: {0}")]
    Keys(io::Error),
    /// The relay cannot start.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// A part of the server cannot go on.
    #[error("{0}; the process ends, and its next start recovers")]
    Failed(String),
}

/// A server that is ready to take events.
pub struct Server {
    ledger: Arc<Ledger>,
    threads: Threads,
    relay_threads: RelayThreads,
    log: Arc<Log>,
    log_thread: LogThread,
    announce_interval: Duration,
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    listener: TcpListener,
    admin_listener: TcpListener,
    otlp_listener: Option<TcpListener>,
    shortcut: IngestShortcut,
    routes: Router,
    otlp_routes: Router,
    failed: mpsc::UnboundedReceiver<String>,
    timeouts: Timeouts,
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
        let listener = bind("listen", config.listen).await?;
        let admin_listener = bind("admin.listen", config.admin.listen).await?;
        let otlp_listener = match config.ingest.otlp.listen.filter(|_| config.ingest.otlp.enabled) {
            Some(address) => Some(bind("ingest.otlp.listen", address).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new()?);
        let keys = metrics.scope(|| Keys::load(&config.auth)).map_err(ServeError::Keys)?;
        let (fail, failed) = mpsc::unbounded_channel();
        let on_failure: OnFailure = Arc::new(move |reason| {
            // Nobody listens any more when the server is gone already.
            let _ = fail.send(reason);
        });
        let (ledger, threads) = metrics.scope(|| {
            let store = Arc::new(Store::open(&config.storage)?);
            let outside = Outside { commit: commit(Arc::clone(&store)), clock, on_failure };
            Ledger::start(store, outside, config.shards, &config.storage, &config.queue)
        })?;
        let ledger = Arc::new(ledger);
        let inflight = Inflight::new(config.limits.inflight_bytes.as_u64());
        let ingest = metrics.scope(|| {
            let (ledger, inflight) = (Arc::clone(&ledger), inflight.clone());
            Ingest::new(ledger, config.ingest.clone(), config.limits.clone(), &config.queue, inflight)
        });
        let (relay, relay_threads) = metrics.scope(|| Relay::start(&config.relay, Arc::clone(&ledger)))?;
        let (log, log_thread) =
            metrics.scope(|| Log::start(&config.log.tree(), &config.storage.data_dir, Arc::clone(&ledger)))?;
        let audit = Audit::new(Arc::clone(&ledger), Arc::clone(&log), inflight.clone());
        Ok(Server {
            admin: Admin::new(
                Arc::clone(&ledger),
                Arc::clone(&relay),
                Arc::clone(&log),
                Arc::clone(&metrics),
                inflight,
            ),
            ledger,
            threads,
            relay_threads,
            log,
            log_thread,
            announce_interval: config.log.announce_interval,
            metrics,
            listener,
            admin_listener,
            otlp_listener,
            otlp_routes: json_fallbacks(otlp_routes(Arc::clone(&ingest), keys.as_ref())),
            routes: public_routes(Arc::clone(&ingest), relay, audit, keys.as_ref()),
            shortcut: IngestShortcut::new(ingest, keys),
            failed,
            timeouts: Timeouts {
                header: config.limits.header_timeout,
                body: config.limits.body_timeout,
                idle: config.limits.idle_timeout,
            },
            grace: config.shutdown.grace,
        })
    }

    /// Where events are taken.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Where operators look.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin_listener.local_addr()
    }

    /// Where OpenTelemetry's exporters have an address of their own, if they do.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn otlp_address(&self) -> io::Result<Option<SocketAddr>> {
        self.otlp_listener.as_ref().map(TcpListener::local_addr).transpose()
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
        let public = http::serve(self.listener, (self.shortcut, self.routes), self.timeouts, stopping.clone());
        let otlp = self.otlp_listener.map(|it| http::serve(it, ((), self.otlp_routes), self.timeouts, stopping));
        let mut public = tokio::spawn(async move { tokio::join!(public, OptionFuture::from(otlp)) });
        let admin_routes = json_fallbacks(admin::routes(Arc::clone(&self.admin)));
        let admin_port = http::serve(self.admin_listener, ((), admin_routes), self.timeouts, admin_stopping);
        let mut admin = tokio::spawn(admin_port);
        let upkeep = tokio::spawn(keep_up(self.metrics));
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
        let relay_threads = self.relay_threads;
        let relay = tokio::task::spawn_blocking(move || relay_threads.stop(deadline.into_std()));
        if tokio::time::timeout_at(deadline, &mut public).await.is_err() {
            tracing::warn!(?grace, "some requests were not answered in time");
            public.abort();
        }
        announcing.abort();
        // It holds the ledger.
        let _ = announcing.await;
        let (ledger, threads, log_thread) = (self.ledger, self.threads, self.log_thread);
        let closed = async {
            let committing = Arc::clone(&ledger);
            let committed = tokio::task::spawn_blocking(move || {
                committing.close();
                threads.join();
                // Behind the last commit: a clean end leaves nothing unsigned.
                log_thread.stop();
            });
            // Who still writes needs a database that works.
            let _ = tokio::join!(committed, relay);
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

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Bind { key, address, source })
}

/// The calls of the public port. With keys, each of them needs one, also those that do not exist.
fn public_routes(ingest: Arc<Ingest>, relay: Arc<Relay>, audit: Arc<Audit>, keys: Option<&Keys>) -> Router {
    let with_receipts = axum::middleware::from_fn_with_state(Arc::clone(&audit), audit::receipts);
    let otlp = otlp_routes(Arc::clone(&ingest), keys);
    let routes = ingest::routes(ingest).layer(with_receipts).merge(relay::routes(relay)).merge(audit::routes(audit));
    guarded(json_fallbacks(routes), keys).merge(otlp)
}

/// The calls of OpenTelemetry's exporters, on the public port and on one of their own.
fn otlp_routes(ingest: Arc<Ingest>, keys: Option<&Keys>) -> Router {
    guarded(ingest::otlp_routes(ingest), keys).layer(axum::middleware::from_fn(ingest::otlp_status))
}

fn guarded(routes: Router, keys: Option<&Keys>) -> Router {
    match keys {
        Some(keys) => routes.layer(axum::middleware::from_fn_with_state(keys.clone(), ingest::require_key)),
        None => routes,
    }
}

fn json_fallbacks(routes: Router) -> Router {
    routes
        .fallback(|| async { Problem::not_found("there is no such path").into_response() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed().into_response() })
}
