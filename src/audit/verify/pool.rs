//! Hashes and checks events on a fixed pool of threads. Results are returned in the order in which the events were
//! read.

use crossbeam_channel::{Receiver, Sender};

use super::chunk::{Chunk, ScannedEvent};
use super::rows::facts::{self, Digests, Facts, ReceiptTimes};
use crate::tlog::leaf::RecordHasher;
use cairn_proof::chain::walk::{Checker, FieldValues};
use cairn_proof::chain::{AgentKey, Hash, Stub};
use cairn_proof::tree::NodeHash;

/// The part of the agents that one pass verifies, chosen by their keys.
#[derive(Clone, Copy)]
pub struct Share {
    /// The index of this pass, from 0.
    pub pass: u64,
    /// The number of passes.
    pub passes: u64,
}

/// What the pool computes of each event.
#[derive(Clone)]
pub struct Work {
    /// The agents whose events are hashed and checked.
    pub share: Share,
    /// Whether leaf hashes are computed: in the pass that verifies the log.
    pub with_leaves: bool,
    /// How the facts of all events are computed, in the pass that checks the rows.
    pub digests: Option<Digests>,
}

impl Share {
    /// Whether the pass verifies the events of this agent.
    pub fn contains(&self, agent: AgentKey) -> bool {
        let [a, b, c, d, ..] = agent.0;
        u64::from(u32::from_be_bytes([a, b, c, d])) % self.passes == self.pass
    }
}

/// What the pool computed of one event.
#[derive(Default)]
pub struct EventCheck {
    /// The hash of its canonical bytes and its previous hash; not computed outside the share.
    pub hash: Hash,
    /// Why its bytes are not a valid event in canonical form; `None` if they are.
    pub fault: Option<String>,
    /// The leaf hash, if the event is a leaf and leaf hashes are computed.
    pub leaf: Option<NodeHash>,
    /// What other families hold of the event. Without digests only in the share.
    pub facts: Facts,
}

/// A chunk with the results of its events.
pub struct CheckedChunk {
    /// The events.
    pub chunk: Chunk,
    /// One entry for each event; default for an event that cannot be read.
    pub checks: Vec<EventCheck>,
    /// The sum of the digests of the postings of its events.
    pub postings: u128,
}

/// A chunk for the pool, and the channel for its result.
type Job = (Chunk, Sender<CheckedChunk>);

/// Sends chunks to the pool, in order.
pub struct Dispatcher {
    jobs: Sender<Job>,
    results: Sender<Receiver<CheckedChunk>>,
}

impl Dispatcher {
    /// Sends a chunk to the pool. Returns false if the results are not received any more.
    pub fn send(&self, chunk: Chunk) -> bool {
        let (sender, receiver) = crossbeam_channel::bounded(1);
        self.jobs.send((chunk, sender)).is_ok() && self.results.send(receiver).is_ok()
    }
}

/// The results, in the order in which the chunks were sent.
pub struct Results(Receiver<Receiver<CheckedChunk>>);

impl Iterator for Results {
    type Item = CheckedChunk;

    /// Ends early if a thread of the pool panicked; the thread scope propagates the panic.
    fn next(&mut self) -> Option<CheckedChunk> {
        self.0.recv().ok()?.recv().ok()
    }
}

/// Starts a pool of `threads` threads in `scope`. At most twice as many chunks are in progress.
pub fn start<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    threads: usize,
    work: &Work,
) -> (Dispatcher, Results) {
    let (jobs, queue) = crossbeam_channel::bounded::<Job>(threads);
    let (results, ordered) = crossbeam_channel::bounded(threads);
    for _ in 0..threads {
        let (queue, work) = (queue.clone(), work.clone());
        scope.spawn(move || {
            let mut worker = Worker {
                work,
                times: ReceiptTimes::default(),
                postings: 0,
                checker: Checker::default(),
                leaves: RecordHasher::default(),
            };
            for (chunk, reply) in queue {
                let checks = chunk.events().iter().map(|event| worker.check(event)).collect();
                let postings = std::mem::take(&mut worker.postings);
                // Without a receiver the verification has ended.
                let _ = reply.send(CheckedChunk { chunk, checks, postings });
            }
        });
    }
    (Dispatcher { jobs, results }, Results(ordered))
}

/// The state of one thread of the pool.
struct Worker {
    work: Work,
    times: ReceiptTimes,
    postings: u128,
    checker: Checker,
    leaves: RecordHasher,
}

impl Worker {
    fn check(&mut self, event: &ScannedEvent<'_>) -> EventCheck {
        let Ok((location, record)) = event.record else { return EventCheck::default() };
        let mut check = EventCheck::default();
        let mut fields = FieldValues::default();
        if self.work.share.contains(record.agent()) {
            check.hash = record.link().computed_hash();
            check.fault = match record.is_erased() {
                // Whether its erasure is recorded is checked with its chain.
                true => {
                    fields = FieldValues::of(record.canonical());
                    Stub::parse(record.canonical(), record.agent()).err()
                }
                false => self.checker.check_fields(record.canonical(), record.agent(), &mut fields).err(),
            };
        } else if self.work.digests.is_some() {
            fields = FieldValues::of(record.canonical());
        }
        check.facts = facts::facts(&fields, &mut self.times);
        if let Some(digests) = &self.work.digests {
            self.postings = self.postings.wrapping_add(digests.postings(location, &fields));
        }
        if event.is_leaf && self.work.with_leaves {
            check.leaf = Some(self.leaves.hash(record));
        }
        check
    }
}
