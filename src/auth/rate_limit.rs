//! The rate limit of each client: `limits.events_per_second`, specified in `docs/security.md`, section "Rate limit".
//!
//! Each client has a token bucket that may become negative. A request is charged one event when it arrives, and its
//! other events once they are counted. A client whose balance is below one event is refused until the balance has
//! recovered, so a batch of any length is accepted and the average rate still holds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::guard::Client;

/// Most clients with a bucket. A client whose bucket was evicted starts with a full one.
const CLIENTS: usize = 4096;

/// Limits the events per second of each client.
pub struct RateLimiter {
    /// The limit of each client in events per second; 0 for no limit.
    per_second: AtomicU32,
    buckets: Mutex<HashMap<Client, Bucket>>,
}

struct Bucket {
    /// The balance in events: those that may arrive at once or, if negative, those that arrived too early. At most the
    /// events of one second.
    events: f64,
    at: Instant,
}

impl Bucket {
    fn refill(&mut self, per_second: f64, now: Instant) {
        self.events = (self.events + now.duration_since(self.at).as_secs_f64() * per_second).min(per_second.max(1.0));
        self.at = now;
    }
}

impl RateLimiter {
    /// A rate limiter with this limit; `None` for no limit.
    pub fn new(per_second: Option<NonZeroU32>) -> RateLimiter {
        let limiter = RateLimiter { per_second: AtomicU32::new(0), buckets: Mutex::default() };
        limiter.set_rate(per_second);
        limiter
    }

    /// Replaces the limit, from the next event on.
    pub fn set_rate(&self, per_second: Option<NonZeroU32>) {
        self.per_second.store(per_second.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    /// Charges one event to a client.
    ///
    /// # Errors
    /// When the client is above its limit. The error is the time to wait; nothing is charged.
    pub fn admit(&self, client: Client) -> Result<(), Duration> {
        self.with_bucket(client, Instant::now(), |bucket, per_second| {
            if bucket.events < 1.0 {
                return Err(Duration::from_secs_f64((1.0 - bucket.events) / per_second));
            }
            bucket.events -= 1.0;
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Charges the other events of a request that was admitted.
    pub fn charge(&self, client: Client, events: usize) {
        self.with_bucket(client, Instant::now(), |bucket, _| bucket.events -= events as f64);
    }

    /// Passes the refilled bucket of a client to `work`; `None` if there is no limit.
    fn with_bucket<T>(&self, client: Client, now: Instant, work: impl FnOnce(&mut Bucket, f64) -> T) -> Option<T> {
        let per_second = match self.per_second.load(Ordering::Relaxed) {
            0 => return None,
            per_second => f64::from(per_second),
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CLIENTS && !buckets.contains_key(&client) {
            evict(&mut buckets, per_second, now);
        }
        let bucket = match buckets.entry(client) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Bucket { events: per_second.max(1.0), at: now }),
        };
        bucket.refill(per_second, now);
        Some(work(bucket, per_second))
    }
}

/// Evicts the full buckets, which equal new ones; if there are none, the fullest one.
fn evict(buckets: &mut HashMap<Client, Bucket>, per_second: f64, now: Instant) {
    buckets.values_mut().for_each(|bucket| bucket.refill(per_second, now));
    buckets.retain(|_, bucket| bucket.events < per_second.max(1.0));
    if buckets.len() >= CLIENTS {
        let fullest = buckets.iter().max_by(|(_, a), (_, b)| a.events.total_cmp(&b.events));
        let fullest = fullest.map(|(client, _)| *client);
        fullest.map(|client| buckets.remove(&client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32) -> RateLimiter {
        RateLimiter::new(NonZeroU32::new(per_second))
    }

    /// Advances the clock of a client's bucket.
    fn advance(limiter: &RateLimiter, client: Client, seconds: f64) {
        let mut buckets = limiter.buckets.lock().unwrap();
        let bucket = buckets.get_mut(&client).unwrap();
        bucket.at = bucket.at.checked_sub(Duration::from_secs_f64(seconds)).unwrap();
    }

    #[test]
    fn the_events_of_one_second_may_arrive_at_once_and_then_the_rate_holds() {
        let (limiter, client) = (limiter(10), Client::Key(1));
        assert_eq!((0..100).filter(|_| limiter.admit(client).is_ok()).count(), 10);
        let wait = limiter.admit(client).unwrap_err();
        assert!(wait > Duration::from_millis(50) && wait <= Duration::from_millis(100), "{wait:?}");
        assert!(limiter.admit(Client::Key(2)).is_ok(), "another client is not affected");
        advance(&limiter, client, 0.5);
        assert_eq!((0..100).filter(|_| limiter.admit(client).is_ok()).count(), 5);
        advance(&limiter, client, 3600.0);
        assert_eq!((0..100).filter(|_| limiter.admit(client).is_ok()).count(), 10);
    }

    #[test]
    fn a_large_batch_is_admitted_and_its_client_waits_until_it_is_repaid() {
        let (limiter, client) = (limiter(10), Client::Key(1));
        assert!(limiter.admit(client).is_ok());
        limiter.charge(client, 999);
        assert_eq!(limiter.admit(client).unwrap_err().as_secs(), 99);
        advance(&limiter, client, 98.0);
        assert!(limiter.admit(client).is_err());
        advance(&limiter, client, 1.2);
        assert!(limiter.admit(client).is_ok());
    }

    #[test]
    fn without_a_limit_no_bucket_is_kept_and_with_one_their_number_is_bounded() {
        let unlimited = limiter(0);
        unlimited.charge(Client::Key(1), 1 << 40);
        assert!(unlimited.admit(Client::Key(1)).is_ok() && unlimited.buckets.lock().unwrap().is_empty());
        let limiter = limiter(5);
        limiter.charge(Client::Key(0), 100);
        (1..=2 * CLIENTS as u64).for_each(|number| limiter.admit(Client::Key(number)).unwrap());
        assert!(limiter.buckets.lock().unwrap().len() <= CLIENTS);
        assert!(limiter.admit(Client::Key(0)).is_err(), "the most negative bucket is kept");
    }
}
