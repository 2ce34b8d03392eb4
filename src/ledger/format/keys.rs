//! Keys and values of the column families, except for records, which are in [`super::record`]. The table is in
//! [`crate::ledger`].
//!
//! All integers are big-endian, so that keys sort in numeric order.

use uuid::Uuid;

use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// The number of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// The number of an event in its shard: 0, 1, 2 ... in the order of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// The location of an event: its shard and its position there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The shard.
    pub shard: ShardId,
    /// The position in the shard.
    pub position: Position,
}

/// Concatenates the parts of a key or value, whose lengths must add up to `N`.
pub(super) fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut joined = [0; N];
    let mut rest = &mut joined[..];
    for part in parts {
        let (slot, after) = rest.split_at_mut(part.len());
        slot.copy_from_slice(part);
        rest = after;
    }
    debug_assert!(rest.is_empty());
    joined
}

/// Removes the first `N` bytes of `bytes` and returns them.
pub(super) fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// The largest number that is accepted in a row. The ledger never counts that far, so a larger number means damage; and
/// sums with a number from a forged row do not overflow.
const MAX_NUMBER: u64 = i64::MAX as u64;

pub(super) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_be_bytes).filter(|&number| number <= MAX_NUMBER)
}

impl Location {
    /// Whether `other` is the location directly after this one.
    pub fn is_followed_by(self, other: Location) -> bool {
        self.shard == other.shard && self.position.0.checked_add(1) == Some(other.position.0)
    }

    /// The key of the frame in `events` whose last event is stored here, and the value in `client_ids`.
    pub fn encode(self) -> [u8; 10] {
        join(&[&self.shard.0.to_be_bytes(), &self.position.0.to_be_bytes()])
    }

    /// Decodes what [`Location::encode`] wrote; `None` if it is damaged.
    pub fn decode(mut bytes: &[u8]) -> Option<Location> {
        let shard = ShardId(take(&mut bytes).map(u16::from_be_bytes)?);
        let position = Position(take_u64(&mut bytes)?);
        bytes.is_empty().then_some(Location { shard, position })
    }
}

/// A run: consecutive events of one agent at consecutive positions. The last run of an agent is in the agent's row in
/// `agents` until an event does not continue it; all earlier runs are rows of `chain`. See
/// `docs/adr/0005-the-run-at-the-head-is-in-the-agent-row.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The sequence of the first event.
    pub first: Sequence,
    /// The location of the first event; the other events follow it.
    pub location: Location,
    /// The number of events.
    pub count: u32,
}

impl Run {
    /// The key in `chain` of the run of `agent` that starts at `first`.
    pub fn key(agent: AgentKey, first: Sequence) -> [u8; 24] {
        join(&[&agent.0, &first.0.to_be_bytes()])
    }

    /// The value in `chain`.
    pub fn encode(self) -> [u8; 14] {
        join(&[&self.location.encode(), &self.count.to_be_bytes()])
    }

    /// Decodes a row of `chain`; `None` if it is damaged.
    pub fn decode(mut key: &[u8], mut value: &[u8]) -> Option<(AgentKey, Run)> {
        let agent = AgentKey(take(&mut key)?);
        let first = Sequence(take_u64(&mut key)?);
        let (location, count) = Run::take(&mut value)?;
        (key.is_empty() && value.is_empty()).then_some((agent, Run { first, location, count }))
    }

    fn take(bytes: &mut &[u8]) -> Option<(Location, u32)> {
        Some((Location::decode(&take::<10>(bytes)?)?, take(bytes).map(u32::from_be_bytes)?))
    }

    /// The part of the run that begins at `first` or later; `None` if there is none.
    pub fn kept(self, first: Position) -> Option<Run> {
        let dropped = first.0.saturating_sub(self.location.position.0);
        let count = u32::try_from(u64::from(self.count).checked_sub(dropped)?).ok().filter(|count| *count > 0)?;
        let location = Location { position: self.location.position.max(first), ..self.location };
        Some(Run { first: Sequence(self.first.0 + dropped), location, count })
    }

    /// Whether an event of the agent at `location` continues the run.
    pub fn is_continued_at(&self, location: Location) -> bool {
        let Location { shard, position } = self.location;
        let next = Location { shard, position: Position(position.0.wrapping_add(u64::from(self.count))) };
        self.count > 0 && self.count < u32::MAX && next == location
    }
}

