//! The settings of the ledger on disk: `storage.*`.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};
use crate::text::units;

/// The settings `storage.*`.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// The directory of the ledger.
    pub data_dir: PathBuf,
    /// Whether a commit waits until it is on disk.
    pub sync: bool,
    /// The most memory for blocks, write buffers and ids of clients.
    #[serde(with = "units::size")]
    pub memory_bytes: ByteSize,
    /// How events are compressed on disk. Can be changed at any time: stored events stay as they are, and readable.
    pub compression: Compression,
    /// The size of the ledger on disk above which new events are refused.
    #[serde(with = "units::size")]
    pub max_bytes: ByteSize,
    /// The free space on the disk below which new events are refused.
    #[serde(with = "units::size")]
    pub min_free_bytes: ByteSize,
}

impl Default for StorageConfig {
    fn default() -> StorageConfig {
        StorageConfig {
            data_dir: "./data".into(),
            sync: true,
            memory_bytes: ByteSize::mib(45),
            compression: Compression::default(),
            max_bytes: ByteSize::gib(10),
            min_free_bytes: ByteSize::mib(256),
        }
    }
}

impl StorageConfig {
    /// The part of `storage.memory_bytes` for the ids of clients: see [`crate::ledger::ids`].
    pub fn ids_bytes(&self) -> u64 {
        self.memory_bytes.as_u64() / IDS_SHARE
    }

    /// The part of `storage.memory_bytes` for blocks and write buffers.
    pub fn database_bytes(&self) -> u64 {
        self.memory_bytes.as_u64() - self.ids_bytes()
    }

    /// The maximum size of the write-ahead log, so that a start after a crash has little to replay, and a small volume has room for
    /// something else.
    pub fn wal_bytes(&self) -> u64 {
        (self.max_bytes.as_u64() / WAL_SHARE).clamp(MIN_WAL_BYTES, WAL_BYTES)
    }

    /// The size of a table file, small enough that a compaction fits into `min_free_bytes`, and that on a small volume the oldest
    /// events are in files of their own.
    pub fn table_bytes(&self) -> u64 {
        (self.max_bytes.as_u64() / TABLE_SHARE).clamp(MIN_TABLE_BYTES, TABLE_BYTES)
    }

    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("storage", Expected::Section),
        ("storage.data_dir", Expected::Path),
        ("storage.sync", Expected::Bool),
        ("storage.memory_bytes", Expected::Size),
        ("storage.compression", Expected::Choice(&["lz4", "zstd"])),
        ("storage.max_bytes", Expected::Size),
        ("storage.min_free_bytes", Expected::Size),
    ];

    /// Returns the settings that are invalid.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let memory = self.memory_bytes;
        checks.require(memory.as_u64() >= 8 << 20, "storage.memory_bytes", "at least 8MiB", memory);
        checks.finish()
    }
}

/// The part of `storage.memory_bytes` for the ids of clients.
const IDS_SHARE: u64 = 2;

/// The maximum size of the write-ahead log.
const WAL_BYTES: u64 = 32 << 20;
/// The least size of the write-ahead log.
const MIN_WAL_BYTES: u64 = 1 << 20;
/// The most of `storage.max_bytes` that the write-ahead log takes.
const WAL_SHARE: u64 = 8;

/// The size of a table file.
const TABLE_BYTES: u64 = 32 << 20;
/// The least size of a table file.
const MIN_TABLE_BYTES: u64 = 1 << 20;
/// The most of `storage.max_bytes` that a table file takes.
const TABLE_SHARE: u64 = 32;

/// The most files that the database has open.
const OPEN_FILES: u16 = 512;

/// The most files that the database has open if the process may have `limit`.
pub fn open_files(limit: u64) -> u16 {
    u16::try_from(limit / 4).map_or(OPEN_FILES, |quarter| quarter.min(OPEN_FILES))
}

/// The level of Zstandard. With events of 250 bytes, level 1 takes 1 % more space than RocksDB's default, 3, and 9 %
/// less of an event's whole CPU time; with events of 2 KiB, 7 % more and 5 to 9 % less. Levels below 0 take as much
/// space as LZ4 before they are as fast.
pub const ZSTD_LEVEL: i32 = 1;

/// The compression of events on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// LZ4: the least CPU time.
    #[default]
    Lz4,
    /// Zstandard: the least space.
    Zstd,
}
