//! The settings of the ledger.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::units;

/// `storage.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// Where the ledger is kept.
    pub data_dir: PathBuf,
    /// Whether an answer waits until its event is on disk.
    pub sync: bool,
    /// The most memory that the database may take for blocks and write buffers.
    #[serde(with = "units::size")]
    pub memory_bytes: ByteSize,
    /// How events are compressed on disk. Can be changed at any time: what is stored stays as it is, and readable.
    pub compression: Compression,
    /// New events are refused while the ledger takes more than this on disk.
    #[serde(with = "units::size")]
    pub max_bytes: ByteSize,
    /// New events are refused while the disk has less than this left.
    #[serde(with = "units::size")]
    pub min_free_bytes: ByteSize,
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig {
            data_dir: "./data".into(),
            sync: true,
            memory_bytes: ByteSize::mib(64),
            compression: Compression::default(),
            max_bytes: ByteSize::gib(10),
            min_free_bytes: ByteSize::mib(256),
        }
    }
}

/// How events are compressed on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Costs the least CPU time.
    #[default]
    Lz4,
    /// Takes the least room.
    Zstd,
}

/// `queue.*`: what each shard lets wait.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// The most events that wait for one shard or are being committed by it.
    pub events: usize,
    /// The most memory that those events take.
    #[serde(with = "units::size")]
    pub bytes: ByteSize,
    /// How long a sender waits for a place before it is refused with 503.
    #[serde(with = "units::time")]
    pub max_wait: Duration,
}

impl Default for QueueConfig {
    fn default() -> QueueConfig {
        QueueConfig { events: 10_000, bytes: ByteSize::mib(32), max_wait: Duration::from_millis(100) }
    }
}