/// A row of `agents`, whose key is the agent key.
///
/// Sequences have no gaps, so the sequence of the head is the number of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The sequence of the last event.
    pub sequence: Sequence,
    /// The hash of the last event.
    pub hash: Hash,
    /// The time of receipt of the first event, in ms since 1970.
    pub first_ms: u64,
    /// The time of receipt of the last event, in ms since 1970.
    pub last_ms: u64,
    /// The run that ends at the last event.
    pub run: Run,
    /// The agent's id.
    pub agent_id: Box<str>,
}

impl Agent {
    /// The value in `agents`.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(70 + self.agent_id.len());
        value.extend_from_slice(&self.sequence.0.to_be_bytes());
        value.extend_from_slice(&self.hash.0);
        value.extend_from_slice(&self.first_ms.to_be_bytes());
        value.extend_from_slice(&self.last_ms.to_be_bytes());
        value.extend_from_slice(&self.run.encode());
        value.extend_from_slice(self.agent_id.as_bytes());
        value
    }

    /// Decodes the row with this key; `None` if it is damaged, or belongs to an agent with another key.
    pub fn decode_of(key: &[u8], value: &[u8]) -> Option<Agent> {
        Agent::decode(value).filter(|agent| AgentKey::of(&agent.agent_id).0 == key)
    }

    /// Decodes a value; `None` if it is damaged.
    pub fn decode(mut value: &[u8]) -> Option<Agent> {
        let sequence = Sequence(take_u64(&mut value)?);
        let hash = Hash(take(&mut value)?);
        let (first_ms, last_ms) = (take_u64(&mut value)?, take_u64(&mut value)?);
        let (location, count) = Run::take(&mut value)?;
        let events_before = sequence.0.checked_sub(u64::from(count)).filter(|_| count > 0)?;
        let run = Run { first: Sequence(events_before + 1), location, count };
        Some(Agent { sequence, hash, first_ms, last_ms, run, agent_id: std::str::from_utf8(value).ok()?.into() })
    }
}

/// The shard, out of `shards`, that an agent belongs to. Fixed for the life of a ledger.
pub fn shard_of(agent: AgentKey, shards: u16) -> ShardId {
    let [a, b, c, d, ..] = agent.0;
    // Less than `shards`, so it fits.
    ShardId((u32::from_be_bytes([a, b, c, d]) % u32::from(shards.max(1))) as u16)
}

/// What the key of a cursor begins with.
pub const CURSOR: &[u8] = b"cursor";

/// The key of the cursor of a consumer in a shard, in the family of its rows. No other key there has this length.
pub fn cursor_key(shard: ShardId) -> [u8; 8] {
    join(&[CURSOR, &shard.0.to_be_bytes()])
}

/// The key in `times` of the first event of `shard` with the id time `ms`: see [`server_id`]. The value is the position
/// of that event, as [`Position::encode`] writes it.
pub fn time_key(shard: ShardId, ms: u64) -> [u8; 10] {
    join(&[&shard.0.to_be_bytes(), &ms.to_be_bytes()])
}

/// The id time of a key that [`time_key`] made for `shard`; `None` if it is not one.
pub fn time_of(shard: ShardId, mut key: &[u8]) -> Option<u64> {
    let is_of_shard = take(&mut key).map(u16::from_be_bytes) == Some(shard.0);
    take_u64(&mut key).filter(|_| is_of_shard && key.is_empty())
}

