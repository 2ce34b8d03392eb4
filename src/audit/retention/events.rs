//! Drops events by age and by the size of the ledger: `retention.events`.
//!
//! What is dropped is first recorded in the chain of the recorder, and then carried out at once. What is recorded and not carried out when the
//! process ends is carried out by the next start. `docs/retention.md` describes it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use serde_json::json;
use tokio::sync::watch;

use super::limits::{self, Blocked};
use super::pace::rest;
use super::plan::{Plan, plan};
use crate::audit::context::Audit;
use crate::audit::erasure::holds;
use crate::ledger::EventRetention;
use crate::ledger::drop::{delete_files, drop_events, rewrite_files};
use crate::ledger::format::floor::Floor;
use crate::ledger::format::keys::Position;
use crate::ledger::format::meta;
use crate::ledger::store::{Family, StoreError};
use crate::recorder;
use crate::runtime::{LogThrottle, blocking, now_ms};
use crate::tlog::prune::{Pruned, prune};
use crate::tlog::rows::LogRows;
use crate::tlog::{SignedTree, State};
use cairn_proof::chain::{Hash, Sequence};
use cairn_proof::evidence::recorder::action;
use cairn_proof::evidence::{Dropped, HexHash};

/// The interval at which the size of the ledger is compared with its limit.
const SIZE_INTERVAL: Duration = Duration::from_millis(250);
/// The part of the age after which old events are looked for again, and the shortest and the longest interval of that.
const AGE_PASSES: u32 = 100;
const MIN_AGE_INTERVAL: Duration = Duration::from_millis(500);
const MAX_AGE_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// How long to wait after a failure.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long to wait after a drop that has not made the ledger smaller.
const FREE_DELAY: Duration = Duration::from_millis(500);
/// The interval of log lines about what cannot be dropped.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The part of the events that is dropped at a time when the ledger is too large.
const STEPS: u64 = 8;
/// The part of the rows of `client_ids`, `index` and `chain` that may lead to dropped events: leaving them out rewrites all of them.
const EXPIRED_SHARE: u64 = 4;
/// The most events that are dropped at a time for the size of the ledger, and for their age.
const MAX_EVENTS: u64 = 1 << 20;
const MAX_OLD_EVENTS: u64 = 1 << 16;

/// The positions of each shard after the events that consumers have accepted.
pub type Accepted = Arc<dyn Fn() -> Result<Vec<Position>, StoreError> + Send + Sync>;

/// Drops events.
pub struct Dropper {
    audit: Arc<Audit>,
    settings: EventRetention,
    /// How far the relay is, if events are kept until it has them.
    relayed: Option<Accepted>,
    metrics: DropMetrics,
    throttle: LogThrottle,
    /// The number of events that were dropped since rows that lead to them were left out.
    expired: u64,
    /// Until then nothing is dropped for the size of the ledger, because space is not free yet.
    not_before: Instant,
    /// Until then nothing is dropped for its age, so that answers are fast.
    rests_until: Instant,
}

/// What is to be dropped, and why.
struct Target {
    /// The first leaf that should be kept.
    first_leaf: u64,
    reason: String,
    by: Limit,
}

/// The limit for which events are dropped.
#[derive(Clone, Copy)]
enum Limit {
    /// Until the ledger is small enough, senders wait.
    Size,
    /// Nobody waits for it. The events are removed from all files.
    Age {
        /// Whether there are more events that are too old.
        is_behind: bool,
    },
}

/// What operators see. `docs/metrics.md` lists it.
struct DropMetrics {
    dropped: Counter,
    blocked: [Gauge; Blocked::ALL.len()],
}

impl DropMetrics {
    /// Registers with the current recorder.
    fn register() -> DropMetrics {
        describe_counter!("cairn_dropped_events_total", "Events that retention dropped.");
        describe_gauge!(
            "cairn_retention_blocked",
            "1 while events have to be dropped and cannot be, by what keeps them; otherwise 0."
        );
        let blocked = Blocked::ALL.map(|why| gauge!("cairn_retention_blocked", "by" => why.name()));
        DropMetrics { dropped: counter!("cairn_dropped_events_total"), blocked }
    }

