//! The term index, a consumer of commits.
//!
//! It reads committed events in the order of their positions and writes, for each batch of them, one row per term: key
//! term · shard · first position, value the offsets of the events that have the term, 2 bytes each. The cursor is in
//! the same column family as the rows, so that a crash loses both or neither: neither is in the write-ahead log, and
//! what is lost is derived again. See `docs/adr/0008-derived-rows-are-not-in-the-write-ahead-log.md`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use tokio::sync::watch;

use super::committed::Committed;
use super::follower::{Cursor, FollowedEvent, Follower, Wake};
use super::term_groups::TermGroups;
use crate::ledger::format::keys::{CURSOR, Location, Position, ShardId, cursor_key};
use crate::ledger::format::terms::{self, Term};
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// The version of the rows. Raised when their meaning changes; an index of another version is deleted and rebuilt.
const FORMAT: u16 = 2;
/// The most events of one batch. Offsets have 2 bytes.
const BATCH_EVENTS: u64 = 4096;
/// A batch ends after the event with which it reaches this number of terms: an event can have a hundred thousand
/// labels.
const BATCH_TERMS: usize = 65_536;
/// How long to wait for more commits before reading.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// How long to wait before a failed pass is retried.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The progress of the index.
pub struct Index {
    cursor: Arc<Cursor>,
    moved: watch::Sender<()>,
}

impl Index {
    /// Reads the cursors. Clears an index of another format or of other events, so that it is rebuilt.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(store: &Store, committed: &Committed) -> Result<Index, StoreError> {
        let mut next = Vec::new();
        for shard in committed.shards() {
            let cursor = store.get(Family::Index, &cursor_key(shard))?.and_then(|row| decode_cursor(&row));
            // An index that is ahead of the events was made from other events.
            next.extend(cursor.filter(|&cursor| cursor <= committed.next(shard)));
        }
        let shards = committed.shards().count();
        if next.len() < shards {
            if committed.events() > 0 {
                tracing::info!(events = committed.events(), "rebuilding index");
            }
            store.clear(Family::Index)?;
            next = vec![Position(0); shards];
        }
        Ok(Index { cursor: Arc::new(Cursor::new(next)), moved: watch::Sender::new(()) })
    }

    /// The position of the first event of a shard that is not in the index.
    pub fn next(&self, shard: ShardId) -> Position {
        self.cursor.next(shard)
    }

    /// The number of committed events that are not in the index.
    pub fn lag(&self, committed: &Committed) -> u64 {
        committed.lag(&self.cursor.positions())
    }

    /// Waits until everything that is committed now is in the index.
    pub async fn catch_up(&self, committed: &Committed) {
        let target: Vec<Position> = committed.shards().map(|shard| committed.next(shard)).collect();
        let is_reached = || committed.shards().zip(&target).all(|(shard, target)| self.next(shard) >= *target);
        let mut moved = self.moved.subscribe();
        while !is_reached() {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    /// Follows the commits until the sender of `stop` is dropped.
    pub fn follow(&self, store: &Store, committed: &Arc<Committed>, stop: &Receiver<()>) {
        let follower = Follower::new(committed, Arc::clone(&self.cursor), DEBOUNCE);
        loop {
            match self.pass(store, &follower, stop) {
                Ok(()) if follower.wait(None, stop) == Wake::Stop => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, retry_after = ?RETRY_DELAY, "index cannot be written; retrying");
                    if !matches!(stop.recv_timeout(RETRY_DELAY), Err(RecvTimeoutError::Timeout)) {
                        return;
                    }
                }
            }
        }
    }

    /// Adds the committed events that are not in the index.
    fn pass(&self, store: &Store, follower: &Follower, stop: &Receiver<()>) -> Result<(), StoreError> {
        let mut terms = TermGroups::default();
        // One batch of each shard in turn, so that no shard waits for another.
        while follower.lag() > 0 {
            for shard in follower.committed().shards() {
                if stop.try_recv() == Err(TryRecvError::Disconnected) {
                    return Ok(());
                }
                let first = follower.next(shard);
                if first < follower.committed().next(shard) {
                    let next = add_batch(store, follower, shard, &mut terms)?;
                    self.cursor.set(shard, next);
                }
            }
            self.moved.send_replace(());
        }
        Ok(())
    }
}