impl Position {
    /// Encodes the position as the value of a row.
    pub fn encode(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Decodes what [`Position::encode`] wrote; `None` if it is damaged.
    pub fn decode(mut value: &[u8]) -> Option<Position> {
        take_u64(&mut value).map(Position)
    }

    /// The position after this one.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

/// The keys of rows of `meta`.
pub mod meta_keys {
    /// The version of the on-disk format.
    pub const FORMAT: &[u8] = b"format";
    /// The number of shards.
    pub const SHARDS: &[u8] = b"shards";
    /// The instance.
    pub const INSTANCE: &[u8] = b"instance";
    /// The names of default labels, as a JSON array of strings.
    pub const LABELS: &[u8] = b"labels";
    /// The sequence of the last record of an erasure, in the chain of the recorder, that is completed.
    pub const ERASED: &[u8] = b"erased";
    /// What the keys of holds begin with. The id of the hold follows, 16 bytes; the value is a JSON object.
    pub const HOLD: &[u8] = b"hold";
    /// The first events that are kept: see [`super::super::floor`].
    pub use crate::ledger::store::FLOOR;
    /// What the keys of anchors begin with. The agent key follows, 16 bytes.
    pub const ANCHOR: &[u8] = b"anchor";
    /// What the keys of reports of repairs begin with. The time in ms u64 follows; the value is a JSON object.
    pub const REPAIRED: &[u8] = b"repaired";
}

/// Ids that the server assigns: UUIDv7 (RFC 9562, section 5.7) that lead to their event without a row of their own. See
/// `docs/adr/0006-server-given-ids-lead-to-their-event.md`.
///
/// The milliseconds are the id time: the time of receipt, unless an earlier event of the shard has a later one. After
/// the clock was set back, the id time therefore stays until the clock has passed it. It is followed by a counter of 26
/// bits, as in method 1 of section 6.2: the number of earlier events of the shard with that id time. When the counter is
/// full, the id time advances by 1 ms. Ids therefore ascend within a shard, and `times` leads to the event. The other 48
/// bits are random.
pub mod server_id {
    use super::{Position, Uuid};

    const COUNTER_BITS: u32 = 26;
    /// The most events with one id time.
    pub const MAX_EVENTS: u64 = 1 << COUNTER_BITS;
    const LOW_COUNTER_BITS: u32 = 14;

    /// The id of the event at `position` with the id time `ms`, whose first event is at `first_of_ms`.
    pub fn make(ms: u64, first_of_ms: Position, position: Position, random: u64) -> Uuid {
        let counter = u128::from((position.0 - first_of_ms.0) & ((1 << COUNTER_BITS) - 1));
        let low = counter & ((1 << LOW_COUNTER_BITS) - 1);
        Uuid::from_u128(
            u128::from(ms) << 80
                | 0x7 << 76
                | (counter >> LOW_COUNTER_BITS) << 64
                | 0b10 << 62
                | low << 48
                | u128::from(random) & ((1 << 48) - 1),
        )
    }

    /// The milliseconds and the counter of an id; `None` if the server cannot have assigned it.
    pub fn parts(id: Uuid) -> Option<(u64, u64)> {
        if id.get_version_num() != 7 {
            return None;
        }
        let bits = id.as_u128();
        let counter = (bits >> 64 & 0xFFF) << LOW_COUNTER_BITS | bits >> 48 & ((1 << LOW_COUNTER_BITS) - 1);
        Some(((bits >> 80) as u64, counter as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_as_they_were_written() {
        let location = Location { shard: ShardId(3), position: Position(1 << 40) };
        assert_eq!(Location::decode(&location.encode()), Some(location));
        assert_eq!(Location::decode(&location.encode()[..9]), None);
        let run = Run { first: Sequence(7), location, count: 12 };
        let key = AgentKey::of("a");
        assert_eq!(Run::decode(&Run::key(key, run.first), &run.encode()), Some((key, run)));
        let run = Run { first: Sequence(8), location, count: 2 };
        let agent = Agent {
            sequence: Sequence(9),
            hash: Hash([7; 32]),
            first_ms: 1,
            last_ms: 2,
            run,
            agent_id: "агент".into(),
        };
        assert_eq!(Agent::decode(&agent.encode()).as_ref(), Some(&agent));
        for count in [0, 10] {
            let run = Run { count, ..run };
            assert_eq!(Agent::decode(&Agent { run, ..agent.clone() }.encode()), None, "a run of {count} events");
        }
    }

    #[test]
    fn server_ids_are_version_7_ascend_and_encode_the_offset_of_their_event() {
        let mut last = Uuid::nil();
        for offset in [0, 1, 16_383, 16_384, (1 << 26) - 1] {
            let id = server_id::make(1_771_324_200_250, Position(100), Position(100 + offset), u64::MAX);
            assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
            assert_eq!(server_id::parts(id), Some((1_771_324_200_250, offset)));
            assert!(id > last);
            last = id;
        }
        assert_eq!(server_id::parts(Uuid::nil()), None);
    }
}
