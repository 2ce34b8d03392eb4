//! What a destination has and has not, on disk: the family `relay`.
//!
//! Every key starts with the destination: the length of its name u8, and the name. Behind it stands the kind:
//!
//! | kind | rest of the key | value |
//! |---|---|---|
//! | `c` cursor | | next ticket u64, acknowledged events u64, then a position u64 per shard: everything before them was read |
//! | `w` waiting | session, 16 bytes · ticket u64 | place: an event that was read and not acknowledged |
//! | `s` session | session, 16 bytes | recipient, 8 bytes: it was announced to them |
//! | `d` dead letter | event id, 16 bytes | JSON: see [`DeadLetter`] |
//!
//! An event is behind the cursor only when it was acknowledged, is a dead letter, was filtered out, or has a row that
//! says that it waits: the cursor moves in the batch that writes those rows. So a session that is stuck holds up
//! neither the cursor nor the others, and a start after a crash sends again what was in flight, and nothing else.
//!
//! Rows are in the write-ahead log, but nobody waits for the disk: after a power loss the latest acknowledgements may be
//! missing, and those events are sent again, with the same id.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::destination::SessionKey;
use super::sessions::Waiting;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::store::{Family, Row, Rows, Store, StoreError};

/// How far a destination is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayCursor {
    /// What the next event that is read gets.
    pub ticket: u64,
    /// How many events were acknowledged, ever.
    pub sent: u64,
    /// The next event of each shard.
    pub next: Vec<Position>,
}

/// An event that the upstream will never take.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its shard.
    shard: u16,
    /// Its position there.
    position: u64,
    session: [u8; 16],
    /// The status of the upstream's answer.
    pub status: u16,
    /// What the upstream said, or the start of it.
    pub answer: String,
    /// When, in ms since 1970.
    pub refused_ms: u64,
    /// Whether the announcement of its session was refused, and not the event itself.
    pub is_session: bool,
}

impl DeadLetter {
    /// Of the event at `place`.
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

    /// Where the event stands.
    pub fn location(&self) -> Location {
        Location { shard: ShardId(self.shard), position: Position(self.position) }
    }

    /// The session of the event.
    pub fn session(&self) -> SessionKey {
        SessionKey(self.session)
    }
}

/// The names of all destinations that ever were.
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
        // Behind every kind of row.
        let behind = [&key[..=name.len()], &[u8::MAX]].concat();
        rows.seek(&behind);
    }
    Ok(names)
}

/// The rows of one destination.
#[derive(Clone)]
pub struct Backlog {
    store: Arc<Store>,
    prefix: Vec<u8>,
}

/// Rows that change together.
#[derive(Default)]
pub struct Changes {
    /// Each key with its new value, or none.
    rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

impl Changes {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Forgets them.
    pub fn clear(&mut self) {
        self.rows.clear();
    }
}

impl Backlog {
    /// Of the destination with that name. Names have at most 64 bytes.
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

    /// Writes all changes or none.
    ///
    /// # Errors
    /// When the database takes no writes.
    pub fn write(&self, changes: &Changes) -> Result<(), StoreError> {
        let mut batch = self.store.batch(64 * changes.rows.len());
        for (key, value) in &changes.rows {
            match value {
                Some(value) => self.store.put(&mut batch, Family::Relay, key, value)?,
                None => self.store.delete(&mut batch, Family::Relay, key)?,
            }
        }
        self.store.write(batch)
    }

    /// How far the destination is; `None` if it is new.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn cursor(&self) -> Result<Option<RelayCursor>, StoreError> {
        let Some(row) = self.store.get(Family::Relay, &self.key(b'c', &[]))? else { return Ok(None) };
        let mut numbers = row.as_chunks::<8>().0.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let (ticket, sent) = (numbers.next(), numbers.next());
        let next = numbers.map(Position).collect();
        let damaged = || self.store.damaged("the cursor of a destination of the relay cannot be read");
        Ok(Some(RelayCursor { ticket: ticket.ok_or_else(damaged)?, sent: sent.ok_or_else(damaged)?, next }))
    }

    /// The destination is that far.
    pub fn set_cursor(&self, changes: &mut Changes, cursor: &RelayCursor) {
        let numbers = [cursor.ticket, cursor.sent].into_iter().chain(cursor.next.iter().map(|next| next.0));
        changes.rows.push((self.key(b'c', &[]), Some(numbers.flat_map(u64::to_be_bytes).collect())));
    }

    /// An event waits.
    pub fn add(&self, changes: &mut Changes, session: SessionKey, event: Waiting) {
        let key = self.key(b'w', &[&session.0, &event.ticket.to_be_bytes()]);
        changes.rows.push((key, Some(event.location.encode().to_vec())));
    }

    /// An event does not wait any more.
    pub fn remove(&self, changes: &mut Changes, session: SessionKey, event: Waiting) {
        changes.rows.push((self.key(b'w', &[&session.0, &event.ticket.to_be_bytes()]), None));
    }

