//! The commit that is being built, and the answers to the submissions in it.

use std::collections::HashMap;

use tokio::runtime::Handle;

use super::queue::{Outcome, Outcomes, Permit, Refusal, Submission};
use super::recover::Tail;
use super::seal::ReceiptTime;
use super::wall_clock::Reading;
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::keys::Run;
use crate::ledger::format::record::{Draft, Record};
use crate::ledger::read::recent::CommittedBatch;
use crate::ledger::store::Batch;
use cairn_proof::chain::AgentKey;

/// The outcome of one submitted event, as far as it is known before the commit.
pub enum Disposition {
    /// The event is in the commit, as the next of its records.
    New,
    /// The same event as the record of the commit at this index.
    SameAs(usize),
    /// A different event of the commit has the same id.
    IdConflict,
    /// The same event was stored before.
    AlreadyStored(Record),
    /// The event is refused.
    Refused(Refusal),
}

/// The commit that is being built.
pub struct CommitBatch {
    /// The rows to write.
    pub rows: Batch,
    /// The new events, in the order of their positions.
    pub records: Vec<Record>,
    /// The length of the new records, in bytes.
    pub record_bytes: usize,
    /// The disposition of each submitted event, in the order of submission.
    pub dispositions: Vec<Disposition>,
    /// The number of dispositions of each submission.
    pub counts: Vec<usize>,
    /// The agents whose chains grow in this commit.
    pub touched: Vec<AgentKey>,
    /// The runs that end in this commit.
    pub finished_runs: Vec<(AgentKey, Run)>,
    /// The events as consumers read them from memory.
    pub recent: CommittedBatch,
    /// The tail of the shard after the commit.
    pub tail: Tail,
    /// The time of receipt of the events.
    pub receipt_time: ReceiptTime,
    /// The reading of the clocks that the time of receipt is from.
    pub reading: Reading,
    /// The step of the clock before the first event of the commit.
    pub clock_step: Option<ClockStep>,
}

/// The drafts of all submissions.
pub fn drafts(waiting: &[Submission]) -> impl Iterator<Item = &Draft> {
    waiting.iter().flat_map(|submission| &submission.drafts)
}

/// Releases the permits of all submissions and sends them their outcomes. `commit_refusal` is the reason if the commit
/// failed.
pub fn answer(waiting: &mut Vec<Submission>, commit: CommitBatch, commit_refusal: Option<Refusal>, runtime: &Handle) {
    let copies: HashMap<usize, Record> = commit
        .dispositions
        .iter()
        .filter_map(|disposition| match disposition {
            Disposition::SameAs(index) => Some((*index, commit.records[*index].clone())),
            _ => None,
        })
        .collect();
    let mut records = commit.records.into_iter();
    let mut outcomes = commit.dispositions.into_iter().map(|disposition| match (disposition, commit_refusal) {
        (Disposition::AlreadyStored(record), _) => Outcome::AlreadyStored(record),
        (Disposition::Refused(refusal), _) => Outcome::Refused(refusal),
        (_, Some(refusal)) => Outcome::Refused(refusal),
        (Disposition::New, None) => records.next().map_or(Outcome::Refused(Refusal::Unreadable), Outcome::Stored),
        (Disposition::SameAs(index), None) => Outcome::AlreadyStored(copies[&index].clone()),
        (Disposition::IdConflict, None) => Outcome::Refused(Refusal::IdTaken),
    });
    let mut permits: Option<Permit> = None;
    let mut replies = Vec::with_capacity(waiting.len());
    for submission in waiting.drain(..) {
        replies.push(submission.reply);
        match &mut permits {
            Some(permits) => permits.merge(submission.permit),
            None => permits = Some(submission.permit),
        }
    }
    // Released before the answers are sent: a sender that has its answer may send again at once, and must get a permit.
    drop(permits);
    let answers: Vec<_> = replies
        .into_iter()
        .zip(commit.counts)
        .map(|(reply, count)| (reply, outcomes.by_ref().take(count).collect::<Outcomes>()))
        .collect();
    runtime.spawn(async move {
        for (reply, outcomes) in answers {
            // The sender may have disconnected. The events are stored regardless.
            let _ = reply.send(outcomes);
        }
    });
}
