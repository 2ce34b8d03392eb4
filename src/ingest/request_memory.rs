//! The memory of the requests that bring events: reserved before a body is read, with a share for small requests.

use std::time::Duration;

use crate::http::{ApiError, MemoryBudget, Reserved};

/// The bodies that count as small, in bytes.
const SMALL_BYTES: u64 = 64 << 10;
/// The part of the memory that only small requests may take.
const SMALL_SHARE: u64 = 8;
/// The part of the memory for large requests that one request may reserve before its body arrives.
const ADVANCE_SHARE: u64 = 8;
/// The length that is assumed for a body whose length is not announced, in bytes.
const ASSUMED_BYTES: u64 = 512 << 10;
/// The compression ratio that is assumed before a body is read.
const ASSUMED_RATIO: u64 = 16;

/// The most memory of the events that an export maps at a time, in bytes. A single event may be longer.
pub const PART_BYTES: u64 = 4 << 20;
/// The memory of short events, as a multiple of the length of a body: events of 230 bytes take three times that, and their
/// answer twice that.
const EVENTS_RATIO: u64 = 4;

/// The memory that a request with a body of this length takes, in bytes: the body; its other form, which is protobuf for JSON
/// and the events for a batch; and the events of a part for an export.
pub const fn working_bytes(body: u64) -> u64 {
    let part = if body < PART_BYTES / EVENTS_RATIO { EVENTS_RATIO * body } else { PART_BYTES };
    body.saturating_mul(2).saturating_add(part)
}

/// The memory of all requests: `limits.inflight_bytes`.
pub struct RequestMemory {
    small: MemoryBudget,
    large: MemoryBudget,
    max_wait: Duration,
}

impl RequestMemory {
    /// Divides `bytes`. A request waits for at most `max_wait`.
    pub fn new(bytes: u64, max_wait: Duration) -> RequestMemory {
        let budget = |bytes| MemoryBudget::new(bytes, "limits.inflight_bytes");
        let small = bytes / SMALL_SHARE;
        RequestMemory { small: budget(small), large: budget(bytes - small), max_wait }
    }

    /// Replaces the size, in bytes.
    pub fn set_limit(&self, bytes: u64) {
        let small = bytes / SMALL_SHARE;
        self.small.set_limit(small);
        self.large.set_limit(bytes - small);
    }

    /// What is reserved now, in bytes.
    pub fn used(&self) -> u64 {
        self.small.used() + self.large.used()
    }

    /// Reserves memory for a request whose body has the announced length.
    ///
    /// # Errors
    /// 503 if it was not free within the maximum time.
    pub async fn admit(&self, content_length: Option<u64>, is_compressed: bool) -> Result<Reserved, ApiError> {
        let announced = content_length.unwrap_or(ASSUMED_BYTES);
        let length = if is_compressed { announced.saturating_mul(ASSUMED_RATIO) } else { announced };
        let bytes = working_bytes(length);
        if length <= SMALL_BYTES {
            let (mut small, mut large) = (self.small.reserve(), self.large.reserve());
            if small.try_cover(bytes).is_ok() {
                return Ok(small);
            }
            if large.try_cover(bytes).is_ok() {
                return Ok(large);
            }
            small.cover(bytes, self.max_wait).await?;
            return Ok(small);
        }
        let mut large = self.large.reserve();
        let advance = self.large.limit() / ADVANCE_SHARE;
        if bytes > advance {
            // Whoever announces a large body and does not send it must not keep others from sending theirs. So its memory
            // is reserved as it arrives.
            Box::pin(large.wait_for_turn(self.max_wait)).await?;
        }
        large.cover(bytes.min(advance), self.max_wait).await?;
        Ok(large)
    }

    /// Reserves what is missing for a body of which `received` bytes have arrived.
    ///
    /// # Errors
    /// 503 if it was not free within the maximum time.
    pub async fn cover(&self, reserved: &mut Reserved, received: u64) -> Result<(), ApiError> {
        reserved.cover(working_bytes(received), self.max_wait).await
    }

    /// Adjusts the memory of a request to the length of its body, once that is known.
    ///
    /// # Errors
    /// As for [`RequestMemory::cover`].
    pub async fn settle(&self, reserved: &mut Reserved, length: u64) -> Result<(), ApiError> {
        reserved.release_beyond(working_bytes(length));
        self.cover(reserved, length).await
    }
}
