//! One commit in the making, and what is told of it to those who wait.

use std::collections::HashMap;

use tokio::runtime::Handle;

use super::keys::Run;
use super::queue::{Outcome, Outcomes, Permit, Refusal, Submission};
use super::recent::Stretch;
use super::record::{Draft, Record};
use super::recover::Tail;
use super::seal::Before;
use super::store::Batch;
use crate::chain::{AgentKey, time};

/// What is known of one event before the commit.
pub enum Verdict {
    /// It is in the commit: the next of its records.
    Fresh,
    /// It is the same event as the one at this index.
    SameAs(usize),
    /// It has the id of another event of the commit.
    Conflict,
    /// It is stored.
    Known(Record),
    /// It is not acknowledged.
    Refused(Refusal),
}

/// One commit in the making.
pub struct Round {
    /// The rows.
    pub batch: Batch,
    /// The new events, in the order of their places.
    pub records: Vec<Record>,
    /// What stands before each of them in its chain.
    pub before: Vec<Before>,
    /// What is known of each event that waited.
    pub verdicts: Vec<Verdict>,
    /// How many of the verdicts belong to each submission.
    pub counts: Vec<usize>,
    /// The agents whose chains grow.
    pub touched: Vec<AgentKey>,
    /// Runs that end in this commit.
    pub finished: Vec<(AgentKey, Run)>,
    /// For those who follow behind.
    pub told: Stretch,
    /// Where the shard will be after the commit.
    pub tail: Tail,
    /// When its events were received, in RFC 3339.
    pub received_at: [u8; time::LEN],
}

/// The events of these submissions.
pub fn drafts(waiting: &[Submission]) -> impl Iterator<Item = &Draft> {
    waiting.iter().flat_map(|submission| &submission.drafts)
}

/// Tells everybody what became of their events, and gives their places back.
pub fn answer(waiting: &mut Vec<Submission>, round: Round, failed: Option<Refusal>, runtime: &Handle) {
    let copies: HashMap<usize, Record> = round
        .verdicts
        .iter()
        .filter_map(|verdict| match verdict {
            Verdict::SameAs(index) => Some((*index, round.records[*index].clone())),
            _ => None,
        })
        .collect();
    let mut records = round.records.into_iter();
    let mut outcomes = round.verdicts.into_iter().map(|verdict| match (verdict, failed) {
        (Verdict::Known(record), _) => Outcome::Known(record),
        (Verdict::Refused(refusal), _) => Outcome::Refused(refusal),
        (_, Some(refusal)) => Outcome::Refused(refusal),
        (Verdict::Fresh, None) => records.next().map_or(Outcome::Refused(Refusal::Unreadable), Outcome::Stored),
        (Verdict::SameAs(index), None) => Outcome::Known(copies[&index].clone()),
        (Verdict::Conflict, None) => Outcome::Refused(Refusal::IdTaken),
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
    // Before the answers: who hears one may send more at once, and shall find the places.
    drop(permits);
    let answers: Vec<_> = replies
        .into_iter()
        .zip(round.counts)
        .map(|(reply, count)| (reply, outcomes.by_ref().take(count).collect::<Outcomes>()))
        .collect();
    runtime.spawn(async move {
        for (reply, outcomes) in answers {
            // Nobody may be listening any more. The events are stored all the same.
            let _ = reply.send(outcomes);
        }
    });
}
