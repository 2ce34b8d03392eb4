//! Starts a server, and gives access to its addresses, its ledger and its reloadable settings.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;

use super::admin::Admin;
use super::error::ServeError;
use super::file_handles::ADMIN_CONNECTIONS;
use super::health;
use super::metrics::Metrics;
use super::ports::Ports;
use super::reload::{self, Live, ReloadTargets};
use super::routes;
use super::stages::Stages;
use crate::config::Config;
use crate::http::{Address, ConnectionLimits, Listener, Protocols, Tls};
use crate::ingest::IngestFastPath;
use crate::ledger::Ledger;
use crate::ledger::shard::commit::Commit;
use crate::ledger::store::Store;
use crate::runtime::Clock;
use crate::tlog::Log;

/// A server that is ready to receive events.
pub struct Server {
    pub(super) ports: Ports,
    pub(super) stages: Stages,
    pub(super) metrics: Arc<Metrics>,
    pub(super) admin: Arc<Admin>,
    pub(super) routes: Router,
    pub(super) otlp_routes: Router,
    pub(super) fast_path: IngestFastPath,
    pub(super) limits: Arc<ConnectionLimits>,
    pub(super) admin_limits: Arc<ConnectionLimits>,
    pub(super) live: Arc<Live>,
    /// `http.allowed_hosts`
    pub(super) allowed_hosts: Vec<String>,
    /// The interval at which the last checkpoint is logged.
    pub(super) announce_interval: Duration,
    /// `retention.content`
    pub(super) content_retention: Duration,
    /// The maximum duration of a shutdown.
    pub(super) grace: Duration,
    /// How long the relay tries to send its backlog to an upstream that accepts nothing.
    pub(super) relay_time: Duration,
}

impl Server {
    /// Binds the addresses, recovers the ledger and starts the stages. `commit` writes batches to disk: it is the
    /// store, except in tests that inject write errors. `clock` is the system clock, except in tests that set it.
    ///
    /// # Errors
    /// When an address cannot be bound, a setting cannot be applied, or the ledger cannot be opened or recovered.
    pub async fn start(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
        clock: Clock,
    ) -> Result<Server, ServeError> {
        // Read before the files are used, so that a change in between is noticed later.
        let files = reload::contents(config);
        let tls = Tls::load(&config.tls)?;
        let ports = Ports::bind(config, tls.as_ref()).await?;
        let metrics = Arc::new(Metrics::new()?);
        let stages = metrics.scope(|| Stages::start(config, commit, clock))?;
        let timeouts = reload::timeouts(&config.limits);
        let limits = ConnectionLimits::new(timeouts, reload::connections(&config.limits), Protocols::Http1And2);
        let admin_limits = ConnectionLimits::new(timeouts, (ADMIN_CONNECTIONS, 0), Protocols::Http1);
        let targets = reload_targets(&stages, &metrics, tls, [&limits, &admin_limits]);
        let live = Arc::new(Live::new(config, files, ports.receiving(), targets));
        let Stages { guard, readers, ledger, ingest, relay, log, audit, .. } = &stages;
        let memory = (Arc::clone(ingest.memory()), Arc::clone(readers));
        let (shared, open) = ((Arc::clone(ledger), Arc::clone(relay), Arc::clone(log)), Arc::clone(&limits));
        let admin = Admin::new(shared, Arc::clone(&metrics), memory, open);
        let health = if config.ingest.otlp.enabled { health::route(Arc::clone(&admin)) } else { Router::new() };
        let public = routes::public(Arc::clone(ingest), Arc::clone(relay), Arc::clone(audit), guard);
        let otlp_routes = routes::with_fallbacks(routes::otlp(Arc::clone(ingest), guard));
        Ok(Server {
            admin,
            routes: public.merge(health.clone()),
            otlp_routes: otlp_routes.merge(health),
            fast_path: IngestFastPath::new(Arc::clone(ingest), Arc::clone(guard)),
            announce_interval: config.log.announce_interval,
            content_retention: config.retention.content,
            grace: config.shutdown.grace,
            relay_time: config.shutdown.relay_time,
            allowed_hosts: config.http.allowed_hosts.clone(),
            ports,
            stages,
            metrics,
            limits,
            admin_limits,
            live,
        })
    }

    /// Makes the number of dropped lines of the process log a metric.
    pub fn count_dropped_lines(&self, dropped: impl Fn() -> u64 + Send + Sync + 'static) {
        self.metrics.count_dropped_lines(Box::new(dropped));
    }

    /// The addresses that receive events and serve reads.
    pub fn addresses(&self) -> Vec<Address> {
        self.ports.public.iter().map(Listener::address).collect()
    }

    /// Whether the TCP addresses use TLS.
    pub fn is_tls(&self) -> bool {
        self.ports.public.iter().any(Listener::is_tls)
    }

    /// The address of metrics and probes.
    ///
    /// # Errors
    /// When the server is already running.
    pub fn admin_address(&self) -> io::Result<Address> {
        Ok(self.ports.admin.as_ref().ok_or(io::ErrorKind::NotConnected)?.address())
    }

    /// The addresses that serve OpenTelemetry exporters only.
    pub fn otlp_addresses(&self) -> Vec<Address> {
        self.ports.otlp.iter().map(Listener::address).collect()
    }

    /// The settings that can be changed while the server runs.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.stages.log
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.stages.ledger
    }
}

fn reload_targets(
    stages: &Stages,
    metrics: &Arc<Metrics>,
    tls: Option<Tls>,
    [limits, admin_limits]: [&Arc<ConnectionLimits>; 2],
) -> ReloadTargets {
    ReloadTargets {
        guard: Arc::clone(&stages.guard),
        tls,
        ingest: Arc::clone(&stages.ingest),
        readers: Arc::clone(&stages.readers),
        connections: [Arc::clone(limits), Arc::clone(admin_limits)],
        relay: Arc::clone(&stages.relay),
        ledger: Arc::clone(&stages.ledger),
        metrics: Arc::clone(metrics),
        notes: stages.notes.clone(),
    }
}
