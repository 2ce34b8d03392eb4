//! The memory limit of all requests together: `limits.inflight_bytes`. It covers request bodies, decompressed bodies,
//! and responses until they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::response::ApiError;

/// The memory of all requests and its limit. Clones share both.
#[derive(Clone)]
pub struct MemoryBudget {
    // One allocation for both: every request clones the reference.
    memory: Arc<Memory>,
}

struct Memory {
    used: AtomicU64,
    limit: AtomicU64,
}

/// The memory reserved by one request. Dropping it releases the memory.
pub struct Reserved {
    memory_budget: MemoryBudget,
    bytes: u64,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: u64) -> MemoryBudget {
        MemoryBudget { memory: Arc::new(Memory { used: AtomicU64::new(0), limit: AtomicU64::new(limit) }) }
    }

    /// Replaces the limit, in bytes, for later reservations.
    pub fn set_limit(&self, limit: u64) {
        self.memory.limit.store(limit, Ordering::Relaxed);
    }

    /// The memory reserved now by all requests, in bytes.
    pub fn used(&self) -> u64 {
        self.memory.used.load(Ordering::Relaxed)
    }

    /// An empty reservation.
    pub fn reserve(&self) -> Reserved {
        Reserved { memory_budget: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Reserves more memory.
    ///
    /// # Errors
    /// 503 when all requests together exceed the limit. Requests that waited for memory could only wait for each other,
    /// so none waits; a request that is alone is never refused, because no other request could release memory for it.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let used_before = self.take(bytes);
        let others = used_before.saturating_sub(self.bytes - bytes as u64);
        if others > 0 && used_before + bytes as u64 > self.memory_budget.memory.limit.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable(
                "the memory for requests is full (limits.inflight_bytes): try again later",
            ));
        }
        Ok(())
    }

    /// Reserves more memory without a check. Returns how much all requests had reserved before.
    fn take(&mut self, bytes: usize) -> u64 {
        self.bytes += bytes as u64;
        self.memory_budget.memory.used.fetch_add(bytes as u64, Ordering::Relaxed)
    }

    /// Releases some of the memory.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.memory_budget.memory.used.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// Keeps exactly the memory of a response reserved until its last byte is sent. The response exists already, so it
    /// is never refused.
    pub fn hold(mut self, body: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        self.shrink(usize::MAX);
        self.take(body.as_ref().len());
        Bytes::from_owner(Held { body, _reserved: self })
    }
}

/// A response body with its reservation.
struct Held<A> {
    body: A,
    _reserved: Reserved,
}

impl<A: AsRef<[u8]>> AsRef<[u8]> for Held<A> {
    fn as_ref(&self) -> &[u8] {
        self.body.as_ref()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory_budget.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
