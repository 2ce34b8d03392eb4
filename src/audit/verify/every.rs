//! Verifying everything that is stored: every chain, and the log over them.

use std::collections::HashSet;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::chains::Chains;
use super::log::{LogVerdict, Recomputed};
use super::reading::{Leaves, PIECES, Reading};
use super::runs;
use crate::chain::{AgentKey, Break, BreakKind, Sequence};
use crate::ledger::keys::Run;
use crate::ledger::store::{Family, Store, StoreError};
use crate::tlog::checkpoint::Head;
use crate::tlog::rows::{LogRows, Progress};

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

/// Who is told how the verification goes.
pub trait Observer {
    /// That many more events were looked at. With more agents than fit into one pass, each is looked at several times.
    fn progress(&mut self, events: u64);
    /// A chain is broken.
    fn broken(&mut self, agent_id: &str, found: &Break);
}

/// Verifies every chain, and computes the log's tree anew, to be compared with what is stored and with `checkpoints`, each
/// with a name to call it by. The ledger has so many shards.
///
/// Each event is read once, for its chain and for the log; with more agents than fit into memory, once for each pass. For a
/// ledger that does not change meanwhile: a secondary. Takes two threads: one reads, the other verifies.
///
/// # Errors
/// When the database cannot be read.
pub fn all(
    store: &Arc<Store>,
    shards: u16,
    checkpoints: &[(String, Head)],
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
    let mut report = Report { observer, broken: HashSet::new(), events: 0, placed: 0, seed: fastrand::u64(..) };
    let log_rows = LogRows::new(Arc::clone(store));
    let mut log = log_rows.progress()?.map(|known| (Recomputed::new(&log_rows, checkpoints), known));
    let mut verdict = if log.is_none() { LogVerdict::of_none(checkpoints) } else { None };
    for pass in 0..passes {
        let mut chains = Chains::new(store, shards, pass, passes);
        // The log is verified in the first pass.
        let (mut tree, known) = log.take().unzip();
        let known_rows = known.as_ref().map(|known| (&log_rows, known));
        let leaves = read(store, shards, known_rows, &mut chains, tree.as_mut(), &mut report)?;
        if let (Some(tree), Some(known)) = (tree, known) {
            verdict = Some(tree.finish(store, &known, leaves)?);
        }
        chains.compare_heads(&mut report)?;
    }
    if runs::check(store, &mut report, false)? != report.placed {
        // A chain is broken, or a run leads elsewhere: only now each of them is followed.
        runs::check(store, &mut report, true)?;
        if report.broken.is_empty() {
            return Err(store.damaged("the rows of `chain` do not lead to the events, and it cannot be said which"));
        }
    }
    Ok(Summary { agents, events: report.events, broken: report.broken.len() as u64, log: verdict })
}

/// Reads every event, for its chain and, if it is a leaf, for the tree.
fn read(
    store: &Store,
    shards: u16,
    log: Option<(&LogRows, &Progress)>,
    chains: &mut Chains<'_>,
    mut tree: Option<&mut Recomputed<'_>>,
    report: &mut Report<'_>,
) -> Result<Leaves, StoreError> {
    let (sender, pieces) = crossbeam_channel::bounded(PIECES);
    let (verified, empty) = crossbeam_channel::bounded(PIECES);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| Reading::new(store, shards, sender, empty).run(log));
        for piece in pieces {
            let rows = piece.rows();
            if let Some(tree) = tree.as_deref_mut() {
                tree.take(&rows);
            }
            chains.take(&rows, report);
            report.observer.progress(rows.len() as u64);
            drop(rows);
            // The reader may have come to its end.
            let _ = verified.try_send(piece);
        }
        // A panic is a bug, and goes on as one.
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What was found so far.
pub struct Report<'o> {
    observer: &'o mut dyn Observer,
    broken: HashSet<AgentKey>,
    events: u64,
    /// The sum of the digests of all runs in which events follow. The runs that are stored have to give the same sum: so
    /// they are compared without looking up an event for each.
    placed: u128,
    /// Nobody who wrote the rows knew it.
    seed: u64,
}

impl Report<'_> {
    /// Says in one number that a run of the agent's events stands where it does.
    pub fn digest(&self, agent: AgentKey, run: Run) -> u128 {
        let mut bytes = [0; 38];
        bytes[..24].copy_from_slice(&Run::key(agent, run.first));
        bytes[24..].copy_from_slice(&run.encode());
        xxh3_128_with_seed(&bytes, self.seed)
    }

    /// Notes an event that follows from the one before it.
    pub fn verified(&mut self) {
        self.events += 1;
    }

    /// Notes where events stood that followed.
    pub fn stood(&mut self, agent: AgentKey, run: Run) {
        self.placed = self.placed.wrapping_add(self.digest(agent, run));
    }

    /// Tells the first break of a chain.
    pub fn broken(&mut self, key: AgentKey, agent_id: &str, sequence: Sequence, kind: BreakKind) {
        if self.broken.insert(key) {
            self.observer.broken(agent_id, &Break { sequence, kind });
        }
    }
}
