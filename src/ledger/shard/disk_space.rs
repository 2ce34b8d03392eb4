//! Whether there is room for new events: what the ledger takes on disk, and what the disk has left.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ledger::store::config::StorageConfig;

/// How often the disk is measured.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFull {
    /// The disk has less left than `storage.min_free_bytes`.
    DiskReserve,
    /// The ledger takes more than `storage.max_bytes`.
    StoreLimit,
}

/// The last measurement. Read for every request, written once a second.
pub struct DiskSpace {
    /// The data directory that was opened.
    identity: (u64, u64),
    min_free_bytes: AtomicU64,
    max_bytes: AtomicU64,
    free_bytes: AtomicU64,
    store_bytes: AtomicU64,
    /// Held for an assignment.
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    /// What the log said last.
    told: Option<DiskFull>,
    /// Since when commits have failed for want of space.
    failing_since: Option<Instant>,
    /// Since when the disk has had room, if it has.
    free_since: Option<Instant>,
}

impl DiskSpace {
    /// Measures for the first time.
    ///
    /// # Errors
    /// When the data directory cannot be measured.
    pub fn new(config: &StorageConfig) -> std::io::Result<DiskSpace> {
        let space = DiskSpace {
            identity: identity(&config.data_dir)?,
            min_free_bytes: AtomicU64::new(config.min_free_bytes.as_u64()),
            max_bytes: AtomicU64::new(config.max_bytes.as_u64()),
            free_bytes: AtomicU64::new(u64::MAX),
            store_bytes: AtomicU64::new(0),
            trouble: Mutex::default(),
        };
        space.measure(&config.data_dir)?;
        Ok(space)
    }

    /// These limits, from the next measurement on.
    pub fn change(&self, config: &StorageConfig) {
        self.min_free_bytes.store(config.min_free_bytes.as_u64(), Ordering::Relaxed);
        self.max_bytes.store(config.max_bytes.as_u64(), Ordering::Relaxed);
    }

    /// The least that the disk has to have left.
    pub fn min_free_bytes(&self) -> u64 {
        self.min_free_bytes.load(Ordering::Relaxed)
    }

    /// Measures again, and says in the log when room is gone or back.
    ///
    /// # Errors
    /// When the data directory cannot be measured; the last measurement stays in force then.
    pub fn measure(&self, data_dir: &Path) -> std::io::Result<()> {
        let disk = rustix::fs::statvfs(data_dir)?;
        let free_bytes = disk.f_bavail.saturating_mul(disk.f_frsize);
        self.free_bytes.store(free_bytes, Ordering::Relaxed);
        self.store_bytes.store(directory_bytes(data_dir)?, Ordering::Relaxed);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.free_since =
            if free_bytes < self.min_free_bytes() { None } else { trouble.free_since.or_else(|| Some(Instant::now())) };
        let before = std::mem::replace(&mut trouble.told, self.disk_full());
        drop(trouble);
        match (before, self.disk_full()) {
            (before, Some(now)) if before != Some(now) => {
                tracing::error!("new events are refused: {}", self.explain(now));
            }
            (Some(_), None) => tracing::info!("there is room again: new events are taken"),
            _ => {}
        }
        Ok(())
    }

    /// Whether the data directory is not there any more, or is another one. What is written then is written to files that
    /// have no name, and ends with the process.
    pub fn is_gone(&self, data_dir: &Path) -> bool {
        match identity(data_dir) {
            Ok(identity) => identity != self.identity,
            // Anything else may pass.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Why new events are refused, if they are.
    pub fn disk_full(&self) -> Option<DiskFull> {
        if self.free_bytes.load(Ordering::Relaxed) < self.min_free_bytes() {
            return Some(DiskFull::DiskReserve);
        }
        (self.store_bytes.load(Ordering::Relaxed) > self.limit_bytes()).then_some(DiskFull::StoreLimit)
    }

    /// What is missing, and which key to turn.
    pub fn explain(&self, why: DiskFull) -> String {
        match why {
            DiskFull::DiskReserve => format!(
                "the disk has {} bytes left, less than the {} that storage.min_free_bytes keeps free",
                self.free_bytes(),
                self.min_free_bytes()
            ),
            DiskFull::StoreLimit => format!(
                "the ledger takes {} bytes, more than the {} of storage.max_bytes",
                self.store_bytes(),
                self.limit_bytes()
            ),
        }
    }

    /// What the disk has left, in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes.load(Ordering::Relaxed)
    }

    /// What the ledger takes, in bytes, the write-ahead log counted.
    pub fn store_bytes(&self) -> u64 {
        self.store_bytes.load(Ordering::Relaxed)
    }

    /// `storage.max_bytes`.
    pub fn limit_bytes(&self) -> u64 {
        self.max_bytes.load(Ordering::Relaxed)
    }

    /// A commit went through.
    pub fn commit_succeeded(&self) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).failing_since = None;
    }

    /// Whether the last commit failed for want of space.
    pub fn is_failing(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).failing_since.is_some()
    }

    /// A commit failed for want of space: for how long that has been so although there is room.
    pub fn stuck_for(&self) -> Duration {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = *trouble.failing_since.get_or_insert_with(Instant::now);
        trouble.free_since.map_or(Duration::ZERO, |free| failing.max(free).elapsed())
    }
}

/// What tells a data directory from another one: a file that the database holds as long as it is open.
fn identity(data_dir: &Path) -> std::io::Result<(u64, u64)> {
    let lock = data_dir.join("LOCK").metadata()?;
    Ok((lock.dev(), lock.ino()))
}

fn directory_bytes(path: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in path.read_dir()? {
        // A file that a compaction has just removed takes nothing.
        if let Ok(metadata) = entry?.metadata() {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}
