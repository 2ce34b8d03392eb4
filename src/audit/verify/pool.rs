//! Hashes and checks events on a bounded pool of threads. The results come back in the order in which the events were read.

use crossbeam_channel::{Receiver, Sender};

use super::chunk::{Chunk, ScannedEvent};
use crate::tlog::leaf::RecordHasher;
use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{AgentKey, Hash};
use cairn_proof::tree::NodeHash;

/// Which part of the events one pass verifies: those of the agents whose keys are its share of all keys.
#[derive(Clone, Copy)]
pub struct Share {
    /// The number of this pass.
    pub pass: u64,
    /// The number of passes.
    pub passes: u64,
    /// Whether the hashes of leaves are needed: in the pass that verifies the log.
    pub with_leaves: bool,
}

impl Share {
    /// Whether the pass verifies the events of an agent.
    pub fn has(&self, agent: AgentKey) -> bool {
        let [a, b, c, d, ..] = agent.0;
        u64::from(u32::from_be_bytes([a, b, c, d])) % self.passes == self.pass
    }
}

/// What a thread of the pool computed of one event.
#[derive(Default)]
pub struct Facts {
    /// The hash of its canonical bytes and of the previous hash that it names; not computed outside the share.
    pub hash: Hash,
    /// Why its bytes are not an event in canonical form, if they are not.
    pub fault: Option<String>,
    /// The hash of its leaf, if it is one.
    pub leaf: Option<NodeHash>,
}

/// A chunk with what was computed of its events.
pub struct CheckedChunk {
    /// The events.
    pub chunk: Chunk,
    /// One entry for each event; default for an event that cannot be read.
    pub facts: Vec<Facts>,
}

/// A chunk on its way to the pool, and where its result goes.
type Job = (Chunk, Sender<CheckedChunk>);

/// Gives chunks to the pool in order.
pub struct Dispatcher {
    jobs: Sender<Job>,
    results: Sender<Receiver<CheckedChunk>>,
}

impl Dispatcher {
    /// Gives a chunk to the pool; false if nobody takes the results any more.
    pub fn send(&self, chunk: Chunk) -> bool {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        self.jobs.send((chunk, sender)).is_ok() && self.results.send(receiver).is_ok()
    }
}

/// The results, in the order in which the chunks were sent.
pub struct Results(Receiver<Receiver<CheckedChunk>>);

impl Iterator for Results {
    type Item = CheckedChunk;

    /// Ends early if a thread of the pool panicked; the scope of the threads passes the panic on.
    fn next(&mut self) -> Option<CheckedChunk> {
        self.0.recv().ok()?.recv().ok()
    }
}

/// Starts a pool of `threads` threads in `scope`. At most twice as many chunks are in it.
pub fn start<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    threads: usize,
    share: Share,
) -> (Dispatcher, Results) {
    let (jobs, queue) = crossbeam_channel::bounded::<Job>(threads);
    let (results, ordered) = crossbeam_channel::bounded(threads);
    for _ in 0..threads {
        let queue = queue.clone();
        scope.spawn(move || {
            let mut worker = Worker { share, checker: Checker::default(), leaves: RecordHasher::default() };
            for (chunk, reply) in queue {
                let facts = chunk.events().iter().map(|event| worker.check(event)).collect();
                // Without a receiver the verification has ended.
                let _ = reply.send(CheckedChunk { chunk, facts });
            }
        });
    }
    (Dispatcher { jobs, results }, Results(ordered))
}

/// The memory of one thread of the pool.
struct Worker {
    share: Share,
    checker: Checker,
    leaves: RecordHasher,
}

impl Worker {
    fn check(&mut self, event: &ScannedEvent<'_>) -> Facts {
        let Ok((_, record)) = event.record else { return Facts::default() };
        let mut facts = Facts::default();
        if self.share.has(record.agent()) {
            facts.hash = Hash::of_event(record.canonical(), &record.prev_hash());
            facts.fault = self.checker.check(record.canonical(), record.agent()).err();
        }
        if event.is_leaf && self.share.with_leaves {
            facts.leaf = Some(self.leaves.hash(record));
        }
        facts
    }
}
