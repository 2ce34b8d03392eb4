//! How retention leaves the disk to commits: removing rows from files delays the syncs of commits while it lasts.

use std::time::Duration;

/// How many times as long as retention has worked it rests, so that fewer than 1 in 100 answers come while it works.
const REST: u32 = 100;
/// The part of the age at which something is removed by which it may be late, and what it may be late in any case.
const LATE: u32 = 10;
const MIN_LATE: Duration = Duration::from_secs(60);

/// How long to rest after work on what is older than `age`. Retention that is behind rests as long as it has worked: it must be faster
/// than events come.
pub fn rest(worked: Duration, age: Duration, is_behind: bool) -> Duration {
    match is_behind {
        true => worked,
        false => worked.saturating_mul(REST).min(MIN_LATE.max(age / LATE)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_works_for_a_hundredth_of_the_time_unless_it_would_be_late() {
        let seconds = Duration::from_secs;
        assert_eq!(rest(seconds(2), seconds(24 * 3600), false), seconds(200));
        assert_eq!(rest(seconds(2), seconds(24 * 3600), true), seconds(2), "behind");
        assert_eq!(rest(seconds(2), seconds(1), false), seconds(60), "a minute late");
        assert_eq!(rest(Duration::MAX, seconds(1000), false), seconds(100), "a tenth late");
    }
}
