//! The term index: the first consumer of commits.
//!
//! It reads committed events in the order of their positions behind a cursor and writes, for a stretch of them, one
//! row per term: key term · shard · first position, value the offsets of the events that have the term, 2 bytes
//! each. The cursor is in the same family as the rows, so that a crash loses both or neither: nothing here is in
//! the write-ahead log, and what is lost is derived again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, TryRecvError};
use tokio::sync::watch;

use super::committed::Committed;
use super::events::Events;
use super::keys::{Place, Position, ShardId};
use super::read;
use super::recent::{Source, Stretch};
use super::store::{Family, Rows, Store, StoreError};
use super::terms::{self, Term};

/// Raised when rows change their meaning: an older index is thrown away and derived again.
const FORMAT: u16 = 2;
/// The most events of one stretch. Offsets have 2 bytes.
const STRETCH_EVENTS: u64 = 4096;
/// A stretch ends behind the event with which it has this many terms: an event can have a hundred thousand labels.
const STRETCH_TERMS: usize = 65_536;
/// How long a word of new events is let lie, so that one pass sees many of them.
const GATHER: Duration = Duration::from_millis(5);
/// How long to wait before a failed pass is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How far the index is.
pub struct Index {
    next: Box<[AtomicU64]>,
    moved: watch::Sender<()>,
}

impl Index {
    /// Reads the cursors; throws away an index of another format.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(store: &Store, committed: &Committed) -> Result<Index, StoreError> {
        let mut next: Vec<AtomicU64> = Vec::new();
        let mut fits = true;
        for shard in committed.shards() {
            let cursor = store.get(Family::Index, &cursor_key(shard))?.and_then(|row| decode_cursor(&row));
            // An index that is ahead of the events belongs to other events.
            let cursor = cursor.filter(|&cursor| cursor <= committed.next(shard));
            fits &= cursor.is_some();
            next.push(AtomicU64::new(cursor.map_or(0, |cursor| cursor.0)));
        }
        if !fits {
            if committed.events() > 0 {
                tracing::info!(events = committed.events(), "the index is derived anew");
            }
            store.clear(Family::Index)?;
            next.iter_mut().for_each(|next| *next.get_mut() = 0);
        }
        Ok(Index { next: next.into(), moved: watch::Sender::new(()) })
    }

    /// The position behind the last event of a shard that is in the index.
    pub fn next(&self, shard: ShardId) -> Position {
        Position(self.next[usize::from(shard.0)].load(Ordering::Acquire))
    }

    /// How many committed events are not in the index yet.
    pub fn lag(&self, committed: &Committed) -> u64 {
        committed.shards().map(|shard| committed.next(shard).0.saturating_sub(self.next(shard).0)).sum()
    }

    /// Waits until everything that is committed now is in the index.
    pub async fn catch_up(&self, committed: &Committed) {
        let goal: Vec<Position> = committed.shards().map(|shard| committed.next(shard)).collect();
        let is_there = || committed.shards().zip(&goal).all(|(shard, goal)| self.next(shard) >= *goal);
        let mut moved = self.moved.subscribe();
        while !is_there() {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    /// Follows the commits until `woken` is disconnected or `stop` says so.
    pub fn follow(&self, store: &Store, committed: &Committed, woken: &Receiver<()>, stop: &Receiver<()>) {
        loop {
            match self.pass(store, committed, stop) {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the index could not be written: it is tried again");
                    if !matches!(stop.recv_timeout(RETRY), Err(RecvTimeoutError::Timeout)) {
                        return;
                    }
                    continue;
                }
            }
            crossbeam_channel::select! {
                recv(woken) -> word => if word.is_err() { return },
                recv(stop) -> _ => return,
            }
            if !matches!(stop.recv_timeout(GATHER), Err(RecvTimeoutError::Timeout)) {
                return;
            }
        }
    }

    /// Takes in what is committed and not in the index.
    fn pass(&self, store: &Store, committed: &Committed, stop: &Receiver<()>) -> Result<(), StoreError> {
        let mut terms = Vec::new();
        // A stretch of each shard in turn, so that none waits for another one.
        while self.lag(committed) > 0 {
            for shard in committed.shards() {
                if stop.try_recv() == Err(TryRecvError::Disconnected) {
                    return Ok(());
                }
                let first = self.next(shard);
                let end = committed.next(shard).0.min(first.0 + STRETCH_EVENTS);
                if first.0 < end {
                    let next = stretch(store, committed, shard, first, Position(end), &mut terms)?;
                    self.next[usize::from(shard.0)].store(next.0, Ordering::Release);
                }
            }
            self.moved.send_replace(());
        }
        Ok(())
    }
}

