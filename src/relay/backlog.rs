//! The durable state of a destination: the family `relay`.
//!
//! Every key starts with the length of the destination's name (u8), the name, and the kind of the row:
//!
//! | kind | rest of the key | value |
//! |---|---|---|
//! | `c` cursor | | next ticket u64, acknowledged events u64, then the position of the next event of each shard u64 |
//! | `w` waiting | session, 16 bytes · ticket u64 | location of an event that was read and is not acknowledged |
//! | `s` session | session, 16 bytes | recipient, 8 bytes, to which the session was announced |
//! | `d` dead letter | event id, 16 bytes | JSON: see [`DeadLetter`] |
//!
//! An event before the cursor was acknowledged, is a dead letter, was filtered out, or has a waiting row: the batch
//! that moves the cursor also writes those rows. So a session that is stuck holds up neither the cursor nor other
//! sessions, and after a crash only the events that were in flight are sent again.
//!
//! Rows are written to the write-ahead log without a sync: after a power loss the latest acknowledgements may be
//! missing, and those events are sent again, with the same id.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::destination::SessionKey;
use super::sessions::WaitingEvent;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::store::{Family, Row, Rows, Store, StoreError};

/// The progress of a destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCursor {
    /// The ticket of the next event that is read. Tickets number events in the order in which they are read.
    pub ticket: u64,
    /// The number of events acknowledged since the destination was created.
    pub sent: u64,
    /// The position of the next event of each shard.
    pub next: Vec<Position>,
}

/// An event that the upstream refused permanently.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The shard of the event.
    shard: u16,
    /// The position of the event in its shard.
    position: u64,
    session: [u8; 16],
    /// The status of the upstream's response.
    pub status: u16,
    /// The start of the upstream's response body.
    pub answer: String,
    /// When it was refused, in ms since 1970.
    pub refused_ms: u64,
    /// Whether the announcement of the session was refused, rather than the event.
    pub is_session: bool,
}

impl DeadLetter {
    /// A dead letter for the event at `location`.
    pub fn new(
        location: Location,
        session: SessionKey,
        status: u16,
        answer: String,
        refused_ms: u64,
        is_session: bool,
    ) -> DeadLetter {
        let (shard, position) = (location.shard.0, location.position.0);
        DeadLetter { shard, position, session: session.0, status, answer, refused_ms, is_session }
    }

    /// The location of the event.
    pub fn location(&self) -> Location {
        Location { shard: ShardId(self.shard), position: Position(self.position) }
    }

    /// The session of the event.
    pub fn session(&self) -> SessionKey {
        SessionKey(self.session)
    }
}

/// The names of all destinations that have rows, including those that are not configured any more.
///
/// # Errors
/// When the database cannot be read.
pub fn names(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut rows = store.rows(Family::Relay)?;
    rows.seek_first();
    let mut names = Vec::new();
    while let Some((key, _)) = rows.row()? {
        let Some(name) = key.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len))) else { break };
        names.push(String::from_utf8_lossy(name).into_owned());
        // After all rows of this destination.
        let after = [&key[..=name.len()], &[u8::MAX]].concat();
        rows.seek(&after);
    }
    Ok(names)
}

/// The rows of one destination.
#[derive(Clone)]
pub struct Backlog {
    store: Arc<Store>,
    prefix: Vec<u8>,
}

/// Changes of rows that are written together.
#[derive(Default)]
pub struct RowChanges {
    /// Each key with its new value; `None` deletes the row.
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl RowChanges {
    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Removes all changes.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

impl Backlog {
    /// The rows of the destination with this name, which has at most 64 bytes.
    pub fn new(store: Arc<Store>, name: &str) -> Backlog {
        let mut prefix = vec![u8::try_from(name.len()).unwrap_or(u8::MAX)];
        prefix.extend_from_slice(name.as_bytes());
        Backlog { store, prefix }
    }

    fn key(&self, kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = Vec::with_capacity(self.prefix.len() + 25);
        key.extend_from_slice(&self.prefix);
        key.push(kind);
        parts.iter().for_each(|part| key.extend_from_slice(part));
        key
    }

    /// Writes all changes atomically.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn write(&self, changes: &RowChanges) -> Result<(), StoreError> {
        let mut batch = self.store.batch(64 * changes.rows.len());
        for (key, value) in &changes.rows {
            match value {
                Some(value) => self.store.put(&mut batch, Family::Relay, key, value)?,
                None => self.store.delete(&mut batch, Family::Relay, key)?,
            }
        }
        self.store.write(batch)
    }

    /// The stored cursor; `None` for a new destination.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn cursor(&self) -> Result<Option<RelayCursor>, StoreError> {
        let Some(row) = self.store.get(Family::Relay, &self.key(b'c', &[]))? else { return Ok(None) };
        let mut numbers = row.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let (ticket, sent) = (numbers.next(), numbers.next());
        let next = numbers.map(Position).collect();
        let damaged = || self.store.damaged("the cursor row of a relay destination is damaged");
        Ok(Some(RelayCursor { ticket: ticket.ok_or_else(damaged)?, sent: sent.ok_or_else(damaged)?, next }))
    }

    /// Stores the cursor.
    pub fn set_cursor(&self, changes: &mut RowChanges, cursor: &RelayCursor) {
        let numbers = [cursor.ticket, cursor.sent].into_iter().chain(cursor.next.iter().map(|next| next.0));
        changes.rows.push((self.key(b'c', &[]), Some(numbers.flat_map(u64::to_be_bytes).collect())));
    }

    /// Stores that an event waits.
    pub fn insert_waiting(&self, changes: &mut RowChanges, session: SessionKey, event: WaitingEvent) {
        let key = self.key(b'w', &[&session.0, &event.ticket.to_be_bytes()]);
        changes.rows.push((key, Some(event.location.encode().to_vec())));
    }

