//! Stores the events of the recorder, each in a commit of its shard, as those of clients.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use smallvec::smallvec;
use uuid::Uuid;

use super::read::{id_of, read};
use crate::ledger::Ledger;
use crate::ledger::format::record::{Draft, Record};
use crate::ledger::read::lookup;
use crate::ledger::shard::queue::Outcome;
use crate::ledger::store::StoreError;
use cairn_proof::chain::{AgentKey, EventReader, EventSource, Field, Sequence, scan};
use cairn_proof::evidence::recorder::action;

/// Why an event of the recorder was not stored.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// The server is shutting down.
    #[error("the server is shutting down")]
    Closed,
    /// The commit failed, for example because the disk is full.
    #[error("the commit failed, for example because the disk is full")]
    Refused,
}

/// The number of its last events among which the last one of a run is looked for.
const CHECKED_EVENTS: u64 = 256;

/// The agent of the server's own events.
pub struct Recorder {
    ledger: Arc<Ledger>,
    agent_id: String,
    /// The session of this run of the server.
    run: Uuid,
}

impl Recorder {
    /// The recorder of a ledger. Each start of the server is a session of its own.
    pub fn new(ledger: Arc<Ledger>) -> Recorder {
        let agent_id = id_of(ledger.instance());
        Recorder { ledger, agent_id, run: Uuid::new_v4() }
    }

    /// The id of the agent.
    pub fn agent_id(&self) -> &str {
        &self.agent_id
    }

    /// The ledger.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether the last run of the server ended with its last event: `None` if there was none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn was_stopped(&self) -> Result<Option<bool>, StoreError> {
        let store = self.ledger.store();
        let Some(agent) = lookup::agent(store, AgentKey::of(&self.agent_id))? else { return Ok(None) };
        let from = Sequence(agent.sequence.0.saturating_sub(CHECKED_EVENTS).max(1));
        let mut was_stopped = None;
        read(store, self.ledger.instance(), from, |_, record| {
            let name = record.value(Field::ActionName).and_then(scan::text).unwrap_or_default();
            // Erasures, holds and dropped events are recorded whether or not the recorder is on, and may come after the stop.
            if ![action::ERASURE, action::HOLD, action::RETENTION].contains(&&*name) {
                was_stopped = Some(name == action::STOP);
            }
            Ok(())
        })?;
        Ok(was_stopped)
    }

    /// Stores an event, and returns it when it is on disk.
    ///
    /// # Errors
    /// When it could not be stored, or it is unknown whether it was.
    pub async fn record(&self, action: &str, input: &Value, output: Option<&Value>) -> Result<Record, NotRecorded> {
        self.record_as(Uuid::new_v4(), action, input, output).await
    }

    /// Stores an event like [`Recorder::record`], under an id with which it can be tried again and is stored once.
    ///
    /// # Errors
    /// As for [`Recorder::record`].
    pub async fn record_as(
        &self,
        id: Uuid,
        action: &str,
        input: &Value,
        output: Option<&Value>,
    ) -> Result<Record, NotRecorded> {
        let draft = self.draft(id, action, input, output);
        let queue = &self.ledger.queues()[usize::from(self.ledger.shard_of(draft.agent).0)];
        let permit = queue.admit(1, draft.memory_bytes()).await.map_err(|_| NotRecorded::Closed)?;
        let answer = queue.submit(smallvec![draft], permit, Instant::now()).map_err(|_| NotRecorded::Closed)?;
        match answer.await.map_err(|_| NotRecorded::Closed)?.pop() {
            Some(Outcome::Stored(record) | Outcome::AlreadyStored(record)) => Ok(record),
            Some(Outcome::Refused(_)) | None => Err(NotRecorded::Refused),
        }
    }

    fn draft(&self, id: Uuid, action: &str, input: &Value, output: Option<&Value>) -> Draft {
        let event = json!({
            "id": id.to_string(),
            "agent_id": self.agent_id,
            "action_name": action,
            "action_input": input,
            "action_output": output,
            "session_id": self.run.to_string(),
        });
        let source = EventSource::RECORDER.with_labels(self.ledger.default_labels());
        let mut reader = EventReader::default();
        let (event, source) = (event.to_string(), source.with_salt(self.ledger.config().salt));
        // The event has the form of one, whatever its input is.
        match reader.read(&event, 0, source, usize::MAX) {
            Ok((content, _)) => Draft::new(&content),
            Err(error) => unreachable!("an event of the recorder is invalid: {}", error.message),
        }
    }
}
