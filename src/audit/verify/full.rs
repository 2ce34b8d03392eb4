//! Verifies the whole ledger: every chain, the rows that locate events, and the log.

use std::sync::Arc;

use super::chains::Chains;
use super::dropped::Dropped;
use super::erasures::ErasureCheck;
use super::log::{LogRebuild, LogVerdict};
use super::pool::{self, CheckedChunk, Share, Work};
use super::report::{Observer, Report};
use super::rows::facts::Digests;
use super::rows::{self, RowCheck, Snapshots, StoredSums, chain};
use super::scan::{Leaves, Scan};
use crate::ledger::store::{Family, Store, StoreError};
use crate::tlog::rows::Progress;
use cairn_proof::chain::{AgentKey, BreakKind, Sequence};
use cairn_proof::tree::Head;

/// Most agents whose chains one pass follows: about 25 MiB. More agents need more passes.
const AGENTS_PER_PASS: u64 = 200_000;

/// The result of the verification of a whole ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of agents.
    pub agents: u64,
    /// The number of verified events.
    pub events: u64,
    /// The number of events that retention has dropped.
    pub dropped: u64,
    /// The number of broken chains.
    pub broken: u64,
    /// The number of rows that differ from what the events give.
    pub wrong_rows: u64,
    /// Whether no event broke its chain, and no head shows that events are missing. Other rows may differ nevertheless.
    pub events_whole: bool,
    /// The verdict on the log; `None` if there is no log.
    pub log: Option<LogVerdict>,
    /// Whether an erasure is recorded and not completed. The index is not verified then.
    pub is_erasing: bool,
}

/// Verifies every chain of a ledger of `shards` shards, and rebuilds the tree of the log, to compare it with the stored
/// tree and with `checkpoints`, each of which has a name for messages.
///
/// Each event is read once for its chain and for the log or, with more agents than fit into memory, once per pass. The
/// ledger must not change meanwhile, so `store` is a secondary. One thread reads, `jobs` threads hash and check, and
/// the calling thread follows chains and tree.
///
/// # Errors
/// When the database cannot be read.
pub fn all(
    store: &Arc<Store>,
    shards: u16,
    checkpoints: &[(String, Head)],
    jobs: usize,
    observer: &mut dyn Observer,
) -> Result<Summary, StoreError> {
    let mut agents = 0u64;
    let mut rows = store.scan(Family::Agents)?;
    rows.seek_first();
    while rows.row()?.is_some() {
        agents += 1;
        rows.next();
    }
    let passes = agents.div_ceil(AGENTS_PER_PASS).max(1);
    let mut report = Report::new(observer);
    let erasures = ErasureCheck::read(store)?;
    if let Some(why) = &erasures.broken {
        let recorder = &erasures.recorder;
        report.broken(AgentKey::of(recorder), recorder, Sequence(0), BreakKind::Unreadable(why.clone()));
    }
    let dropped = Dropped::read(store)?;
    if let Some(why) = &dropped.broken {
        let recorder = &erasures.recorder;
        report.broken(AgentKey::of(recorder), recorder, Sequence(0), BreakKind::Dropped(why.clone()));
    }
    let (progress, mut verdict) = match rows::log::progress(store, shards, &mut report) {
        Ok(Some(progress)) => (Some(progress), None),
        Ok(None) => (None, LogVerdict::without_log(checkpoints)),
        Err(StoreError::Damaged { message, .. }) => (None, Some(LogVerdict::broken(message))),
        Err(error) => return Err(error),
    };
    let mut tree = progress.as_ref().map(|_| LogRebuild::new(store, checkpoints, dropped.first_leaf)).transpose()?;
    let snapshots = Snapshots::take(store, shards)?;
    let digests = Digests::new(snapshots.index.cursors(), &dropped.all_first(shards.into()));
    // Rows and log are verified in the first pass.
    let mut row_check = Some((RowCheck::new(store, shards, digests.clone(), &snapshots.ids, &dropped)?, snapshots));
    if erasures.is_pending() {
        report.leave_index_out();
    }
    let (mut first, mut events_whole) = (None, true);
    let mut agents_of_shards = vec![0; usize::from(shards)];
    for pass in 0..passes {
        let share = Share { pass, passes };
        let mut chains = Chains::new(store, shards, share, &erasures)?;
        let (mut check, snapshots) = row_check.take().unzip();
        let mut tree = tree.take();
        let work = Work { share, with_leaves: tree.is_some(), digests: check.as_ref().map(|_| digests.clone()) };
        let pass = Pass { store, jobs, work, dropped: &dropped };
        let log = progress.as_ref().filter(|_| tree.is_some());
        let (leaves, sums) = pass.run(log, snapshots, &mut chains, tree.as_mut(), check.as_mut(), &mut report)?;
        if let (Some(tree), Some(progress)) = (tree, &progress) {
            verdict = Some(tree.finish(store, progress, leaves, &mut report)?);
        }
        first = first.or(check.zip(sums));
        chains.compare_heads(&mut report)?;
        events_whole &= chains.are_events_whole;
        agents_of_shards.iter_mut().zip(&chains.agents).for_each(|(sum, agents)| *sum += agents);
    }
    if let Some((check, sums)) = first {
        check.finish(sums, &agents_of_shards, &mut report)?;
    }
    chain::report_faults(store, &mut report)?;
    let (events, broken, wrong_rows) = (report.events(), report.broken_chains(), report.wrong_rows());
    let dropped = dropped.events();
    Ok(Summary {
        agents,
        events,
        dropped,
        broken,
        wrong_rows,
        events_whole,
        log: verdict,
        is_erasing: erasures.is_pending(),
    })
}

