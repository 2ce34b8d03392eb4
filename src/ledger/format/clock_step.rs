//! Steps of the clock, as rows of `meta`: where the time of receipt of a shard's events does not follow from the one
//! before.

use sha2::{Digest, Sha256};

use super::keys::{Position, ShardId, join, take_u64};

/// A step of the wall clock, as a shard found it when it received an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockStep {
    /// The position of the first event after the step.
    pub position: Position,
    /// The time of receipt of the event before, in ms since 1970.
    pub previous_ms: u64,
    /// The time that the clock would have shown without the step, in ms since 1970. Across a restart this is
    /// `previous_ms`, because it is unknown how long the server was stopped.
    pub expected_ms: u64,
    /// The time that the clock showed, in ms since 1970.
    pub found_ms: u64,
}

impl ClockStep {
    /// What the keys of the steps of `shard` begin with.
    pub fn prefix(shard: ShardId) -> [u8; 12] {
        join(&[b"clock-step", &shard.0.to_be_bytes()])
    }

    /// The key of the row.
    pub fn key(&self, shard: ShardId) -> [u8; 20] {
        join(&[&ClockStep::prefix(shard), &self.position.encode()])
    }

    /// Encodes the value of the row of `shard`: three times in ms u64, then the first 4 bytes of SHA-256 over the key and
    /// these times, because no event shows `expected_ms`. Earlier versions leave these 4 bytes out.
    pub fn encode(&self, shard: ShardId) -> [u8; 28] {
        let times: [u8; 24] =
            join(&[&self.previous_ms.to_be_bytes(), &self.expected_ms.to_be_bytes(), &self.found_ms.to_be_bytes()]);
        join(&[&times, &check(&self.key(shard), &times)])
    }

    /// Decodes a row of `shard`; `None` if it is damaged.
    pub fn decode(shard: ShardId, key: &[u8], mut value: &[u8]) -> Option<ClockStep> {
        let position = Position::decode(key.strip_prefix(&ClockStep::prefix(shard))?)?;
        let times = value.first_chunk::<24>();
        let has_check = |check_bytes: &[u8]| times.is_some_and(|times| check(key, times) == check_bytes);
        let step = ClockStep {
            position,
            previous_ms: take_u64(&mut value)?,
            expected_ms: take_u64(&mut value)?,
            found_ms: take_u64(&mut value)?,
        };
        (value.is_empty() || has_check(value)).then_some(step)
    }

    /// Whether times of receipt decrease at the step. They do not at a step forward, nor if the shard received no event
    /// for longer than the clock was set back.
    pub fn decreases(&self) -> bool {
        self.found_ms < self.previous_ms
    }

    /// By how much the clock was set forward or, if negative, back, in ms.
    pub fn by_ms(&self) -> i128 {
        i128::from(self.found_ms) - i128::from(self.expected_ms)
    }
}

fn check(key: &[u8], times: &[u8]) -> [u8; 4] {
    let digest = Sha256::new().chain_update(key).chain_update(times).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        let step = ClockStep { position: Position(7), previous_ms: 5, expected_ms: 6, found_ms: 4 };
        let key = step.key(ShardId(3));
        let value = step.encode(ShardId(3));
        assert_eq!(ClockStep::decode(ShardId(3), &key, &value), Some(step));
        assert_eq!(ClockStep::decode(ShardId(2), &key, &value), None);
        assert_eq!(ClockStep::decode(ShardId(3), &key, &value[..24]), Some(step), "as an earlier version wrote it");
        for at in 0..value.len() {
            let mut damaged = value;
            damaged[at] ^= 1;
            assert_eq!(ClockStep::decode(ShardId(3), &key, &damaged), None, "byte {at}");
            assert!(at == 24 || ClockStep::decode(ShardId(3), &key, &value[..at]).is_none(), "{at} bytes");
        }
        assert!(step.decreases());
        assert_eq!(step.by_ms(), -2);
    }
}
