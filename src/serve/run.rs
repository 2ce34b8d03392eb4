//! Runs a server until it is shut down, and shuts it down in the order of the data flow.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use futures_util::future::{OptionFuture, join_all};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::admin;
use super::error::ServeError;
use super::metrics::Metrics;
use super::routes;
use super::server::Server;
use crate::audit::{self, Audit, EraserThread};
use crate::http::{self, Front, Listener, OnRefusal, RefusedRequest};
use crate::ledger::{Ledger, Threads};
use crate::relay::{Relay, Unsent};
use crate::tlog::{Log, LogThread, State};

/// The least time to record the end of the server.
const MIN_RECORD_TIME: Duration = Duration::from_secs(1);
/// The interval at which the metrics recorder drains its histograms.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The maximum time to send responses after a failure.
const FAILURE_GRACE: Duration = Duration::from_secs(1);
/// The maximum time for a last scrape of the metrics.
const ADMIN_GRACE: Duration = Duration::from_secs(1);
/// The maximum time after `shutdown.grace` to close the ledger.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

impl Server {
    /// Serves until `shutdown` completes or a thread fails. Then answers the requests in flight, commits, and closes
    /// the ledger.
    ///
    /// Returns what was not relayed.
    ///
    /// # Errors
    /// When a thread of the server failed.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<Vec<Unsent>, ServeError> {
        let (stop, stopping) = watch::channel(false);
        let (stop_recording, recording_stopping) = watch::channel(false);
        // Before the first event of a client, so that every one of them is in the run that this event begins.
        let recording = self.start_recording(recording_stopping).await;
        let (stop_admin, admin_stopping) = watch::channel(false);
        let public = self.serve_public(stopping);
        let admin_port = self.serve_admin(admin_stopping);
        let watching = tokio::spawn(Arc::clone(&self.live).watch_files());
        let upkeep = tokio::spawn(run_upkeep(Arc::clone(&self.metrics)));
        let announcing = tokio::spawn(announce(Arc::clone(&self.stages.log), self.announce_interval));
        let erasing = tokio::spawn(erase_old(Arc::clone(&self.stages.audit), self.content_retention));
        let (stop_dropping, dropping_stopping) = watch::channel(false);
        let dropping = self.stages.dropper.take().map(|dropper| tokio::spawn(dropper.run(dropping_stopping)));
        let failure = tokio::select! {
            () = shutdown => None,
            reason = self.stages.failed.recv() => reason,
        };

        self.admin.drain();
        stop.send_replace(true);
        // After a failure, only the error responses remain to be sent.
        let grace = if failure.is_some() { FAILURE_GRACE } else { self.grace };
        let deadline = Instant::now() + grace;
        let is_committed = Arc::new(AtomicBool::new(false));
        // After a failure, nothing more is sent.
        let patience = failure.is_none().then_some(self.relay_time);
        let relayed = finish_relay(&self.stages.relay, deadline, patience, &is_committed);
        answer_in_flight(public, deadline, grace).await;
        erasing.abort();
        let _ = erasing.await;
        stop_dropping.send_replace(true);
        if let Some(dropping) = dropping {
            stop_within(dropping, deadline.saturating_duration_since(Instant::now()).max(MIN_RECORD_TIME)).await;
        }
        stop_recording.send_replace(true);
        stop_within(recording, deadline.saturating_duration_since(Instant::now()).max(MIN_RECORD_TIME)).await;
        for task in [announcing, watching] {
            task.abort();
            // The task holds a reference to the ledger.
            let _ = task.await;
        }
        let Server { stages, .. } = self;
        if let Some(reason) = failure.as_ref().filter(|_| stages.ledger.is_data_dir_gone()) {
            // Closing the database would recreate its directory with only the data that is in memory. So the database
            // stays open until the process ends.
            std::mem::forget((stages.ledger, stages.threads, stages.log_thread));
            return Err(ServeError::Gone(reason.clone()));
        }
        let (mut failed, relay) = (stages.failed, stages.relay);
        let threads = (stages.eraser, stages.threads);
        let closed = close(stages.ledger, threads, (stages.log, stages.log_thread), is_committed, (relay, relayed));
        let unsent = tokio::time::timeout_at(deadline + CLOSE_GRACE, closed).await.unwrap_or_else(|_| {
            tracing::warn!("the ledger was not closed within shutdown.grace; the next start recovers it");
            Vec::new()
        });
        stop_admin.send_replace(true);
        stop_within(admin_port, ADMIN_GRACE).await;
        upkeep.abort();
        match failure.or(failed.try_recv().ok()) {
            Some(reason) => Err(ServeError::Failed(reason)),
            None => Ok(unsent),
        }
    }

    /// Records the start of the server, and what happens until `stopping` is true.
    async fn start_recording(&mut self, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        let Some((watch, start)) = self.stages.watch.take() else { return tokio::spawn(async {}) };
        let recording = watch.start(start).await;
        tokio::spawn(recording.run(stopping))
    }

    /// Serves the public addresses and those for OpenTelemetry until `stopping` is true.
    fn serve_public(&mut self, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        let (listeners, otlp) = (std::mem::take(&mut self.ports.public), std::mem::take(&mut self.ports.otlp));
        let limits = &self.limits;
        let public = listeners.into_iter().map(|listener| {
            let front = self.front(&listener).with_refusals(&routes::PATHS, self.count_refusals());
            let routes = (self.fast_path.clone(), self.routes.clone());
            http::serve(listener, front, routes, Arc::clone(limits), stopping.clone())
        });
        let public = join_all(public.collect::<Vec<_>>());
        let otlp = otlp.into_iter().map(|listener| {
            let front = self.front(&listener).with_refusals(&routes::PATHS, self.count_refusals());
            http::serve(listener, front, ((), self.otlp_routes.clone()), Arc::clone(limits), stopping.clone())
        });
        let otlp = join_all(otlp.collect::<Vec<_>>());
        tokio::spawn(async move {
            tokio::join!(public, otlp);
        })
    }

    /// Serves the admin address until `stopping` is true.
    fn serve_admin(&mut self, stopping: watch::Receiver<bool>) -> JoinHandle<()> {
        let routes = routes::with_fallbacks(admin::routes(Arc::clone(&self.admin)));
        let limits = Arc::clone(&self.admin_limits);
        let listener = self.ports.admin.take();
        let served = listener.map(|listener| {
            let front = self.front(&listener);
            http::serve(listener, front, ((), routes), limits, stopping)
        });
        tokio::spawn(async move {
            OptionFuture::from(served).await;
        })
    }

    /// The first step of every request of a listener.
    fn front(&self, listener: &Listener) -> Front {
        let guard = Arc::clone(&self.stages.guard);
        Front::new(listener.is_loopback(), Arc::new(move || guard.has_keys()), &self.allowed_hosts)
    }

    /// Counts refused requests. The counters are registered when they are needed, because there are many.
    fn count_refusals(&self) -> OnRefusal {
        let (metrics, refusals) = (Arc::clone(&self.metrics), Arc::clone(self.stages.ingest.refusals()));
        Arc::new(move |RefusedRequest { method, status, route, is_logged }| {
            metrics.count_refusal(status, route);
            if !is_logged && method == Method::POST && routes::EVENT_PATHS.contains(&route) {
                refusals.add_unseen(status);
            }
        })
    }
}

