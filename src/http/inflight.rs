//! The memory of all requests together: bodies, inflated bodies, and answers until they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Problem;

/// How much memory all requests take.
#[derive(Clone)]
pub struct Inflight {
    used: Arc<AtomicU64>,
    limit: u64,
}

/// The memory that one request takes. Dropping it gives the memory back.
pub struct Reserved {
    inflight: Inflight,
    bytes: u64,
}

impl Inflight {
    /// For that many bytes.
    pub fn new(limit: u64) -> Inflight {
        Inflight { used: Arc::default(), limit }
    }

    /// Nothing yet.
    pub fn reserve(&self) -> Reserved {
        Reserved { inflight: self.clone(), bytes: 0 }
    }
}

impl Reserved {
    /// Takes more memory.
    ///
    /// # Errors
    /// 503 when all requests together take too much. Waiting could only be for each other.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let bytes = bytes as u64;
        let before = self.inflight.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.inflight.limit {
            return Err(Problem::unavailable("too much is being received at once (limits.inflight_bytes); try again"));
        }
        Ok(())
    }

    /// Gives some memory back.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = (bytes as u64).min(self.bytes);
        self.inflight.used.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.inflight.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
