//! Measures disk space, which decides whether new events are accepted: the size of the ledger, and the free space on
//! the disk.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::store::config::StorageConfig;

/// The interval between measurements.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// The age of the last check of the data directory above which the process was stopped.
const MAX_CHECK_AGE: Duration = Duration::from_secs(3);

/// Four times the bytes per second, before compression, that a shard commits when half of the room for slower commits is used.
const SLOW_RATE: f64 = 8e6;

/// The longest pause after a commit.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// The limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFull {
    /// The free space on the disk is below `storage.min_free_bytes`.
    DiskReserve,
    /// The size of the ledger is above `storage.max_bytes`.
    StoreLimit,
}

/// The last measurement. Read for every request, written once a second.
pub struct DiskSpace {
    /// Identifies the data directory that was opened.
    identity: (u64, u64),
    /// The origin of `checked_ms`.
    start: Instant,
    /// When the identity was last checked, in ms since the start.
    checked_ms: AtomicU64,
    min_free_bytes: AtomicU64,
    max_bytes: AtomicU64,
    /// The size from which on commits are slowed down.
    slow_bytes: AtomicU64,
    free_bytes: AtomicU64,
    store_bytes: AtomicU64,
    /// What was committed since the last measurement, before compression. Counted from `slow_bytes` on.
    written_bytes: AtomicU64,
    /// Held for a few assignments.
    status: Mutex<Status>,
}

#[derive(Default)]
struct Status {
    /// The limit that was last reported in the process log.
    reported: Option<DiskFull>,
    /// When commits began to fail for want of space; `None` if the last commit succeeded.
    failing_since: Option<Instant>,
    /// Since when the free space has been above the minimum; `None` while it is below.
    free_since: Option<Instant>,
}

impl DiskSpace {
    /// Takes the first measurement.
    ///
    /// # Errors
    /// When the data directory cannot be measured.
    pub fn new(config: &StorageConfig) -> std::io::Result<DiskSpace> {
        let space = DiskSpace {
            identity: identity(&config.data_dir)?,
            start: Instant::now(),
            checked_ms: AtomicU64::new(0),
            min_free_bytes: AtomicU64::new(config.min_free_bytes.as_u64()),
            max_bytes: AtomicU64::new(config.max_bytes.as_u64()),
            slow_bytes: AtomicU64::new(u64::MAX),
            free_bytes: AtomicU64::new(u64::MAX),
            store_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            status: Mutex::default(),
        };
        space.measure(&config.data_dir)?;
        Ok(space)
    }

    /// Sets new limits. New events are checked against them at once, and the process log reports changes at the next
    /// measurement.
    pub fn set_limits(&self, config: &StorageConfig) {
        self.min_free_bytes.store(config.min_free_bytes.as_u64(), Ordering::Relaxed);
        self.max_bytes.store(config.max_bytes.as_u64(), Ordering::Relaxed);
    }

    /// The minimum of free space, in bytes: `storage.min_free_bytes`.
    pub fn min_free_bytes(&self) -> u64 {
        self.min_free_bytes.load(Ordering::Relaxed)
    }

    /// Measures again, and reports in the process log when a limit is reached or no longer reached.
    ///
    /// # Errors
    /// When the data directory cannot be read. The last measurement remains valid then.
    pub fn measure(&self, data_dir: &Path) -> std::io::Result<()> {
        let disk = rustix::fs::statvfs(data_dir)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.store_bytes.store(directory_bytes(data_dir)?, Ordering::Relaxed);
        self.written_bytes.store(0, Ordering::Relaxed);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.free_since =
            if free_bytes < self.min_free_bytes() { None } else { status.free_since.or_else(|| Some(Instant::now())) };
        let previous = std::mem::replace(&mut status.reported, self.disk_full());
        drop(status);
        match (previous, self.disk_full()) {
            (previous, Some(now)) if previous != Some(now) => {
                tracing::error!("new events are refused: {}", self.explain(now));
            }
            (Some(_), None) => tracing::info!("disk space is available again: new events are accepted"),
            _ => {}
        }
        Ok(())
    }

