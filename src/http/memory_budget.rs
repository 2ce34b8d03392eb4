//! The memory of all requests together: bodies, inflated bodies, and answers until they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::response::ApiError;

/// How much memory all requests take.
#[derive(Clone)]
pub struct MemoryBudget {
    // One for both: every request takes a share.
    memory: Arc<Memory>,
}

struct Memory {
    used: AtomicU64,
    limit: AtomicU64,
}

/// The memory that one request takes. Dropping it gives the memory back.
pub struct Reserved {
    memory_budget: MemoryBudget,
    bytes: u64,
}

impl MemoryBudget {
    /// For that many bytes.
    pub fn new(limit: u64) -> MemoryBudget {
        MemoryBudget { memory: Arc::new(Memory { used: AtomicU64::new(0), limit: AtomicU64::new(limit) }) }
    }

    /// That many bytes, from now on.
    pub fn change(&self, limit: u64) {
        self.memory.limit.store(limit, Ordering::Relaxed);
    }

    /// How many bytes all requests take now.
    pub fn used(&self) -> u64 {
        self.memory.used.load(Ordering::Relaxed)
    }

    /// Nothing yet.
    pub fn reserve(&self) -> Reserved {
        Reserved { memory_budget: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Takes more memory.
    ///
    /// # Errors
    /// 503 when all requests together take too much. Waiting could only be for each other; so a request that is
    /// alone is never refused, because nobody's end would help it.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let before = self.take(bytes);
        let others = before.saturating_sub(self.bytes - bytes as u64);
        if others > 0 && before + bytes as u64 > self.memory_budget.memory.limit.load(Ordering::Relaxed) {
            return Err(ApiError::unavailable("too much is being received at once (limits.inflight_bytes); try again"));
        }
        Ok(())
    }

    /// Takes more memory, and says how much all requests took before.
    fn take(&mut self, bytes: usize) -> u64 {
        self.bytes += bytes as u64;
        self.memory_budget.memory.used.fetch_add(bytes as u64, Ordering::Relaxed)
    }

    /// Gives some memory back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.memory_budget.memory.used.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// Keeps the memory of an answer, and no other, reserved until the last of the answer is sent. It is made
    /// already, so it is not refused any more.
    pub fn hold(mut self, answer: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        self.shrink(usize::MAX);
        self.take(answer.as_ref().len());
        Bytes::from_owner(Held { answer, _reserved: self })
    }
}

/// An answer and its memory.
struct Held<A> {
    answer: A,
    _reserved: Reserved,
}

impl<A: AsRef<[u8]>> AsRef<[u8]> for Held<A> {
    fn as_ref(&self) -> &[u8] {
        self.answer.as_ref()
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.memory_budget.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