/// One pass over all events.
struct Pass<'s> {
    store: &'s Store,
    /// The number of threads that hash and check.
    jobs: usize,
    work: Work,
    dropped: &'s Dropped,
}

impl Pass<'_> {
    /// Reads every event, verifies it in its chain and, if it is a leaf, in the tree, and compares the rows that follow
    /// from it. The rows that are compared by sums are read at the same time.
    fn run(
        &self,
        log: Option<&Progress>,
        snapshots: Option<Snapshots<'_>>,
        chains: &mut Chains<'_>,
        mut tree: Option<&mut LogRebuild<'_>>,
        mut rows: Option<&mut RowCheck<'_>>,
        report: &mut Report<'_>,
    ) -> Result<(Leaves, Option<StoredSums>), StoreError> {
        let jobs = self.jobs.max(1);
        let (verified, empty) = crossbeam_channel::bounded(2 * jobs + 2);
        std::thread::scope(|scope| {
            let (pool, results) = pool::start(scope, jobs, &self.work);
            let sums = snapshots.zip(self.work.digests.as_ref());
            let sums = sums.map(|(snapshots, digests)| scope.spawn(move || StoredSums::read(snapshots, digests)));
            let reader = scope.spawn(|| Scan::new(self.store, pool, empty).run(log, self.dropped));
            for CheckedChunk { chunk, checks, postings } in results {
                let events = chunk.events();
                if let Some(tree) = tree.as_deref_mut() {
                    tree.take(&events, &checks)?;
                }
                chains.take(&events, &checks, report);
                if let Some(rows) = rows.as_deref_mut() {
                    rows.add_postings(postings);
                    for (event, check) in events.iter().zip(&checks) {
                        let Some(location) = event.location else { continue };
                        rows.take(location, &check.facts, report)?;
                    }
                }
                report.progress(events.len() as u64);
                drop(events);
                // The reader may have finished.
                let _ = verified.try_send(chunk);
            }
            // A panic is a bug and is propagated.
            let leaves = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let sums = sums.map(|sums| sums.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            Ok((leaves, sums.transpose()?))
        })
    }
}