    /// Whether the data directory was removed or replaced, or the file LOCK in it, which another server may have locked
    /// anew. Files that the database writes afterwards have no name, and are lost when the process ends.
    pub fn is_data_dir_gone(&self, data_dir: &Path) -> bool {
        let is_gone = match identity(data_dir) {
            Ok(identity) => identity != self.identity,
            // Any other error may be temporary.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !is_gone {
            self.checked_ms.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        is_gone
    }

    /// Whether the last check is so long ago that the process was stopped in between: then the directory must be checked
    /// before the next write. `now` is the present time.
    pub fn was_paused(&self, now: Instant) -> bool {
        let now_ms = now.saturating_duration_since(self.start).as_millis() as u64;
        now_ms.saturating_sub(self.checked_ms.load(Ordering::Relaxed)) > MAX_CHECK_AGE.as_millis() as u64
    }

    /// The limit that was reached; `None` while new events are accepted.
    pub fn disk_full(&self) -> Option<DiskFull> {
        if self.free_bytes.load(Ordering::Relaxed) < self.min_free_bytes() {
            return Some(DiskFull::DiskReserve);
        }
        (self.store_bytes.load(Ordering::Relaxed) > self.limit_bytes()).then_some(DiskFull::StoreLimit)
    }

    /// Describes a reached limit for senders and operators, with the setting that controls it.
    pub fn explain(&self, why: DiskFull) -> String {
        match why {
            DiskFull::DiskReserve => format!(
                "the free space on the disk, {} bytes, is below storage.min_free_bytes, {} bytes",
                self.free_bytes(),
                self.min_free_bytes()
            ),
            DiskFull::StoreLimit => format!(
                "the size of the ledger, {} bytes, is above storage.max_bytes, {} bytes",
                self.store_bytes(),
                self.limit_bytes()
            ),
        }
    }

    /// The free space on the disk, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// The size of the ledger on disk, in bytes, write-ahead log included.
    pub fn store_bytes(&self) -> u64 {
        self.store_bytes.load(Ordering::Relaxed)
    }

    /// The maximum size of the ledger, in bytes: `storage.max_bytes`.
    pub fn limit_bytes(&self) -> u64 {
        self.max_bytes.load(Ordering::Relaxed)
    }

    /// Slows commits down while the ledger is larger than this, because retention has to make room first.
    pub fn slow_down_from(&self, bytes: u64) {
        self.slow_bytes.store(bytes, Ordering::Relaxed);
    }

    /// How long to wait after a commit of this many bytes: longer and longer between the size that retention keeps and the one at
    /// which events are refused, so that senders wait a little instead of being refused.
    pub fn pause_after(&self, bytes: u64) -> Duration {
        let (slow, store) = (self.slow_bytes.load(Ordering::Relaxed), self.store_bytes());
        if store < slow || bytes == 0 {
            return Duration::ZERO;
        }
        let written = self.written_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let limit =
            self.limit_bytes().min(store.saturating_add(self.free_bytes().saturating_sub(self.min_free_bytes())));
        let used = (store - slow).saturating_add(written) as f64 / (limit.saturating_sub(slow).max(1)) as f64;
        let rate = SLOW_RATE * (1.0 - used.min(1.0)).powi(3) / used.max(f64::MIN_POSITIVE);
        Duration::try_from_secs_f64(bytes as f64 / rate).unwrap_or(MAX_PAUSE).min(MAX_PAUSE)
    }

    /// Records that a commit succeeded.
    pub fn commit_succeeded(&self) {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).failing_since = None;
    }

    /// Whether the last commit failed for want of space.
    pub fn is_failing(&self) -> bool {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).failing_since.is_some()
    }

    /// Records that a commit failed for want of space. Returns for how long commits have failed although the disk has
    /// free space.
    pub fn stuck_for(&self) -> Duration {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = *status.failing_since.get_or_insert_with(Instant::now);
        status.free_since.map_or(Duration::ZERO, |free| failing.max(free).elapsed())
    }
}

/// Identifies a data directory by device and inode of a file that the database holds open.
fn identity(data_dir: &Path) -> std::io::Result<(u64, u64)> {
    let lock = data_dir.join("LOCK").metadata()?;
    Ok((lock.dev(), lock.ino()))
}

fn directory_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in path.read_dir()? {
        // A compaction may have just removed the file.
        if let Ok(metadata) = entry?.metadata() {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_slower_the_less_room_is_left() {
        let directory = tempfile::TempDir::new().unwrap();
        std::fs::write(directory.path().join("LOCK"), vec![0; 1_000_000]).unwrap();
        let config = StorageConfig {
            data_dir: directory.path().to_owned(),
            max_bytes: bytesize::ByteSize::b(2_000_000),
            min_free_bytes: bytesize::ByteSize::b(1),
            ..StorageConfig::default()
        };
        let space = DiskSpace::new(&config).unwrap();
        let pause_from = |slow_bytes| {
            space.slow_down_from(slow_bytes);
            space.measure(directory.path()).unwrap();
            space.pause_after(10_000)
        };
        assert_eq!(pause_from(u64::MAX), Duration::ZERO);
        assert_eq!(pause_from(1_000_001), Duration::ZERO);
        let (much, half) = (pause_from(900_000), pause_from(1));
        assert!(Duration::ZERO < much && 4 * much < half && half < Duration::from_millis(10), "{much:?} {half:?}");
        let more: Vec<Duration> = (0..200).map(|_| space.pause_after(10_000)).collect();
        assert!(
            more.is_sorted() && more.last() == Some(&MAX_PAUSE),
            "what was written since the last measurement counts"
        );
    }
}
