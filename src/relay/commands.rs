//! The commands that operators send to a running destination: retry or drop dead letters.

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::ledger::store::StoreError;

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send them again, after everything that waits in their sessions.
    Retry,
    /// Delete them. The events stay in the ledger.
    Drop,
}

/// The result of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandResult {
    /// The number of dead letters that it retried or dropped.
    pub count: u64,
    /// The number of dead letters that remain.
    pub left: u64,
}

/// An action on dead letters, with the channel for its result.
pub struct Command {
    /// What to do.
    pub action: Action,
    /// The event whose dead letter it applies to; `None` for all dead letters, at most 10,000 at a time.
    pub event: Option<Uuid>,
    /// Receives the result.
    pub reply: oneshot::Sender<Result<CommandResult, StoreError>>,
}
