//! Verifies the whole ledger: every chain, the rows that locate events, and the log.

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

/// Most agents whose chains one pass follows: about 25 MiB. More agents need more passes.
const AGENTS_PER_PASS: u64 = 225_000;

/// The result of the verification of a whole ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of agents.
    pub agents: u64,
    /// The number of verified events.
    pub events: u64,
    /// The number of broken chains.
    pub broken: u64,
    /// The verdict on the log; `None` if there is no log.
    pub log: Option<LogVerdict>,
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
    let log_rows = LogRows::new(Arc::clone(store));
    let mut log = log_rows.progress()?.map(|progress| (LogRebuild::new(&log_rows, checkpoints), progress));
    let mut verdict = if log.is_none() { LogVerdict::without_log(checkpoints) } else { None };
    for pass in 0..passes {
        let share = Share { pass, passes, with_leaves: log.is_some() };
        let mut chains = Chains::new(store, shards, share);
        // The log is verified in the first pass.
        let (mut tree, progress) = log.take().unzip();
        let log_reader = progress.as_ref().map(|progress| (&log_rows, progress));
        let pass = Pass { store, shards, jobs, share };
        let leaves = pass.run(log_reader, &mut chains, tree.as_mut(), &mut report)?;
        if let (Some(tree), Some(progress)) = (tree, progress) {
            verdict = Some(tree.finish(store, &progress, leaves)?);
        }
        chains.compare_heads(&mut report)?;
    }
    if runs::check(store, &mut report, false)? != report.run_digests() {
        // A chain is broken or a run has a wrong location. Only now is every event of every run looked up.
        runs::check(store, &mut report, true)?;
        if report.is_clean() {
            return Err(store
                .damaged("rows of `chain` do not match the events, but the affected chain could not be determined"));
        }
    }
    Ok(Summary { agents, events: report.events(), broken: report.broken_chains(), log: verdict })
}

/// One pass over all events.
struct Pass<'s> {
    store: &'s Store,
    shards: u16,
    /// The number of threads that hash and check.
    jobs: usize,
    share: Share,
}

impl Pass<'_> {
    /// Reads every event and verifies it in its chain and, if it is a leaf, in the tree.
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
            for CheckedChunk { chunk, checks } in results {
                let events = chunk.events();
                if let Some(tree) = tree.as_deref_mut() {
                    tree.take(&events, &checks);
                }
                chains.take(&events, &checks, report);
                report.progress(events.len() as u64);
                drop(events);
                // The reader may have finished.
                let _ = verified.try_send(chunk);
            }
            // A panic is a bug and is propagated.
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}