    fn set_blocked(&self, by: Option<Blocked>) {
        for (gauge, why) in self.blocked.iter().zip(Blocked::ALL) {
            gauge.set(f64::from(u8::from(by == Some(why))));
        }
    }
}

impl Dropper {
    /// Registers metrics with the current recorder.
    pub fn new(audit: Arc<Audit>, settings: EventRetention, relayed: Option<Accepted>) -> Dropper {
        let (metrics, throttle) = (DropMetrics::register(), LogThrottle::new(LOG_INTERVAL));
        if settings.max_bytes.as_u64() > 0 {
            audit.ledger.space().slow_down_from(settings.max_bytes.as_u64());
        }
        let now = Instant::now();
        Dropper { audit, settings, relayed, metrics, throttle, expired: 0, not_before: now, rests_until: now }
    }

    /// Drops what is too old or too much, until `stopping` is true.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let age = (self.settings.max_age / AGE_PASSES).clamp(MIN_AGE_INTERVAL, MAX_AGE_INTERVAL);
        let interval = if self.settings.max_bytes.as_u64() > 0 { SIZE_INTERVAL } else { age };
        let mut is_resumed = false;
        while !*stopping.borrow() {
            let started = Instant::now();
            let done = match is_resumed {
                true if !self.settings.is_set() => return,
                true => self.pass().await,
                // Also without settings: what is recorded is carried out.
                false => self.resume().await.map(|done| {
                    is_resumed = done;
                    done.then_some(Limit::Size)
                }),
            };
            let pause = match done {
                Ok(Some(Limit::Size)) => continue,
                Ok(Some(Limit::Age { is_behind })) => {
                    let rest = rest(started.elapsed(), self.settings.max_age, is_behind);
                    self.rests_until = Instant::now() + rest;
                    rest.min(interval)
                }
                Ok(None) => interval,
                Err(error) => {
                    tracing::warn!(%error, retry_after = ?RETRY_DELAY, "old events could not be dropped");
                    RETRY_DELAY
                }
            };
            // A sender that is gone stops it as well.
            if tokio::time::timeout(pause, stopping.changed()).await.is_ok_and(|changed| changed.is_err()) {
                return;
            }
        }
    }

    /// Carries out what was recorded before the last stop. Returns whether nothing of it is left.
    async fn resume(&mut self) -> Result<bool, StoreError> {
        let audit = Arc::clone(&self.audit);
        let recorded = blocking(move || {
            if let Some(floor) = Floor::read(audit.ledger.store())? {
                delete_files(audit.ledger.store(), &floor)?;
            }
            last_recorded(&audit)
        })
        .await?;
        let Some((record, recorded)) = recorded else { return Ok(true) };
        let _turn = Arc::clone(&self.audit.erasing).lock_owned().await;
        let audit = Arc::clone(&self.audit);
        if blocking(move || is_erasing(&audit)).await? {
            return Ok(false);
        }
        let rows = self.rows();
        let first_leaf = recorded.first_leaf;
        let planned = blocking(move || plan(&rows, first_leaf, &[])).await?;
        match planned {
            Ok(Some(plan)) if described(&plan) == recorded => self.carry_out(plan, record).await.map(|_| true),
            _ => {
                tracing::error!(
                    record = record.0,
                    "what retention recorded does not match the events: nothing was dropped"
                );
                Ok(true)
            }
        }
    }

    /// Drops the next events, if there are any to drop. Returns for which limit.
    async fn pass(&mut self) -> Result<Option<Limit>, StoreError> {
        let State::Signed(signed) = self.audit.log.state() else { return Ok(None) };
        let Some(Target { first_leaf, reason, by }) = self.target(&signed).await? else {
            self.metrics.set_blocked(None);
            return Ok(None);
        };
        if self.expired > 0 && self.expired >= self.audit.ledger.committed().kept() / EXPIRED_SHARE {
            // What was dropped may take more space than is missing.
            self.leave_out_expired().await?;
            return Ok(Some(by));
        }
        let turn = Arc::clone(&self.audit.erasing).lock_owned().await;
        let (audit, rows) = (Arc::clone(&self.audit), self.rows());
        let (allowed, why) = self.allowed(&signed).await?;
        let planned = blocking(move || {
            if is_erasing(&audit)? {
                return Ok(Err(Blocked::Log));
            }
            plan(&rows, first_leaf.min(allowed), &holds::all(audit.ledger.store())?)
        });
        let plan = match planned.await? {
            Ok(Some(plan)) => plan,
            Ok(None) => return Ok(self.blocked(why)),
            Err(why) => return Ok(self.blocked(why)),
        };
        self.metrics.set_blocked(None);
        let input = json!({"reason": reason});
        let record = self.audit.eraser.recorder.record(action::RETENTION, &input, Some(&json!(described(&plan)))).await;
        let record = record.map_err(|error| self.audit.ledger.store().failed(&error.to_string()))?;
        let floor = self.carry_out(plan, record.as_ref().sequence()).await?;
        drop(turn);
        let audit = Arc::clone(&self.audit);
        let is_smaller = blocking(move || {
            let store = audit.ledger.store();
            let before = store.live_bytes()?;
            delete_files(store, &floor)?;
            if matches!(by, Limit::Age { .. }) {
                rewrite_files(store, &floor)?;
            }
            Ok::<_, StoreError>(store.live_bytes()? < before)
        })
        .await?;
        if !is_smaller {
            // More must not be dropped only because the space of this is not free yet.
            self.not_before = Instant::now() + FREE_DELAY;
        }
        Ok(Some(by))
    }

    /// What is to be dropped; `None` if nothing is.
    async fn target(&self, signed: &Arc<SignedTree>) -> Result<Option<Target>, StoreError> {
        let EventRetention { max_age, max_bytes } = self.settings;
        let (audit, rows, signed) = (Arc::clone(&self.audit), self.rows(), Arc::clone(signed));
        let (may_shrink, is_rested) = (Instant::now() >= self.not_before, Instant::now() >= self.rests_until);
        blocking(move || {
            let (store, space) = (audit.ledger.store(), audit.ledger.space());
            let first = Pruned::read(store)?.first;
            if max_bytes.as_u64() > 0 {
                // A failed measurement leaves the last one.
                let _ = space.measure(store.path());
                if may_shrink && store.live_bytes()? > max_bytes.as_u64() {
                    let events = (audit.ledger.committed().kept() / STEPS).clamp(256, MAX_EVENTS);
                    let reason = format!("retention.events.max_bytes: {max_bytes}");
                    return Ok(Some(Target { first_leaf: first + events, reason, by: Limit::Size }));
                }
            }
            if is_rested && !max_age.is_zero() {
                let until_ms = now_ms().saturating_sub(u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX));
                let old = limits::first_leaf(&rows, &signed, &limits::received_before(&audit.ledger, until_ms)?)?;
                if old >= first + 256 {
                    let reason = format!("retention.events.max_age: {}", humantime::format_duration(max_age));
                    let by = Limit::Age { is_behind: old > first + MAX_OLD_EVENTS };
                    return Ok(Some(Target { first_leaf: old.min(first + MAX_OLD_EVENTS), reason, by }));
                }
            }
            Ok(None)
        })
        .await
    }

    /// The first leaf that must be kept, and what keeps it.
    async fn allowed(&self, signed: &Arc<SignedTree>) -> Result<(u64, Blocked), StoreError> {
        let (audit, rows, signed) = (Arc::clone(&self.audit), self.rows(), Arc::clone(signed));
        let relayed = self.relayed.clone();
        blocking(move || {
            let shards = audit.ledger.committed().shards();
            let indexed: Vec<Position> = shards.map(|shard| audit.ledger.index().next(shard)).collect();
            let logged = limits::first_leaf(&rows, &signed, &indexed)?;
            let relayed = match relayed {
                Some(relayed) => limits::first_leaf(&rows, &signed, &relayed()?)?,
                None => u64::MAX,
            };
            Ok(if relayed < logged { (relayed, Blocked::Relay) } else { (logged, Blocked::Log) })
        })
        .await
    }

    /// Reports that events have to be dropped and cannot be.
    fn blocked(&self, by: Blocked) -> Option<Limit> {
        self.metrics.set_blocked(Some(by));
        if by != Blocked::Log
            && let Some(more) = self.throttle.allow()
        {
            tracing::warn!(
                by = by.name(),
                suppressed = more,
                "retention cannot drop old events: see docs/retention.md"
            );
        }
        None
    }

    /// Removes what was planned and recorded. Returns the new floor.
    async fn carry_out(&mut self, plan: Plan, record: Sequence) -> Result<Floor, StoreError> {
        let (audit, rows, events) = (Arc::clone(&self.audit), self.rows(), plan.events);
        let floor = blocking(move || {
            let store = audit.ledger.store();
            meta::set_with_gaps(store)?;
            let floor = Floor { record, first: plan.first };
            let mut batch = store.batch(0);
            drop_events(store, &mut batch, &floor, &plan.anchors)?;
            let size = rows.progress()?.map_or(0, |progress| progress.size);
            let tiles = prune(&rows, &mut batch, plan.first_leaf, size)?;
            store.write_synced(batch)?;
            store.expired().raise(&floor.first.iter().map(|first| first.0).collect::<Vec<_>>());
            store.compact(Family::Tiles, Some(&tiles.start), Some(&tiles.end))?;
            Ok::<_, StoreError>(floor)
        })
        .await?;
        self.metrics.dropped.increment(events);
        self.expired += events;
        tracing::debug!(events, record = record.0, "old events were dropped");
        Ok(floor)
    }

    /// Frees the space of the rows that lead to dropped events.
    async fn leave_out_expired(&mut self) -> Result<(), StoreError> {
        self.expired = 0;
        let audit = Arc::clone(&self.audit);
        blocking(move || {
            let store = audit.ledger.store();
            [Family::ClientIds, Family::Index, Family::Chain]
                .into_iter()
                .try_for_each(|family| store.compact(family, None, None))
        })
        .await
    }

    fn rows(&self) -> LogRows {
        LogRows::new(Arc::clone(self.audit.ledger.store()))
    }
}

