//! One commit in the making, and the answers to everyone who waits for it.

use std::collections::HashMap;

use tokio::runtime::Handle;

use super::queue::{Outcome, Outcomes, Permit, Refusal, Submission};
use super::recover::Tail;
use super::seal::Receipt;
use crate::ledger::format::keys::Run;
use crate::ledger::format::record::{Draft, Record};
use crate::ledger::read::recent::CommittedBatch;
use crate::ledger::store::Batch;
use cairn_proof::chain::AgentKey;

/// What happens to one submitted event.
pub enum Disposition {
    /// It is in the commit: the next of its records.
    New,
    /// It is the same event as the record of the commit at this index.
    SameAs(usize),
    /// It has the id of another event of the commit.
    IdConflict,
    /// It was stored before.
    AlreadyStored(Record),
    /// It is not acknowledged.
    Refused(Refusal),
}

/// One commit in the making.
pub struct CommitBatch {
    /// The rows to write.
    pub rows: Batch,
    /// The new events, in the order of their positions.
    pub records: Vec<Record>,
    /// What happens to each submitted event, in the order of submission.
    pub dispositions: Vec<Disposition>,
    /// How many of the dispositions belong to each submission.
    pub counts: Vec<usize>,
    /// The agents whose chains grow.
    pub touched: Vec<AgentKey>,
    /// The runs that end in this commit.
    pub finished_runs: Vec<(AgentKey, Run)>,
    /// The events for the consumers that follow the ledger.
    pub recent: CommittedBatch,
    /// The tail of the shard after the commit.
    pub tail: Tail,
    /// When the events were received.
    pub receipt: Receipt,
}

/// The events of these submissions.
pub fn drafts(waiting: &[Submission]) -> impl Iterator<Item = &Draft> {
    waiting.iter().flat_map(|submission| &submission.drafts)
}

/// Sends every submission its outcomes, and releases its permits. `failed` is why the commit failed, if it did.
pub fn answer(waiting: &mut Vec<Submission>, commit: CommitBatch, failed: Option<Refusal>, runtime: &Handle) {
    let copies: HashMap<usize, Record> = commit
        .dispositions
        .iter()
        .filter_map(|disposition| match disposition {
            Disposition::SameAs(index) => Some((*index, commit.records[*index].clone())),
            _ => None,
        })
        .collect();
    let mut records = commit.records.into_iter();
    let mut outcomes = commit.dispositions.into_iter().map(|disposition| match (disposition, failed) {
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
    // Released before the answers: a sender may send more as soon as it has its answer, and has to find room.
    drop(permits);
    let answers: Vec<_> = replies
        .into_iter()
        .zip(commit.counts)
        .map(|(reply, count)| (reply, outcomes.by_ref().take(count).collect::<Outcomes>()))
        .collect();
    runtime.spawn(async move {
        for (reply, outcomes) in answers {
            // The sender may have gone. The events are stored all the same.
            let _ = reply.send(outcomes);
        }
    });
}
