//! What the mapping of log records asks the ledger: the agent and session of the span in which a record was written,
//! and whether a record is stored already.

use uuid::Uuid;

use super::mapping::row::Target;
use crate::ledger::Ledger;
use cairn_proof::chain::{Field, scan};

/// The agent and the session of a stored span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanIdentity {
    /// Absent if the span's agent is only the name of its service, which may not be that of the log record.
    agent: Option<String>,
    session: Option<String>,
}

impl SpanIdentity {
    /// The agent or the session.
    pub fn text(&self, target: Target) -> Option<&str> {
        match target {
            Target::AgentId => self.agent.as_deref(),
            _ => self.session.as_deref(),
        }
    }
}

/// The events that are stored.
pub trait StoredEvents: Sync {
    /// The agent and the session of the event with this id.
    fn identity(&self, id: Uuid) -> Option<SpanIdentity>;

    /// Whether an event with this id is stored.
    fn contains(&self, id: Uuid) -> bool;
}

/// A row that cannot be read counts as absent: the record is then stored without what the row would add.
impl StoredEvents for Ledger {
    fn identity(&self, id: Uuid) -> Option<SpanIdentity> {
        let (_, record) = self.find(id).ok()??;
        let text = |field| record.as_ref().value(field).and_then(scan::text).map(|text| text.into_owned());
        let labels = record.as_ref().value(Field::Labels).unwrap_or_default();
        let service = scan::member(labels, "service.name").and_then(scan::text);
        let agent = text(Field::AgentId).filter(|agent| service.as_deref() != Some(agent));
        Some(SpanIdentity { agent, session: text(Field::SessionId) })
    }

    fn contains(&self, id: Uuid) -> bool {
        self.find(id).is_ok_and(|found| found.is_some())
    }
}

/// No event is stored.
pub struct NoEvents;

impl StoredEvents for NoEvents {
    fn identity(&self, _: Uuid) -> Option<SpanIdentity> {
        None
    }

    fn contains(&self, _: Uuid) -> bool {
        false
    }
}
