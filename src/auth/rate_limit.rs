//! How many events each client may bring, in the long run: `limits.events_per_second`.
//!
//! A token bucket that may go below zero. A request counts one event when it comes, and the others once they are
//! counted; who is below zero waits until it is repaid. So a batch of any length passes, and the rate holds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::guard::Client;

/// How many clients are remembered. One that is forgotten starts anew.
const CLIENTS: usize = 4096;

/// How many events each client may bring.
pub struct RateLimiter {
    /// For each client; 0 without a limit.
    per_second: AtomicU32,
    buckets: Mutex<HashMap<Client, Bucket>>,
}

struct Bucket {
    /// How many events may come at once; below zero, how many came too early. At most those of a second.
    events: f64,
    at: Instant,
}

impl Bucket {
    fn fill(&mut self, per_second: f64, now: Instant) {
        self.events = (self.events + now.duration_since(self.at).as_secs_f64() * per_second).min(per_second.max(1.0));
        self.at = now;
    }
}

impl RateLimiter {
    /// With a limit, or without.
    pub fn new(per_second: Option<NonZeroU32>) -> RateLimiter {
        let rates = RateLimiter { per_second: AtomicU32::new(0), buckets: Mutex::default() };
        rates.change(per_second);
        rates
    }

    /// From now on.
    pub fn change(&self, per_second: Option<NonZeroU32>) {
        self.per_second.store(per_second.map_or(0, NonZeroU32::get), Ordering::Relaxed);
    }

    /// Counts one event of a client.
    ///
    /// # Errors
    /// How long it has to wait, and nothing is counted.
    pub fn admit(&self, client: Client) -> Result<(), Duration> {
        self.of(client, Instant::now(), |bucket, per_second| {
            if bucket.events < 1.0 {
                return Err(Duration::from_secs_f64((1.0 - bucket.events) / per_second));
            }
            bucket.events -= 1.0;
            Ok(())
        })
        .unwrap_or(Ok(()))
    }

    /// Counts more events of a request that was admitted.
    pub fn charge(&self, client: Client, events: usize) {
        self.of(client, Instant::now(), |bucket, _| bucket.events -= events as f64);
    }

    /// Does something with the bucket of a client, if there is a limit.
    fn of<T>(&self, client: Client, now: Instant, work: impl FnOnce(&mut Bucket, f64) -> T) -> Option<T> {
        let per_second = match self.per_second.load(Ordering::Relaxed) {
            0 => return None,
            per_second => f64::from(per_second),
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= CLIENTS && !buckets.contains_key(&client) {
            forget(&mut buckets, per_second, now);
        }
        let bucket = match buckets.entry(client) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Bucket { events: per_second.max(1.0), at: now }),
        };
        bucket.fill(per_second, now);
        Some(work(bucket, per_second))
    }
}

/// Forgets those who may bring as much as anybody new; if there are none, whoever is nearest to it.
fn forget(buckets: &mut HashMap<Client, Bucket>, per_second: f64, now: Instant) {
    buckets.values_mut().for_each(|bucket| bucket.fill(per_second, now));
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

    fn rates(per_second: u32) -> RateLimiter {
        RateLimiter::new(NonZeroU32::new(per_second))
    }

    /// Turns a client's clock on.
    fn pass(rates: &RateLimiter, client: Client, seconds: f64) {
        let mut buckets = rates.buckets.lock().unwrap();
        let bucket = buckets.get_mut(&client).unwrap();
        bucket.at = bucket.at.checked_sub(Duration::from_secs_f64(seconds)).unwrap();
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_then_the_rate_holds() {
        let (rates, client) = (rates(10), Client::Key(1));
        assert_eq!((0..100).filter(|_| rates.admit(client).is_ok()).count(), 10);
        let wait = rates.admit(client).unwrap_err();
        assert!(wait > Duration::from_millis(50) && wait <= Duration::from_millis(100), "{wait:?}");
        assert!(rates.admit(Client::Key(2)).is_ok(), "another client is not concerned");
        pass(&rates, client, 0.5);
        assert_eq!((0..100).filter(|_| rates.admit(client).is_ok()).count(), 5);
        pass(&rates, client, 3600.0);
        assert_eq!((0..100).filter(|_| rates.admit(client).is_ok()).count(), 10);
    }

    #[test]
    fn a_large_batch_passes_and_is_repaid() {
        let (rates, client) = (rates(10), Client::Key(1));
        assert!(rates.admit(client).is_ok());
        rates.charge(client, 999);
        assert_eq!(rates.admit(client).unwrap_err().as_secs(), 99);
        pass(&rates, client, 98.0);
        assert!(rates.admit(client).is_err());
        pass(&rates, client, 1.2);
        assert!(rates.admit(client).is_ok());
    }

    #[test]
    fn without_a_limit_nothing_is_kept_and_with_one_not_without_bound() {
        let free = rates(0);
        free.charge(Client::Key(1), 1 << 40);
        assert!(free.admit(Client::Key(1)).is_ok() && free.buckets.lock().unwrap().is_empty());
        let rates = rates(5);
        rates.charge(Client::Key(0), 100);
        (1..=2 * CLIENTS as u64).for_each(|number| rates.admit(Client::Key(number)).unwrap());
        assert!(rates.buckets.lock().unwrap().len() <= CLIENTS);
        assert!(rates.admit(Client::Key(0)).is_err(), "who owes most is remembered");
    }
}
