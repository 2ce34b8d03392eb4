//! Erases the content of events by age: `retention.content`.
//!
//! A pass records all events that are old enough, some ten thousand at a time, and lets the eraser carry that out at once, because
//! removing what was erased from all files costs as much for one event as for many.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::audit::context::Audit;
use crate::audit::erasure::holds;
use crate::audit::erasure::routes::record_all;
use crate::audit::erasure::select::{Kept, Selected, select_old};
use crate::ledger::format::keys::Position;
use crate::ledger::store::StoreError;
use crate::recorder;
use crate::runtime::now_ms;
use cairn_proof::chain::time;

/// The part of the retention time after which old events are looked for again.
const PASSES: u32 = 100;
/// The shortest interval of that.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// The most events that are selected at a time: nothing else is erased meanwhile.
const STEP_EVENTS: u64 = 16_384;
/// The most steps whose erasures are carried out together.
const STEPS: u32 = 32;

/// Erases the content of events that are older than `content`, until it is aborted.
pub async fn run(audit: Arc<Audit>, content: Duration) {
    let interval = (content / PASSES).max(MIN_INTERVAL);
    loop {
        if let Err(error) = pass(&audit, content).await {
            tracing::warn!(error, "the content of old events could not be erased; it is tried again");
        }
        tokio::time::sleep(interval).await;
    }
}

/// Records the erasure of all events that are old enough, and waits until it is completed.
async fn pass(audit: &Arc<Audit>, content: Duration) -> Result<(), String> {
    let until_ms = now_ms().saturating_sub(u64::try_from(content.as_millis()).unwrap_or(u64::MAX));
    let until = String::from_utf8_lossy(&time::format_ms(until_ms)).into_owned();
    let reason = format!("retention.content: {}", humantime::format_duration(content));
    let input = json!({"reason": reason, "key": null, "selected_by": ["until"], "since": null, "until": until});
    let mut from: Vec<Position> = audit.ledger.committed().shards().map(|_| Position(0)).collect();
    let (mut last, mut steps) = (None, 0);
    loop {
        let turn = Arc::clone(&audit.erasing).lock_owned().await;
        let (reading, start) = (Arc::clone(audit), from.clone());
        let read = tokio::task::spawn_blocking(move || step(&reading, until_ms, start)).await;
        // A panic is a bug and is propagated.
        let read = read.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
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
        if let Some(last) = last.take_if(|_| is_end || steps % STEPS == 0) {
            audit.eraser.wake();
            audit.eraser.wait_for(last).await;
        }
        if is_end {
            return Ok(());
        }
    }
}

/// Selects the next events that were received before `until_ms`. Returns the positions after them.
fn step(audit: &Audit, until_ms: u64, from: Vec<Position>) -> Result<(Selected, Vec<Position>), StoreError> {
    let store = audit.ledger.store();
    let recorded = recorder::erasures(store, audit.ledger.instance(), audit.eraser.done().next())?;
    let kept = Kept { holds: holds::all(store)?, recorded };
    select_old(&audit.ledger, until_ms, from, STEP_EVENTS, &kept)
}