/// Lets the relay send its backlog until `deadline`, unless an upstream accepts nothing for the time of `patience`, and stops
/// it. This runs while requests in flight are answered and does not delay them.
fn finish_relay(
    relay: &Arc<Relay>,
    deadline: Instant,
    patience: Option<Duration>,
    is_committed: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (relay, is_committed) = (Arc::clone(relay), Arc::clone(is_committed));
    tokio::task::spawn_blocking(move || {
        if let Some(patience) = patience {
            relay.send_backlog(deadline.into_std(), patience, &is_committed);
        }
        relay.stop(deadline.into_std());
    })
}

async fn answer_in_flight(mut public: JoinHandle<()>, deadline: Instant, grace: Duration) {
    if tokio::time::timeout_at(deadline, &mut public).await.is_err() {
        tracing::warn!(?grace, "requests in flight were aborted: shutdown.grace has elapsed");
        public.abort();
    }
}

/// Commits the queued events, signs a last checkpoint, waits until the relay has stopped, and closes the database. Returns
/// what was not relayed.
async fn close(
    ledger: Arc<Ledger>,
    (eraser, threads): (EraserThread, Threads),
    (log, log_thread): (Arc<Log>, LogThread),
    is_committed: Arc<AtomicBool>,
    (relay, relayed): (Arc<Relay>, JoinHandle<()>),
) -> Vec<Unsent> {
    let eraser = eraser.request_stop();
    let committing = Arc::clone(&ledger);
    let committed = tokio::task::spawn_blocking(move || {
        committing.close();
        threads.join();
        is_committed.store(true, Ordering::Release);
        // After the last commit, so that a clean shutdown leaves no event unsigned. The last checkpoint is also logged,
        // because the disk may be deleted together with the pod.
        log_thread.stop();
        log.announce();
    });
    // Every writer must stop before the database closes.
    let _ = tokio::join!(committed, relayed);
    let unsent = relay.unsent();
    for Unsent { destination, events } in &unsent {
        tracing::warn!(
            destination,
            unsent = events,
            "events were not relayed: they are lost with the volume unless it is kept for the next start"
        );
    }
    let _ = tokio::task::spawn_blocking(move || {
        ledger.store().stop_background_work();
        // A compaction that it waits for has ended now.
        eraser.join();
    })
    .await;
    unsent
}

/// Erases the content of events at this age; never if it is 0.
async fn erase_old(audit: Arc<Audit>, content: Duration) {
    if !content.is_zero() {
        audit::erase_old(audit, content).await;
    }
}

async fn stop_within(mut task: JoinHandle<()>, grace: Duration) {
    if tokio::time::timeout(grace, &mut task).await.is_err() {
        task.abort();
    }
}

async fn run_upkeep(metrics: Arc<Metrics>) {
    let (mut ticks, mut announced) = (tokio::time::interval(UPKEEP_INTERVAL), 0);
    loop {
        ticks.tick().await;
        metrics.upkeep();
        let dropped = metrics.dropped_lines();
        if dropped > announced {
            // If nobody reads the log, this line is dropped and counted, too, and so repeated.
            tracing::warn!(dropped, "lines of this log were dropped, because it was not read fast enough");
            announced = dropped;
        }
    }
}

/// Logs the last checkpoint soon after the start, and then at intervals.
async fn announce(log: Arc<Log>, interval: Duration) {
    let mut state = log.watch();
    // This fails only when the log is dropped, but this task holds a reference to it.
    let _ = state.wait_for(|state| !matches!(state, State::Starting)).await;
    let mut ticks = tokio::time::interval(interval);
    loop {
        ticks.tick().await;
        log.announce();
    }
}
