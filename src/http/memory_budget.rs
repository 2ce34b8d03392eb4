//! The memory that requests or responses may take together: `limits.inflight_bytes` and `limits.response_bytes`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::response::ApiError;

/// The unit of the budget, in bytes. A semaphore counts in 32 bits.
const UNIT: u64 = 1 << 10;

/// An amount of memory that many share. Clones share it, too.
#[derive(Clone)]
pub struct MemoryBudget {
    // One allocation: every request clones the reference.
    memory: Arc<Memory>,
}

struct Memory {
    free: Semaphore,
    /// The size of the budget, in units.
    limit: AtomicU64,
    /// The number of units by which the limit was lowered while they were taken. They are not given back.
    excess: AtomicU64,
    /// The number of those that wait.
    waiting: AtomicU64,
    /// Whoever holds memory and waits for more has the only turn, because several would wait for each other.
    turn: Arc<Semaphore>,
    /// The setting of the limit, for messages.
    setting: &'static str,
}

/// Memory that one request has reserved. Dropping it releases the memory.
///
/// `needed` follows what the request holds; what is reserved only grows when that is not enough, so a request that reserves
/// what it will need at its start takes from the budget once.
pub struct Reserved {
    budget: MemoryBudget,
    /// What is held now, in bytes.
    needed: u64,
    /// What is reserved, in units.
    reserved: u64,
    turn: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    /// A budget of `limit` bytes, which `setting` sets.
    pub fn new(limit: u64, setting: &'static str) -> MemoryBudget {
        let units = limit.div_ceil(UNIT).min(Semaphore::MAX_PERMITS as u64).min(u32::MAX.into());
        let free = Semaphore::new(units as usize);
        let (limit, excess, waiting) = (AtomicU64::new(units), AtomicU64::new(0), AtomicU64::new(0));
        let turn = Arc::new(Semaphore::new(1));
        MemoryBudget { memory: Arc::new(Memory { free, limit, excess, waiting, turn, setting }) }
    }

    /// Replaces the limit, in bytes.
    pub fn set_limit(&self, limit: u64) {
        let memory = &*self.memory;
        let units = limit.div_ceil(UNIT).min(u32::MAX.into());
        let old = memory.limit.swap(units, Ordering::Relaxed);
        match units.checked_sub(old) {
            Some(more) => self.release(more),
            None => {
                let less = old - units;
                let forgotten = memory.free.forget_permits(less as usize) as u64;
                memory.excess.fetch_add(less - forgotten, Ordering::Relaxed);
            }
        }
    }

    /// The memory that is reserved now, in bytes.
    pub fn used(&self) -> u64 {
        let limit = self.memory.limit.load(Ordering::Relaxed) + self.memory.excess.load(Ordering::Relaxed);
        limit.saturating_sub(self.memory.free.available_permits() as u64) * UNIT
    }

    /// The size of the budget, in bytes.
    pub fn limit(&self) -> u64 {
        self.memory.limit.load(Ordering::Relaxed) * UNIT
    }

    /// Whether anyone waits for memory.
    pub fn is_contended(&self) -> bool {
        self.memory.waiting.load(Ordering::Relaxed) > 0
    }

    /// An empty reservation.
    pub fn reserve(&self) -> Reserved {
        Reserved { budget: self.clone(), needed: 0, reserved: 0, turn: None }
    }

    fn is_full(&self) -> ApiError {
        ApiError::unavailable(format!("no memory is free for this request ({}): try again later", self.memory.setting))
    }

    fn release(&self, units: u64) {
        let excess = &self.memory.excess;
        let paid = excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |excess| match excess {
            0 => None,
            excess => Some(excess.saturating_sub(units)),
        });
        let paid = paid.map_or(0, |excess| excess.min(units));
        self.memory.free.add_permits((units - paid) as usize);
    }
}

