//! Erases the content of events by age: `retention.content`.
//!
//! A round records all events that are old enough, some ten thousand at a time, and lets the eraser carry that out at once, because
//! removing what was erased from all files costs as much for one event as for many.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use uuid::Uuid;

use super::limits;
use super::pace::rest;
use crate::audit::context::Audit;
use crate::audit::erasure::holds;
use crate::audit::erasure::routes::record_all;
use crate::audit::erasure::select::{Kept, Selected, select_old};
use crate::ledger::format::keys::Position;
use crate::ledger::store::StoreError;
use crate::recorder;
use crate::runtime::{blocking, now_ms};
use cairn_proof::chain::time;

/// The part of the retention time after which old events are looked for again.
const PASSES: u32 = 100;
/// The shortest interval of that.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// The most events that are selected at a time: nothing else is erased meanwhile.
const STEP_EVENTS: u64 = 16_384;
/// The most steps of a round, whose erasures are carried out together.
const STEPS: u32 = 32;

/// Erases the content of events that are older than `content`, until it is aborted.
pub async fn run(audit: Arc<Audit>, content: Duration) {
    let interval = (content / PASSES).max(MIN_INTERVAL);
    let mut old =
        Old { erased: audit.ledger.committed().shards().map(|_| Position(0)).collect(), holds: BTreeSet::new() };
    loop {
        let pause = match old.erase(&audit, content).await {
            Ok(worked) => interval.max(rest(worked, content, false)),
            Err(error) => {
                tracing::warn!(error, "the content of old events could not be erased; it is tried again");
                interval
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// The events that need not be read again, because their content is erased or held.
struct Old {
    /// The positions of each shard after them.
    erased: Vec<Position>,
    /// The holds that have kept some of them.
    holds: BTreeSet<Uuid>,
}

impl Old {
    /// Erases all events that are old enough, and waits until that is completed. Returns how long the last round took.
    async fn erase(&mut self, audit: &Arc<Audit>, content: Duration) -> Result<Duration, String> {
        let until_ms = now_ms().saturating_sub(u64::try_from(content.as_millis()).unwrap_or(u64::MAX));
        let (reading, former) = (Arc::clone(audit), std::mem::take(&mut self.holds));
        let read = blocking(move || {
            let holds = holds::all(reading.ledger.store())?.iter().map(|hold| hold.id).collect::<BTreeSet<Uuid>>();
            let is_lifted = !former.is_subset(&holds);
            let shards = reading.ledger.committed().shards();
            let indexed: Vec<Position> = shards.map(|shard| reading.ledger.index().next(shard)).collect();
            let old = limits::received_before(&reading.ledger, until_ms)?;
            let old: Vec<Position> = old.into_iter().zip(indexed).map(|(old, indexed)| old.min(indexed)).collect();
            Ok::<_, StoreError>((holds, is_lifted, old))
        });
        let (holds, is_lifted, old) = read.await.map_err(|error| error.to_string())?;
        if is_lifted {
            self.erased.fill(Position(0));
        }
        let worked = rounds(audit, content, until_ms, self.erased.clone()).await?;
        *self = Old { erased: old, holds };
        Ok(worked)
    }
}

/// Records and carries out the erasure of all events that were received before `until_ms`, from these positions on.
async fn rounds(
    audit: &Arc<Audit>,
    content: Duration,
    until_ms: u64,
    mut from: Vec<Position>,
) -> Result<Duration, String> {
    let until = String::from_utf8_lossy(&time::format_ms(until_ms)).into_owned();
    let reason = format!("retention.content: {}", humantime::format_duration(content));
    let input = json!({"reason": reason, "key": null, "selected_by": ["until"], "since": null, "until": until});
    let (mut last, mut steps, mut started) = (None, 0, Instant::now());
    loop {
        let turn = Arc::clone(&audit.erasing).lock_owned().await;
        let (reading, start) = (Arc::clone(audit), from.clone());
        let read = blocking(move || step(&reading, until_ms, start)).await;
        let (selected, next) = read.inspect_err(|_| audit.eraser.wake()).map_err(|error| error.to_string())?;
        let is_end = next == from;
        from = next;
        if selected.events > 0 {
            let records = record_all(&audit.eraser, &input, selected).await;
            // What was recorded before an error is carried out.
            let records = records.inspect_err(|_| audit.eraser.wake());
            last = records.map_err(|error| error.message.into_owned())?.last().copied().or(last);
        }
        drop(turn);
        steps += 1;
        if !is_end && steps % STEPS != 0 {
            continue;
        }
        if let Some(last) = last.take() {
            audit.eraser.wake();
            audit.eraser.wait_for(last).await;
        }
        if is_end {
            return Ok(started.elapsed());
        }
        tokio::time::sleep(rest(started.elapsed(), content, true)).await;
        started = Instant::now();
    }
}

/// Selects the next events that were received before `until_ms`. Returns the positions after them.
fn step(audit: &Audit, until_ms: u64, from: Vec<Position>) -> Result<(Selected, Vec<Position>), StoreError> {
    let store = audit.ledger.store();
    let recorded = recorder::erasures(store, audit.ledger.instance(), audit.eraser.done().next())?;
    let kept = Kept { holds: holds::all(store)?, recorded };
    select_old(&audit.ledger, until_ms, from, STEP_EVENTS, &kept)
}