    /// Removes an event that does not wait any more.
    pub fn remove_waiting(&self, changes: &mut RowChanges, session: SessionKey, event: WaitingEvent) {
        changes.rows.push((self.key(b'w', &[&session.0, &event.ticket.to_be_bytes()]), None));
    }

    /// The first `count` waiting events of a session after a ticket. The session must have that many: reading past the
    /// last one would scan all rows that were deleted there.
    ///
    /// # Errors
    /// When the database cannot be read, or a row is missing.
    pub fn waiting_after(
        &self,
        session: SessionKey,
        ticket: u64,
        count: usize,
    ) -> Result<VecDeque<WaitingEvent>, StoreError> {
        let mut rows = self.store.rows(Family::Relay)?;
        let mut found = VecDeque::with_capacity(count);
        rows.seek(&self.key(b'w', &[&session.0, &ticket.saturating_add(1).to_be_bytes()]));
        loop {
            match self.waiting_at(&rows)? {
                Some((of, event)) if of == session => found.push_back(event),
                _ => return Err(self.store.damaged("the row of an event waiting for the relay is missing")),
            }
            if found.len() == count {
                return Ok(found);
            }
            rows.next();
        }
    }

    /// Passes every waiting event to `visit`, by session and in the order of tickets.
    ///
    /// # Errors
    /// When the database cannot be read, and when `visit` fails.
    pub fn for_each_waiting(
        &self,
        mut visit: impl FnMut(SessionKey, WaitingEvent) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Relay)?;
        rows.seek(&self.key(b'w', &[]));
        while let Some((session, event)) = self.waiting_at(&rows)? {
            visit(session, event)?;
            rows.next();
        }
        Ok(())
    }

    fn waiting_at(&self, rows: &Rows<'_>) -> Result<Option<(SessionKey, WaitingEvent)>, StoreError> {
        let Some((key, value)) = self.row_of_kind(rows, b'w')? else { return Ok(None) };
        let session = key.first_chunk::<16>().map(|session| SessionKey(*session));
        let ticket = key.last_chunk::<8>().map(|ticket| u64::from_be_bytes(*ticket));
        let (Some(session), Some(ticket), Some(location)) = (session, ticket, Location::decode(value)) else {
            return Err(self.store.damaged("the row of an event waiting for the relay is damaged"));
        };
        Ok(Some((session, WaitingEvent { ticket, location })))
    }

    /// The current row without the prefix of its key; `None` if it is not a row of this kind.
    fn row_of_kind<'r>(&self, rows: &'r Rows<'_>, kind: u8) -> Result<Option<Row<'r>>, StoreError> {
        let row = rows.row()?;
        Ok(row.and_then(|(key, value)| Some((key.strip_prefix(&self.prefix[..])?.strip_prefix(&[kind])?, value))))
    }

    /// Whether the session was announced to this recipient.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_announced(&self, session: SessionKey, recipient: [u8; 8]) -> Result<bool, StoreError> {
        let row = self.store.get(Family::Relay, &self.key(b's', &[&session.0]))?;
        Ok(row.is_some_and(|row| *row == recipient))
    }

    /// Stores that the session was announced to a recipient.
    pub fn set_announced(&self, changes: &mut RowChanges, session: SessionKey, recipient: [u8; 8]) {
        changes.rows.push((self.key(b's', &[&session.0]), Some(recipient.to_vec())));
    }

    /// Removes that the session was announced.
    pub fn remove_announced(&self, changes: &mut RowChanges, session: SessionKey) {
        changes.rows.push((self.key(b's', &[&session.0]), None));
    }

    /// Stores a dead letter.
    pub fn insert_dead_letter(&self, changes: &mut RowChanges, event: Uuid, letter: &DeadLetter) {
        // Serializing this type cannot fail.
        let value = serde_json::to_vec(letter).unwrap_or_default();
        changes.rows.push((self.key(b'd', &[event.as_bytes()]), Some(value)));
    }

    /// Removes a dead letter.
    pub fn remove_dead_letter(&self, changes: &mut RowChanges, event: Uuid) {
        changes.rows.push((self.key(b'd', &[event.as_bytes()]), None));
    }

    /// The dead letter of an event; `None` if the event has none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_letter(&self, event: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        let row = self.store.get(Family::Relay, &self.key(b'd', &[event.as_bytes()]))?;
        row.map(|row| self.decode_dead_letter(&row)).transpose()
    }

    fn decode_dead_letter(&self, row: &[u8]) -> Result<DeadLetter, StoreError> {
        serde_json::from_slice(row)
            .map_err(|error| self.store.damaged(format!("the row of a dead letter is damaged: {error}")))
    }

    /// The first `limit` dead letters after an id, in the order of event ids.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_letters(&self, after: Option<Uuid>, limit: usize) -> Result<Vec<(Uuid, DeadLetter)>, StoreError> {
        let mut rows = self.store.rows(Family::Relay)?;
        match after {
            Some(id) => rows.seek(&self.key(b'd', &[id.as_bytes(), &[0]])),
            None => rows.seek(&self.key(b'd', &[])),
        }
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((id, value)) = self.row_of_kind(&rows, b'd')?
        {
            found.push((Uuid::from_slice(id).unwrap_or_default(), self.decode_dead_letter(value)?));
            rows.next();
        }
        Ok(found)
    }

    /// The number of dead letters.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_dead_letters(&self) -> Result<u64, StoreError> {
        let mut rows = self.store.scan(Family::Relay)?;
        rows.seek(&self.key(b'd', &[]));
        let mut count = 0;
        while self.row_of_kind(&rows, b'd')?.is_some() {
            count += 1;
            rows.next();
        }
        Ok(count)
    }
}
