//! Steps of the clock, as rows of `meta`: where the time of receipt of a shard's events does not follow from the one
//! before.

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

    /// Encodes the value of the row.
    pub fn encode(&self) -> [u8; 24] {
        join(&[&self.previous_ms.to_be_bytes(), &self.expected_ms.to_be_bytes(), &self.found_ms.to_be_bytes()])
    }

    /// Decodes a row of `shard`; `None` if it is damaged.
    pub fn decode(shard: ShardId, key: &[u8], mut value: &[u8]) -> Option<ClockStep> {
        let position = Position::decode(key.strip_prefix(&ClockStep::prefix(shard))?)?;
        Some(ClockStep {
            position,
            previous_ms: take_u64(&mut value)?,
            expected_ms: take_u64(&mut value)?,
            found_ms: take_u64(&mut value)?,
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        let step = ClockStep { position: Position(7), previous_ms: 5, expected_ms: 6, found_ms: 4 };
        let key = step.key(ShardId(3));
        assert_eq!(ClockStep::decode(ShardId(3), &key, &step.encode()), Some(step));
        assert_eq!(ClockStep::decode(ShardId(2), &key, &step.encode()), None);
        assert_eq!(ClockStep::decode(ShardId(3), &key, &step.encode()[1..]), None);
        assert!(step.decreases());
        assert_eq!(step.by_ms(), -2);
    }
}
