//! The cursor of a shard in `client_ids`: the ids of all events before it have rows, those of later ones have none yet.
//!
//! The key is that of a [cursor](cursor_key). The value is the position as u64 and the first 4 bytes of SHA-256 over key and
//! position, which show damage and careless changes.

use super::checks::own_check;
use super::keys::{Position, ShardId, cursor_key, join, take_u64};

/// The key and the value of the cursor of a shard.
pub fn row(shard: ShardId, next: Position) -> ([u8; 8], [u8; 12]) {
    let (key, next) = (cursor_key(shard), next.encode());
    (key, join(&[&next, &own_check(&key, &next)]))
}

/// Decodes the cursor of a shard; `None` if it is damaged.
pub fn decode(shard: ShardId, value: &[u8]) -> Option<Position> {
    let (mut next, check) = value.split_first_chunk::<8>().map(|(next, check)| (&next[..], check))?;
    (own_check(&cursor_key(shard), next) == check).then(|| take_u64(&mut next).map(Position))?
}
