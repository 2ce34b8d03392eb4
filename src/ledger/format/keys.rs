//! Keys and values of the column families, but for records ([`super::record`]). The table is in [`super`].
//!
//! All integers are big-endian, so that keys sort in the order of what they say.

use uuid::Uuid;

use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// Which shard an event stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// An event's place in its shard: 0, 1, 2 ... in the order of commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Its shard.
    pub shard: ShardId,
    /// Its position there.
    pub position: Position,
}

/// Joins the parts of a key or value. The parts' lengths have to add up to `N`.
fn join<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut joined = [0; N];
    let mut rest = &mut joined[..];
    for part in parts {
        let (location, after) = rest.split_at_mut(part.len());
        location.copy_from_slice(part);
        rest = after;
    }
    debug_assert!(rest.is_empty());
    joined
}

/// Takes `N` bytes off the front of `bytes`.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// No number that the ledger counts comes near this one. A row that has a larger one is damaged, and was it forged, sums
/// with what was read do not overflow.
const LARGEST: u64 = i64::MAX as u64;

fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    take(bytes).map(u64::from_be_bytes).filter(|&number| number <= LARGEST)
}

impl Location {
    /// Whether `other` is the place right behind this one.
    pub fn is_followed_by(self, other: Location) -> bool {
        self.shard == other.shard && self.position.0.checked_add(1) == Some(other.position.0)
    }

    /// The key in `events` of the row whose last event stands here, and the value in `client_ids`.
    pub fn encode(self) -> [u8; 10] {
        join(&[&self.shard.0.to_be_bytes(), &self.position.0.to_be_bytes()])
    }

    /// Reads what [`Place::encode`] wrote.
    pub fn decode(mut bytes: &[u8]) -> Option<Location> {
        let shard = ShardId(take(&mut bytes).map(u16::from_be_bytes)?);
        let position = Position(take_u64(&mut bytes)?);
        bytes.is_empty().then_some(Location { shard, position })
    }
}

/// A run of one agent's events that stand together. The last one of each agent is in its row in `agents`, as long as
/// nothing else was stored behind it; all others are rows of `chain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first event's sequence.
    pub first: Sequence,
    /// Where the first event stands; the others follow.
    pub location: Location,
    /// How many events there are.
    pub count: u32,
}

impl Run {
    /// The key of the run of `agent` that starts at `first`.
    pub fn key(agent: AgentKey, first: Sequence) -> [u8; 24] {
        join(&[&agent.0, &first.0.to_be_bytes()])
    }

    /// The value.
    pub fn encode(self) -> [u8; 14] {
        join(&[&self.location.encode(), &self.count.to_be_bytes()])
    }

    /// Reads a row.
    pub fn decode(mut key: &[u8], mut value: &[u8]) -> Option<(AgentKey, Run)> {
        let agent = AgentKey(take(&mut key)?);
        let first = Sequence(take_u64(&mut key)?);
        let (location, count) = Run::take(&mut value)?;
        (key.is_empty() && value.is_empty()).then_some((agent, Run { first, location, count }))
    }

    fn take(bytes: &mut &[u8]) -> Option<(Location, u32)> {
        Some((Location::decode(&take::<10>(bytes)?)?, take(bytes).map(u32::from_be_bytes)?))
    }

    /// Whether the event at `place` belongs to it as its next one.
    pub fn is_continued_at(&self, location: Location) -> bool {
        let Location { shard, position } = self.location;
        let next = Location { shard, position: Position(position.0.wrapping_add(u64::from(self.count))) };
        self.count > 0 && self.count < u32::MAX && next == location
    }
}

/// What is known of an agent: a row of `agents`, whose key is the agent key.
///
/// Sequences have no gaps, so the head's sequence is the count of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The last event's sequence.
    pub sequence: Sequence,
    /// The last event's hash.
    pub hash: Hash,
    /// When the first event was received, in ms since 1970.
    pub first_ms: u64,
    /// When the last event was received, in ms since 1970.
    pub last_ms: u64,
    /// The run that ends at the last event.
    pub run: Run,
    /// The agent's id.
    pub agent_id: Box<str>,
}

impl Agent {
    /// The value.
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

    /// Reads a value.
    pub fn decode(mut value: &[u8]) -> Option<Agent> {
        let sequence = Sequence(take_u64(&mut value)?);
        let hash = Hash(take(&mut value)?);
        let (first_ms, last_ms) = (take_u64(&mut value)?, take_u64(&mut value)?);
        let (location, count) = Run::take(&mut value)?;
        let before = sequence.0.checked_sub(u64::from(count)).filter(|_| count > 0)?;
        let run = Run { first: Sequence(before + 1), location, count };
        Some(Agent { sequence, hash, first_ms, last_ms, run, agent_id: std::str::from_utf8(value).ok()?.into() })
    }
}

/// The shard that an agent belongs to, of that many.
pub fn shard_of(agent: AgentKey, shards: u16) -> ShardId {
    let [a, b, c, d, ..] = agent.0;
    // Below `shards`, so it fits.
    ShardId((u32::from_be_bytes([a, b, c, d]) % u32::from(shards.max(1))) as u16)
}

/// The key in `times` of the first event that `shard` received in the millisecond `ms`. The value is its
/// position, as [`Position::encode`] writes it.
pub fn time_key(shard: ShardId, ms: u64) -> [u8; 10] {
    join(&[&shard.0.to_be_bytes(), &ms.to_be_bytes()])
}

impl Position {
    /// A value that is a position.
    pub fn encode(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Reads what [`Position::encode`] wrote.
    pub fn decode(mut value: &[u8]) -> Option<Position> {
        take_u64(&mut value).map(Position)
    }

    /// The position behind this one.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

/// An id that the server gave: a UUIDv7 (RFC 9562, section 5.7) that leads to its event without a row of its own.
///
/// Behind the milliseconds stands a counter of 26 bits, as in method 1 of section 6.2: how many events the shard
/// had received before in that millisecond, so that ids rise within a shard and `times` leads to the event. The
/// other 48 bits are random.
pub mod server_id {
    use super::{Position, Uuid};

    const COUNTER_BITS: u32 = 26;
    const LOW_COUNTER_BITS: u32 = 14;

    /// The id of the event at `position` that was received in the millisecond `ms`, whose first event stands at
    /// `first_of_ms`.
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

    /// The milliseconds and the counter; `None` for an id that cannot be the server's.
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
    fn server_ids_are_version_7_rise_and_say_where_their_event_is() {
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
