//! Verifying everything that is stored: every chain, and the log over them.

use std::sync::Arc;

use super::chains::Chains;
use super::log::{LogRebuild, LogVerdict};
use super::pool::{self, CheckedChunk, Share};
use super::report::{Observer, Report};
use super::runs;
use super::scan::{Leaves, Scan};
use crate::ledger::store::{Family, Store, StoreError};
use crate::tlog::rows::{LogRows, Progress};
use cairn_proof::tree::Head;

/// How many agents are followed at once: about 25 MiB. More agents take more passes.
const AGENTS_PER_PASS: u64 = 225_000;

/// What verification of everything found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many agents there are.
    pub agents: u64,
    /// How many events were verified.
    pub events: u64,
    /// How many chains are broken.
    pub broken: u64,
    /// The log, if there is one.
    pub log: Option<LogVerdict>,
}

/// Verifies every chain, and computes the log's tree anew, to be compared with what is stored and with `checkpoints`, each
/// with a name to call it by. The ledger has so many shards.
///
/// Each event is read once, for its chain and for the log; with more agents than fit into memory, once for each pass. For a
/// ledger that does not change meanwhile: a secondary. One thread reads, `jobs` threads hash and check, and the caller's thread follows chains
/// and tree.
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
    let log_rows = LogRows::new(Arc::clone(store));
    let mut log = log_rows.progress()?.map(|known| (LogRebuild::new(&log_rows, checkpoints), known));
    let mut verdict = if log.is_none() { LogVerdict::of_none(checkpoints) } else { None };
    for pass in 0..passes {
        let share = Share { pass, passes, with_leaves: log.is_some() };
        let mut chains = Chains::new(store, shards, share);
        // The log is verified in the first pass.
        let (mut tree, known) = log.take().unzip();
        let known_rows = known.as_ref().map(|known| (&log_rows, known));
        let reading = Reading { store, shards, jobs, share };
        let leaves = reading.run(known_rows, &mut chains, tree.as_mut(), &mut report)?;
        if let (Some(tree), Some(known)) = (tree, known) {
            verdict = Some(tree.finish(store, &known, leaves)?);
        }
        chains.compare_heads(&mut report)?;
    }
    if runs::check(store, &mut report, false)? != report.placed() {
        // A chain is broken, or a run leads elsewhere: only now each of them is followed.
        runs::check(store, &mut report, true)?;
        if report.is_clean() {
            return Err(store.damaged("the rows of `chain` do not lead to the events, and it cannot be said which"));
        }
    }
    Ok(Summary { agents, events: report.events(), broken: report.broken_chains(), log: verdict })
}

/// How every event is read.
struct Reading<'s> {
    store: &'s Store,
    shards: u16,
    /// The number of threads that hash and check.
    jobs: usize,
    share: Share,
}

impl Reading<'_> {
    /// Reads every event, for its chain and, if it is a leaf, for the tree.
    fn run(
        &self,
        log: Option<(&LogRows, &Progress)>,
        chains: &mut Chains<'_>,
        mut tree: Option<&mut LogRebuild<'_>>,
        report: &mut Report<'_>,
    ) -> Result<Leaves, StoreError> {
        let jobs = self.jobs.max(1);
        let (verified, empty) = crossbeam_channel::bounded(2 * jobs + 2);
        std::thread::scope(|scope| {
            let (pool, results) = pool::start(scope, jobs, self.share);
            let reader = scope.spawn(|| Scan::new(self.store, self.shards, pool, empty).run(log));
            for CheckedChunk { chunk, facts } in results {
                let events = chunk.events();
                if let Some(tree) = tree.as_deref_mut() {
                    tree.take(&events, &facts);
                }
                chains.take(&events, &facts, report);
                report.progress(events.len() as u64);
                drop(events);
                // The reader may have finished.
                let _ = verified.try_send(chunk);
            }
            // A panic is a bug, and is passed on.
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