/// Writes the rows of the events from `first` up to `end`, or a part of them, with the cursor behind them.
fn stretch(
    store: &Store,
    committed: &Committed,
    shard: ShardId,
    first: Position,
    end: Position,
    terms: &mut Vec<(Term, u16)>,
) -> Result<Position, StoreError> {
    terms.clear();
    let mut next = first;
    while next < end && terms.len() < STRETCH_TERMS {
        // Below 4096 by the bound of a stretch.
        let mut add = |position: Position, of_event: &[Term]| {
            terms.extend(of_event.iter().map(|&term| (term, (position.0 - first.0) as u16)));
            terms.len() < STRETCH_TERMS
        };
        next = match committed.source(shard, next) {
            Source::Memory(commit) => from_memory(&commit, next, end, add),
            Source::Disk(until) => from_disk(store, shard, next, until.map_or(end, |until| until.min(end)), &mut add)?,
        };
    }
    terms.sort_unstable();
    terms.dedup();
    let mut batch = store.batch(terms.len() * 12 + 64);
    let mut offsets = Vec::new();
    for same in terms.chunk_by(|a, b| a.0 == b.0) {
        offsets.clear();
        same.iter().for_each(|(_, offset)| offsets.extend_from_slice(&offset.to_be_bytes()));
        store.put(&mut batch, Family::Index, &row_key(same[0].0, shard, first), &offsets)?;
    }
    store.put(&mut batch, Family::Index, &cursor_key(shard), &encode_cursor(next))?;
    store.write_derived(batch)?;
    Ok(next)
}

/// Tells the terms of the events from `next` on, as long as `add` says that there is room; returns where it ended.
fn from_memory(
    commit: &Stretch,
    mut next: Position,
    end: Position,
    mut add: impl FnMut(Position, &[Term]) -> bool,
) -> Position {
    for event in commit.from(next) {
        let position = next;
        if position == end {
            break;
        }
        next = next.next();
        if !add(position, event.terms) {
            break;
        }
    }
    next
}

/// The same for events that are read back.
fn from_disk(
    store: &Store,
    shard: ShardId,
    mut next: Position,
    end: Position,
    mut add: impl FnMut(Position, &[Term]) -> bool,
) -> Result<Position, StoreError> {
    let mut events = Events::new(store)?;
    while next < end {
        let position = next;
        next = next.next();
        let place = Place { shard, position };
        match events.at(place)? {
            Some(record) => match read::parse(store, place, record) {
                Ok(record) if !add(position, &terms::of_event(record.canonical())) => break,
                Ok(_) => {}
                // `cairn verify` names it; the index goes on without it.
                Err(error) => tracing::error!(%error, "an event is missing in the index"),
            },
            None => {
                let (shard, position) = (shard.0, position.0);
                tracing::error!(shard, position, "an event is missing: run `cairn verify --all`");
            }
        }
    }
    Ok(next)
}

fn row_key(term: Term, shard: ShardId, first: Position) -> [u8; 26] {
    let mut key = [0; 26];
    key[..16].copy_from_slice(&term.0.to_be_bytes());
    key[16..].copy_from_slice(&Place { shard, position: first }.encode());
    key
}

/// Shorter than a row's key, so that the two cannot meet.
fn cursor_key(shard: ShardId) -> [u8; 8] {
    let [high, low] = shard.0.to_be_bytes();
    [b'c', b'u', b'r', b's', b'o', b'r', high, low]
}

fn encode_cursor(next: Position) -> [u8; 10] {
    // The same shape as a place: 2 bytes, then a position.
    Place { shard: ShardId(FORMAT), position: next }.encode()
}

fn decode_cursor(row: &[u8]) -> Option<Position> {
    let cursor = Place::decode(row)?;
    (cursor.shard.0 == FORMAT).then_some(cursor.position)
}

/// The positions of one shard's events that have a term.
pub struct Postings<'s> {
    rows: Rows<'s>,
    prefix: [u8; 18],
}

impl<'s> Postings<'s> {
    /// Stands nowhere: seek first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store, term: Term, shard: ShardId) -> Result<Postings<'s>, StoreError> {
        let mut prefix = [0; 18];
        prefix.copy_from_slice(&row_key(term, shard, Position(0))[..18]);
        Ok(Postings { rows: store.rows(Family::Index)?, prefix })
    }

    /// The row's positions, rising; empty beyond the ends.
    fn row(&self) -> Result<impl DoubleEndedIterator<Item = Position> + '_, StoreError> {
        let row = self.rows.row()?.filter(|(key, _)| key.starts_with(&self.prefix));
        let (first, offsets) = match row {
            Some((key, offsets)) => (Place::decode(&key[16..]).map_or(0, |place| place.position.0), offsets),
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

    /// The first position at or behind `from`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn at_or_after(&mut self, from: Position) -> Result<Option<Position>, StoreError> {
        // The row that starts before `from` may reach beyond it.
        self.rows.seek_back(&self.key(from));
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
        self.rows.seek_back(&self.key(last));
        if let Some(found) = self.row()?.rfind(|&position| position < end) {
            return Ok(Some(found));
        }
        self.rows.back();
        let found = self.row()?.rfind(|&position| position < end);
        Ok(found)
    }
}
