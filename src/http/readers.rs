//! Reads of the ledger for the calls of the API: how many run at once and how long, and the memory of their responses.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::memory_budget::MemoryBudget;
use super::response::{ApiError, json_response};
use crate::runtime::blocking;

/// Most reads of a kind at once. More would only wait for each other and slow down ingest.
const READS: usize = 4;

/// What a read costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// A few rows: an event by its id, a proof, a tile, a receipt.
    Point,
    /// Rows of any number: lists, totals, verification, packages.
    Scan,
}

/// Runs reads and holds the memory of their responses.
pub struct Readers {
    points: Arc<Semaphore>,
    scans: Arc<Semaphore>,
    memory: MemoryBudget,
    timeout_ms: AtomicU64,
}

impl Readers {
    /// Readers whose responses take at most `response_bytes` together, and of which each runs for at most `timeout`.
    pub fn new(response_bytes: u64, timeout: Duration) -> Arc<Readers> {
        let reads = || Arc::new(Semaphore::new(READS));
        let memory = MemoryBudget::new(response_bytes, "limits.response_bytes");
        let timeout_ms = AtomicU64::new(timeout.as_millis() as u64);
        Arc::new(Readers { points: reads(), scans: reads(), memory, timeout_ms })
    }

    /// Replaces the limits. Reads that have started keep their time.
    pub fn set(&self, response_bytes: u64, timeout: Duration) {
        self.memory.set_limit(response_bytes);
        self.timeout_ms.store(timeout.as_millis() as u64, Ordering::Relaxed);
    }

    /// The memory of responses now, in bytes.
    pub fn used(&self) -> u64 {
        self.memory.used()
    }

    /// Runs `work` on a blocking thread. `work` has to end when its turn is over: because the returned future was dropped, or
    /// because the time is up. The time includes that until it starts.
    ///
    /// # Errors
    /// The error of `work`; 503 if the time is up.
    pub async fn run<T: Send + 'static>(
        &self,
        read: Read,
        work: impl FnOnce(&Turn) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let timeout = Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed));
        let turn = Turn { is_cancelled: Arc::default(), deadline: Instant::now() + timeout };
        let permits = match read {
            Read::Point => &self.points,
            Read::Scan => &self.scans,
        };
        let permit = tokio::time::timeout(timeout, Arc::clone(permits).acquire_owned()).await;
        let permit = permit
            .map_err(|_| ApiError::unavailable("other reads took all of limits.read_timeout: try again later"))?;
        let _cancel_on_drop = CancelOnDrop(Arc::clone(&turn.is_cancelled));
        blocking(move || {
            let _permit = permit;
            let result = work(&turn);
            if turn.is_over() {
                return Err(ApiError::unavailable(format!(
                    "the read took longer than {timeout:?} (limits.read_timeout): ask for less at once"
                )));
            }
            result
        })
        .await
    }

    /// Keeps the memory of a body reserved until it is sent.
    ///
    /// # Errors
    /// 503 if the responses of all connections take too much memory.
    pub fn hold(&self, body: impl AsRef<[u8]> + Send + 'static) -> Result<Bytes, ApiError> {
        let mut reserved = self.memory.reserve();
        reserved.grow(body.as_ref().len())?;
        Ok(reserved.hold(body))
    }

    /// Like [`Readers::hold`], for the continuation of a response, which cannot be refused any more: it waits until memory is
    /// free.
    ///
    /// # Errors
    /// When none was free for `limits.read_timeout`. The response is then aborted.
    pub async fn hold_next(&self, body: Vec<u8>) -> Result<Bytes, ApiError> {
        let mut reserved = self.memory.reserve();
        let timeout = Duration::from_millis(self.timeout_ms.load(Ordering::Relaxed));
        reserved.cover(body.len() as u64, timeout).await?;
        Ok(reserved.hold(body))
    }

    /// A response of 200 with JSON.
    ///
    /// # Errors
    /// As for [`Readers::hold`].
    pub fn json(&self, body: impl AsRef<[u8]> + Send + 'static) -> Result<Response<Body>, ApiError> {
        Ok(json_response(StatusCode::OK, self.hold(body)?))
    }
}

/// How long a read may go on.
pub struct Turn {
    is_cancelled: Arc<AtomicBool>,
    deadline: Instant,
}

impl Turn {
    /// Whether the read has to stop.
    pub fn is_over(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) || Instant::now() >= self.deadline
    }
}

struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
