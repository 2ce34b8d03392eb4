//! Reading every event once: first the leaves of the log in their order, then what the log does not have.
//!
//! A shard's events are leaves in the order in which they stand, so every chain is read from its start to its end too.
//! Reading and inflating has a thread of its own; whole pieces go over to the one that verifies them.

use crossbeam_channel::{Receiver, Sender};

use crate::ledger::events::{Event, Events};
use crate::ledger::keys::{Place, Position};
use crate::ledger::record::RecordRef;
use crate::ledger::store::{Store, StoreError};
use crate::tlog::rows::{LogRows, Progress, Run};

/// How many bytes go over at once. Large enough that waking the other thread costs nothing.
const PIECE_BYTES: usize = 512 << 10;
/// How many events they have at most.
const PIECE_EVENTS: usize = 4096;
/// How many pieces wait at most, and how many are kept to be filled again. Two more are being filled and verified; a piece
/// can be as long as the longest event.
pub const PIECES: usize = 2;

/// Events, in the order in which they were read.
#[derive(Default)]
pub struct Piece {
    bytes: Vec<u8>,
    events: Vec<Kept>,
}

struct Kept {
    place: Option<Place>,
    is_leaf: bool,
    /// Where its bytes end.
    end: usize,
}

/// An event that was read.
pub struct Read<'p> {
    /// Whether it is the log's next leaf.
    pub is_leaf: bool,
    /// What it is.
    pub bytes: &'p [u8],
    /// Where it stands, and its record; or why it has none.
    pub record: Result<(Place, RecordRef<'p>), &'static str>,
}

impl Piece {
    /// Its events.
    pub fn rows(&self) -> Vec<Read<'_>> {
        let mut start = 0;
        let read = |event: &Kept| {
            let bytes = &self.bytes[start..event.end];
            start = event.end;
            let place = event.place.ok_or("its row is damaged");
            let record = place.and_then(|place| RecordRef::parse(bytes).map(|record| (place, record)));
            Read { is_leaf: event.is_leaf, bytes, record }
        };
        self.events.iter().map(read).collect()
    }

    /// Forgets them, and keeps the memory.
    fn clear(&mut self) {
        self.bytes.clear();
        self.events.clear();
    }
}

/// How far the log could be read.
#[derive(Default)]
pub struct Leaves {
    /// How many leaves there are.
    pub count: u64,
    /// The next event of each shard.
    pub next: Vec<Position>,
    /// Why not all of them.
    pub broken: Option<String>,
}

/// Reads events and hands them over.
pub struct Reading<'s> {
    store: &'s Store,
    shards: u16,
    pieces: Sender<Piece>,
    /// Those that were verified, to be filled again.
    verified: Receiver<Piece>,
    piece: Piece,
}