/// Writes the rows of the next events of a shard and the cursor after them. Returns that cursor.
fn add_batch(
    store: &Store,
    follower: &Follower,
    shard: ShardId,
    terms: &mut TermGroups,
) -> Result<Position, StoreError> {
    terms.clear();
    let first = follower.next(shard);
    let next = follower.read(store, shard, BATCH_EVENTS, |location, event| {
        // Less than 4096, the bound of a batch.
        let offset = (location.position.0 - first.0) as u16;
        match event {
            Ok(FollowedEvent::Recent(event)) => event.terms.iter().for_each(|&term| terms.add(term, offset)),
            Ok(FollowedEvent::Stored(record)) => {
                terms::of_event(record.canonical()).into_iter().for_each(|term| terms.add(term, offset));
            }
            // The index continues without the event, which `cairn verify` reports.
            Err(error) => tracing::error!(%error, "event cannot be indexed: run `cairn verify --all`"),
        }
        let is_full = terms.len() >= BATCH_TERMS;
        Ok::<_, StoreError>(if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    let mut batch = store.batch(terms.len() * 12 + 64);
    for (term, offsets) in terms.sorted() {
        store.put(&mut batch, Family::Index, &row_key(term, shard, first), offsets)?;
    }
    store.put(&mut batch, Family::Index, &cursor_key(shard), &encode_cursor(next))?;
    store.write_derived(batch)?;
    Ok(next)
}

/// The length of the key of a row of postings.
pub const ROW_KEY_LEN: usize = 26;

/// The position of an event in the row with this key.
pub fn position_of(key: &[u8; ROW_KEY_LEN], offset: [u8; 2]) -> Position {
    let first = Location::decode(&key[16..]).map_or(0, |location| location.position.0);
    Position(first + u64::from(u16::from_be_bytes(offset)))
}

/// The key of the row of a term in a shard whose offsets are added to `first`.
pub fn row_key(term: Term, shard: ShardId, first: Position) -> [u8; ROW_KEY_LEN] {
    let mut key = [0; ROW_KEY_LEN];
    key[..16].copy_from_slice(&term.0.to_be_bytes());
    key[16..].copy_from_slice(&Location { shard, position: first }.encode());
    key
}

fn encode_cursor(next: Position) -> [u8; 10] {
    // The same layout as a location: 2 bytes, then a position.
    Location { shard: ShardId(FORMAT), position: next }.encode()
}

fn decode_cursor(row: &[u8]) -> Option<Position> {
    let cursor = Location::decode(row)?;
    (cursor.shard.0 == FORMAT).then_some(cursor.position)
}

/// A row of the index.
pub enum IndexRow<'r> {
    /// The cursor of a shard: the events before this position are in the index.
    Cursor(ShardId, Position),
    /// The events of a shard that have a term: the location to which the offsets are added, and the offsets.
    Postings(Term, Location, &'r [[u8; 2]]),
}

impl<'r> IndexRow<'r> {
    /// Decodes a row; `None` if it is damaged: if it is not one that this program writes.
    pub fn decode(key: &[u8], value: &'r [u8]) -> Option<IndexRow<'r>> {
        if let Some(shard) = key.strip_prefix(CURSOR) {
            let shard = ShardId(u16::from_be_bytes(shard.try_into().ok()?));
            return Some(IndexRow::Cursor(shard, decode_cursor(value)?));
        }
        let (term, first) = key.split_first_chunk::<16>()?;
        let (offsets, rest) = value.as_chunks::<2>();
        let in_order = !offsets.is_empty() && offsets.is_sorted_by(|a, b| a < b);
        let is_whole = in_order && rest.is_empty() && u64::from(u16::from_be_bytes(*offsets.last()?)) < BATCH_EVENTS;
        let row = IndexRow::Postings(Term(u128::from_be_bytes(*term)), Location::decode(first)?, offsets);
        is_whole.then_some(row)
    }

    /// The locations of the events in a row of postings, ascending.
    pub fn locations(first: Location, offsets: &[[u8; 2]]) -> impl DoubleEndedIterator<Item = Location> {
        let at = move |offset: &[u8; 2]| Position(first.position.0 + u64::from(u16::from_be_bytes(*offset)));
        offsets.iter().map(move |offset| Location { position: at(offset), ..first })
    }
}

/// The key of a row of postings, and its offsets.
pub type IndexOffsets = ([u8; ROW_KEY_LEN], Vec<[u8; 2]>);

/// Iterates over the positions of one shard's events that have a term.
pub struct Postings<'s> {
    rows: Rows<'s>,
    prefix: [u8; 18],
}

impl<'s> Postings<'s> {
    /// Opens the positions of a term in a shard.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store, term: Term, shard: ShardId) -> Result<Postings<'s>, StoreError> {
        let mut prefix = [0; 18];
        prefix.copy_from_slice(&row_key(term, shard, Position(0))[..18]);
        Ok(Postings { rows: store.rows(Family::Index)?, prefix })
    }

    /// The positions in the current row, ascending; none beyond the ends.
    fn row(&self) -> Result<impl DoubleEndedIterator<Item = Position> + '_, StoreError> {
        let row = self.rows.row()?.filter(|(key, _)| key.starts_with(&self.prefix));
        let (first, offsets) = match row {
            Some((key, offsets)) => (Location::decode(&key[16..]).map_or(0, |location| location.position.0), offsets),
            None => (0, &[][..]),
        };
        let offsets = offsets.as_chunks::<2>().0;
        Ok(offsets.iter().map(move |offset| Position(first + u64::from(u16::from_be_bytes(*offset)))))
    }

    fn key(&self, position: Position) -> [u8; 26] {
        let mut key = [0; 26];
        key[..18].copy_from_slice(&self.prefix);
        key[18..].copy_from_slice(&position.encode());
        key
    }

    /// The key and the offsets of the row that would have the event at `position`; `None` if there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn row_of(&mut self, position: Position) -> Result<Option<IndexOffsets>, StoreError> {
        self.rows.seek_for_prev(&self.key(position));
        let row = self.rows.row()?.filter(|(key, _)| key.starts_with(&self.prefix));
        Ok(row.and_then(|(key, offsets)| Some((*key.first_chunk()?, offsets.as_chunks::<2>().0.to_vec()))))
    }

    /// The first position at or after `from`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn at_or_after(&mut self, from: Position) -> Result<Option<Position>, StoreError> {
        // The row that starts before `from` may contain later positions.
        self.rows.seek_for_prev(&self.key(from));
        if let Some(found) = self.row()?.find(|&position| position >= from) {
            return Ok(Some(found));
        }
        self.rows.seek(&self.key(from));
        let found = self.row()?.find(|&position| position >= from);
        Ok(found)
    }

    /// The last position before `end`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn before(&mut self, end: Position) -> Result<Option<Position>, StoreError> {
        let Some(last) = end.0.checked_sub(1).map(Position) else { return Ok(None) };
        self.rows.seek_for_prev(&self.key(last));
        if let Some(found) = self.row()?.rfind(|&position| position < end) {
            return Ok(Some(found));
        }
        self.rows.prev();
        let found = self.row()?.rfind(|&position| position < end);
        Ok(found)
    }
}
