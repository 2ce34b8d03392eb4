//! What operators ask of a destination while it runs: dead letters are sent again, or dropped.

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::ledger::store::StoreError;

/// What to do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send them again, behind everything that waits in their sessions.
    Retry,
    /// Forget them. The events stay in the ledger.
    Drop,
}

/// What an order did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// To so many dead letters.
    pub count: u64,
    /// So many are left.
    pub left: u64,
}

/// An action, and who waits for what came of it.
pub struct Command {
    /// What to do.
    pub action: Action,
    /// To the dead letter of this event, or to all; not to more than 10,000 of them.
    pub event: Option<Uuid>,
    /// Gets the number.
    pub reply: oneshot::Sender<Result<Moved, StoreError>>,
}