impl<'s> Reading<'s> {
    /// Hands the events of `store`, which has so many shards, to `pieces`, and takes pieces back from `verified`.
    pub fn new(store: &'s Store, shards: u16, pieces: Sender<Piece>, verified: Receiver<Piece>) -> Reading<'s> {
        Reading { store, shards, pieces, verified, piece: Piece::default() }
    }

    /// Reads every event; first the leaves, if `log` tells of them.
    ///
    /// # Errors
    /// When the database cannot be read, or nobody takes the pieces.
    pub fn run(mut self, log: Option<(&LogRows, &Progress)>) -> Result<Leaves, StoreError> {
        let leaves = match log {
            Some((rows, known)) => self.leaves(rows, known)?,
            None => Leaves::default(),
        };
        self.others(&leaves.next)?;
        self.hand_over()?;
        Ok(leaves)
    }

    /// Follows the runs of the log as far as they lead from one event to the next.
    fn leaves(&mut self, rows: &LogRows, known: &Progress) -> Result<Leaves, StoreError> {
        let shards = known.next.len();
        if shards != usize::from(self.shards) {
            return Ok(Leaves { broken: Some("its size is of other shards".to_owned()), ..Leaves::default() });
        }
        let mut leaves = Leaves { count: 0, next: vec![Position(0); shards], broken: None };
        let mut events = Vec::new();
        for shard in LogRows::shards(&known.next) {
            let mut of_shard = Events::scan(self.store, shards)?;
            of_shard.seek(Place { shard, position: Position(0) });
            events.push(of_shard);
        }
        let mut runs = rows.runs()?;
        let mut run = readable(runs.take_next())?;
        while leaves.count < known.size {
            let following = readable(runs.take_next())?;
            let end = following.map_or(known.size, |run| run.leaf).min(known.size);
            leaves.broken = wrong_run(rows, run, end, &leaves);
            let (None, Some(Run { place, .. })) = (&leaves.broken, run) else { return Ok(leaves) };
            if !self.run_of_leaves(&mut events[usize::from(place.shard.0)], place, end, &mut leaves)? {
                leaves.broken = Some(missing(leaves.count));
                return Ok(leaves);
            }
            run = following;
        }
        if leaves.next != known.next {
            leaves.broken = Some("its size is not that of its runs".to_owned());
        }
        Ok(leaves)
    }

    /// Reads the events of a run; false if there are not so many.
    fn run_of_leaves(
        &mut self,
        events: &mut Events<'_>,
        first: Place,
        end: u64,
        leaves: &mut Leaves,
    ) -> Result<bool, StoreError> {
        let mut place = first;
        while leaves.count < end {
            let Some(event) = events.event()? else { return Ok(false) };
            if event.place == Some(place) {
                // Event by event, asking the database took a twentieth of a verification.
                let most = usize::try_from(end - leaves.count).unwrap_or(usize::MAX);
                let taken = events.take_row(most, |event| self.add(event, true))? as u64;
                leaves.count += taken;
                place.position.0 += taken;
                leaves.next[usize::from(first.shard.0)] = place.position;
            } else if event.is_before(place) {
                // Nobody's event.
                self.add(event, false)?;
                events.next();
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the rows that are no leaves: those before a shard's first event, if there are any, and those behind its last
    /// leaf.
    fn others(&mut self, next: &[Position]) -> Result<(), StoreError> {
        let mut events = Events::scan(self.store, 1)?;
        events.seek_first();
        for (shard, next) in LogRows::shards(next).zip(next) {
            self.up_to(&mut events, Some(Place { shard, position: Position(0) }))?;
            let Some(last) = next.0.checked_sub(1) else { continue };
            if events.at(Place { shard, position: Position(last) })?.is_some() {
                events.next();
            }
        }
        self.up_to(&mut events, None)
    }

    /// Reads what stands before `end` and is no leaf.
    fn up_to(&mut self, events: &mut Events<'_>, end: Option<Place>) -> Result<(), StoreError> {
        while let Some(event) = events.event()?.filter(|event| end.is_none_or(|end| event.is_before(end))) {
            self.add(event, false)?;
            events.next();
        }
        Ok(())
    }

    fn add(&mut self, event: Event<'_>, is_leaf: bool) -> Result<(), StoreError> {
        let Piece { bytes, events } = &self.piece;
        let is_full = bytes.len() + event.bytes.len() > PIECE_BYTES || events.len() == PIECE_EVENTS;
        if is_full && !events.is_empty() {
            self.hand_over()?;
        }
        let bytes = &mut self.piece.bytes;
        bytes.extend_from_slice(event.bytes);
        self.piece.events.push(Kept { place: event.place, is_leaf, end: bytes.len() });
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), StoreError> {
        let mut next = self.verified.try_recv().unwrap_or_default();
        next.clear();
        let piece = std::mem::replace(&mut self.piece, next);
        self.pieces.send(piece).map_err(|_| StoreError::BrokenOff)
    }
}

/// What is said of a leaf without an event.
pub fn missing(leaf: u64) -> String {
    format!("the event of leaf {leaf} is missing or cannot be read")
}

/// Why a run, which ends before leaf `end`, does not go on where the one before it ended.
fn wrong_run(rows: &LogRows, run: Option<Run>, end: u64, leaves: &Leaves) -> Option<String> {
    let Some(Run { leaf, place }) = run else {
        return Some(format!("nothing says which event leaf {} is", leaves.count));
    };
    let expected = leaves.next.get(usize::from(place.shard.0)).copied();
    if leaf != leaves.count || expected != Some(place.position) || end <= leaf {
        return Some(format!("the run of leaf {leaf} is not where the one before it ends"));
    }
    if rows.leaf_of(place).ok() != Some(leaf) {
        return Some(format!("the event of leaf {leaf} does not lead back to it"));
    }
    None
}

/// A run that cannot be read is as good as none: the one before it does not end where it should.
fn readable(run: Result<Option<Run>, StoreError>) -> Result<Option<Run>, StoreError> {
    match run {
        Err(StoreError::Damaged { .. }) => Ok(None),
        run => run,
    }
}