/// Whether an erasure is recorded and not completed: it must find its events.
fn is_erasing(audit: &Audit) -> Result<bool, StoreError> {
    let pending = recorder::erasures(audit.ledger.store(), audit.ledger.instance(), audit.eraser.done().next())?;
    Ok(!pending.is_empty())
}

/// What the record of a plan says.
fn described(plan: &Plan) -> Dropped {
    let (agents, root) = plan.all_anchors;
    Dropped {
        first_leaf: plan.first_leaf,
        first_positions: plan.first.iter().map(|first| first.0).collect(),
        events: plan.events,
        agents,
        anchors: HexHash(Hash(root.0)),
    }
}

/// The last record of dropped events, if it is not carried out.
fn last_recorded(audit: &Audit) -> Result<Option<(Sequence, Dropped)>, StoreError> {
    let store = audit.ledger.store();
    let done = Floor::read(store)?.map_or(Sequence(0), |floor| floor.record);
    let mut last = None;
    recorder::read(store, audit.ledger.instance(), done.next(), |_, record| {
        let dropped = Dropped::read(|field| record.value(field)).map_err(|why| store.damaged(why))?;
        last = dropped.map(|dropped| (record.sequence(), dropped)).or(last.take());
        Ok(())
    })?;
    Ok(last)
}