    /// The first `count` events of a session that wait behind a ticket. There have to be so many: a look beyond the
    /// last one would pass over all rows that were removed there.
    ///
    /// # Errors
    /// When the database cannot be read, or they are not there.
    pub fn waiting_behind(
        &self,
        session: SessionKey,
        ticket: u64,
        count: usize,
    ) -> Result<VecDeque<Waiting>, StoreError> {
        let mut rows = self.store.rows(Family::Relay)?;
        let mut found = VecDeque::with_capacity(count);
        rows.seek(&self.key(b'w', &[&session.0, &ticket.saturating_add(1).to_be_bytes()]));
        loop {
            match self.waiting_at(&rows)? {
                Some((of, event)) if of == session => found.push_back(event),
                _ => return Err(self.store.damaged("an event that waits for the relay has no row")),
            }
            if found.len() == count {
                return Ok(found);
            }
            rows.next();
        }
    }

    /// Tells every event that waits, by session and in the order of its tickets.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn each_waiting(
        &self,
        mut tell: impl FnMut(SessionKey, Waiting) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Relay)?;
        rows.seek(&self.key(b'w', &[]));
        while let Some((session, event)) = self.waiting_at(&rows)? {
            tell(session, event)?;
            rows.next();
        }
        Ok(())
    }

    fn waiting_at(&self, rows: &Rows<'_>) -> Result<Option<(SessionKey, Waiting)>, StoreError> {
        let Some((key, value)) = self.of_kind(rows, b'w')? else { return Ok(None) };
        let session = key.first_chunk::<16>().map(|session| SessionKey(*session));
        let ticket = key.last_chunk::<8>().map(|ticket| u64::from_be_bytes(*ticket));
        let (Some(session), Some(ticket), Some(location)) = (session, ticket, Location::decode(value)) else {
            return Err(self.store.damaged("a row of an event that waits for the relay cannot be read"));
        };
        Ok(Some((session, Waiting { ticket, location })))
    }

    /// The row at this place, the start of its key left out, if it is one of that kind.
    fn of_kind<'r>(&self, rows: &'r Rows<'_>, kind: u8) -> Result<Option<Row<'r>>, StoreError> {
        let row = rows.row()?;
        Ok(row.and_then(|(key, value)| Some((key.strip_prefix(&self.prefix[..])?.strip_prefix(&[kind])?, value))))
    }

    /// Whether the session was announced to that recipient.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_announced(&self, session: SessionKey, recipient: [u8; 8]) -> Result<bool, StoreError> {
        let row = self.store.get(Family::Relay, &self.key(b's', &[&session.0]))?;
        Ok(row.is_some_and(|row| *row == recipient))
    }

    /// The session was announced.
    pub fn announced(&self, changes: &mut Changes, session: SessionKey, recipient: [u8; 8]) {
        changes.rows.push((self.key(b's', &[&session.0]), Some(recipient.to_vec())));
    }

    /// The upstream will never take this event.
    pub fn insert_dead_letter(&self, changes: &mut Changes, event: Uuid, letter: &DeadLetter) {
        // The type is our own: it has a form in JSON.
        let value = serde_json::to_vec(letter).unwrap_or_default();
        changes.rows.push((self.key(b'd', &[event.as_bytes()]), Some(value)));
    }

    /// A dead letter is none any more.
    pub fn remove_dead_letter(&self, changes: &mut Changes, event: Uuid) {
        changes.rows.push((self.key(b'd', &[event.as_bytes()]), None));
    }

    /// The dead letter of an event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_letter(&self, event: Uuid) -> Result<Option<DeadLetter>, StoreError> {
        let row = self.store.get(Family::Relay, &self.key(b'd', &[event.as_bytes()]))?;
        row.map(|row| self.read_letter(&row)).transpose()
    }

    fn read_letter(&self, row: &[u8]) -> Result<DeadLetter, StoreError> {
        serde_json::from_slice(row)
            .map_err(|error| self.store.damaged(format!("a dead letter cannot be read: {error}")))
    }

    /// The first dead letters behind an id, in the order of the ids of their events.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn dead_letters(&self, behind: Option<Uuid>, limit: usize) -> Result<Vec<(Uuid, DeadLetter)>, StoreError> {
        let mut rows = self.store.rows(Family::Relay)?;
        match behind {
            Some(id) => rows.seek(&self.key(b'd', &[id.as_bytes(), &[0]])),
            None => rows.seek(&self.key(b'd', &[])),
        }
        let mut found = Vec::new();
        while found.len() < limit
            && let Some((id, value)) = self.of_kind(&rows, b'd')?
        {
            found.push((Uuid::from_slice(id).unwrap_or_default(), self.read_letter(value)?));
            rows.next();
        }
        Ok(found)
    }

    /// How many dead letters there are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn count_dead_letters(&self) -> Result<u64, StoreError> {
        let mut rows = self.store.scan(Family::Relay)?;
        rows.seek(&self.key(b'd', &[]));
        let mut count = 0;
        while self.of_kind(&rows, b'd')?.is_some() {
            count += 1;
            rows.next();
        }
        Ok(count)
    }
}