/// Counts one that waits.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicU64) -> Waiting<'a> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Reserved {
    /// The number of units that are missing for `bytes`. A request that is larger than the budget needs all of it: it is
    /// served when it is alone, because no other request could release memory for it.
    fn missing(&self, bytes: u64) -> u64 {
        let limit = self.budget.memory.limit.load(Ordering::Relaxed);
        bytes.div_ceil(UNIT).min(limit).saturating_sub(self.reserved)
    }

    /// Reserves what is missing for `bytes` bytes in total, and waits for at most `max_wait` until they are free, in the
    /// order of arrival.
    ///
    /// # Errors
    /// 503 if they were not free in time.
    pub async fn cover(&mut self, bytes: u64, max_wait: Duration) -> Result<(), ApiError> {
        if self.try_cover(bytes).is_ok() {
            return Ok(());
        }
        // Boxed, because every request's future has room for it and few wait.
        Box::pin(self.wait_to_cover(bytes, max_wait)).await
    }

    async fn wait_to_cover(&mut self, bytes: u64, max_wait: Duration) -> Result<(), ApiError> {
        let memory = Arc::clone(&self.budget.memory);
        if self.reserved > 0 && self.turn.is_none() {
            let turn = Arc::clone(&memory.turn).try_acquire_owned();
            self.turn = Some(turn.map_err(|_| self.budget.is_full())?);
        }
        let missing = self.missing(bytes);
        let _waiting = Waiting::new(&memory.waiting);
        match tokio::time::timeout(max_wait, memory.free.acquire_many(missing as u32)).await {
            Ok(Ok(permits)) => permits.forget(),
            _ => return Err(self.budget.is_full()),
        }
        self.reserved += missing;
        Ok(())
    }

    /// Waits for at most `max_wait` for the turn of the one that may hold memory and wait for more.
    ///
    /// # Errors
    /// 503 if another one had it all the time.
    pub async fn wait_for_turn(&mut self, max_wait: Duration) -> Result<(), ApiError> {
        let memory = &self.budget.memory;
        let _waiting = Waiting::new(&memory.waiting);
        match tokio::time::timeout(max_wait, Arc::clone(&memory.turn).acquire_owned()).await {
            Ok(Ok(turn)) => self.turn = Some(turn),
            _ => return Err(self.budget.is_full()),
        }
        Ok(())
    }

    /// Ends the turn of one that will not wait for more.
    pub fn end_turn(&mut self) {
        self.turn = None;
    }

    /// Reserves what is missing for `bytes` bytes in total.
    ///
    /// # Errors
    /// 503 if they are not free.
    pub fn try_cover(&mut self, bytes: u64) -> Result<(), ApiError> {
        let missing = self.missing(bytes);
        if missing > 0 {
            let permits = self.budget.memory.free.try_acquire_many(missing as u32);
            permits.map_err(|_| self.budget.is_full())?.forget();
            self.reserved += missing;
        }
        Ok(())
    }

    /// Adds to what the request holds, and reserves what is missing for it.
    ///
    /// # Errors
    /// 503 if it is not free. Requests that waited here could only wait for each other, so none waits.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        self.needed += bytes as u64;
        self.try_cover(self.needed)
    }

    /// Subtracts from what the request holds. The memory stays reserved for what follows.
    pub fn shrink(&mut self, bytes: usize) {
        self.needed = self.needed.saturating_sub(bytes as u64);
    }

    /// Whether anyone waits for memory of this budget.
    pub fn is_contended(&self) -> bool {
        self.budget.is_contended()
    }

    /// Releases what is reserved beyond `bytes`.
    pub fn release_beyond(&mut self, bytes: u64) {
        let surplus = self.reserved.saturating_sub(bytes.div_ceil(UNIT));
        if surplus > 0 {
            self.budget.release(surplus);
            self.reserved -= surplus;
        }
    }

    /// Keeps the memory of a response reserved until its last byte is sent. A response that exists is never refused, so
    /// whoever makes one reserves its memory before.
    pub fn hold(mut self, body: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        self.needed = body.as_ref().len() as u64;
        self.release_beyond(self.needed);
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
        if self.reserved > 0 {
            self.budget.release(self.reserved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1 << 10;

    fn budget() -> MemoryBudget {
        MemoryBudget::new(10 * KIB as u64, "limits.inflight_bytes")
    }

    #[test]
    fn what_is_reserved_is_taken_once_and_released_when_dropped() {
        let budget = budget();
        let mut reserved = budget.reserve();
        reserved.try_cover(6 * KIB as u64).unwrap();
        for _ in 0..3 {
            reserved.grow(2 * KIB).unwrap();
        }
        assert_eq!(budget.used(), 6 << 10);
        reserved.shrink(5 * KIB);
        reserved.grow(3 * KIB).unwrap();
        assert_eq!((budget.used(), reserved.needed), (6 << 10, 4 << 10));
        let answer = reserved.hold(vec![0; 100]);
        assert_eq!(budget.used(), 1 << 10);
        drop(answer);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_request_larger_than_the_budget_is_served_alone() {
        let budget = budget();
        let mut first = budget.reserve();
        first.grow(KIB).unwrap();
        let mut large = budget.reserve();
        let error = large.grow(50 * KIB).unwrap_err();
        assert!(error.is_retryable() && error.message.contains("limits.inflight_bytes"), "{}", error.message);
        drop(first);
        large.grow(0).unwrap();
        assert_eq!(budget.used(), 10 << 10);
        large.grow(90 * KIB).unwrap();
        assert!(budget.reserve().grow(1).is_err());
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_limit_that_changes_while_memory_is_reserved_holds_once_it_is_released() {
        let budget = budget();
        let mut reserved = budget.reserve();
        reserved.grow(8 * KIB).unwrap();
        budget.set_limit(4 << 10);
        assert_eq!(budget.used(), 8 << 10);
        assert!(budget.reserve().grow(1).is_err());
        drop(reserved);
        assert_eq!((budget.used(), budget.limit()), (0, 4 << 10));
        budget.reserve().grow(4 * KIB).unwrap();
        budget.set_limit(20 << 10);
        let mut large = budget.reserve();
        large.grow(20 * KIB).unwrap();
        assert!(budget.reserve().grow(1).is_err());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_order_or_refused_in_time() {
        let budget = budget();
        let wait = Duration::from_millis(50);
        let mut first = budget.reserve();
        first.cover(8 << 10, wait).await.unwrap();
        let mut second = budget.reserve();
        assert!(second.cover(5 << 10, wait).await.is_err());
        assert!(!budget.is_contended());
        let waiting = second.cover(5 << 10, 100 * wait);
        let releasing = async {
            tokio::time::sleep(wait).await;
            assert!(budget.is_contended());
            drop(first);
        };
        assert!(tokio::join!(waiting, releasing).0.is_ok());
        assert_eq!(budget.used(), 5 << 10);
    }

    #[tokio::test]
    async fn those_that_wait_for_more_do_not_wait_for_each_other() {
        let budget = budget();
        let serve = async |waits_for_turn| {
            let mut reserved = budget.reserve();
            let wait = Duration::from_secs(10);
            if waits_for_turn {
                reserved.wait_for_turn(wait).await?;
            }
            reserved.cover(3 << 10, wait).await?;
            tokio::task::yield_now().await;
            reserved.cover(7 << 10, wait).await
        };
        let all = futures_util::future::join_all((0..20).map(|_| serve(true))).await;
        assert!(all.iter().all(Result::is_ok), "{all:?}");
        // Without the turn, one of them gets it, and those that do not are refused at once.
        let started = std::time::Instant::now();
        let all = futures_util::future::join_all((0..20).map(|_| serve(false))).await;
        assert!(all.iter().any(Result::is_ok) && all.iter().any(Result::is_err), "{all:?}");
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(budget.used(), 0);
    }
}
