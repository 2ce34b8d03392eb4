//! The settings of the ledger on disk: `storage.*`.

use std::path::PathBuf;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};
use crate::text::units;

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

impl StorageConfig {
    /// What each setting has to be.
    pub const EXPECTED: Expectations = &[
        ("storage", Expected::Section),
        ("storage.data_dir", Expected::Path),
        ("storage.sync", Expected::Bool),
        ("storage.memory_bytes", Expected::Size),
        ("storage.compression", Expected::Text("lz4 or zstd")),
        ("storage.max_bytes", Expected::Size),
        ("storage.min_free_bytes", Expected::Size),
    ];

    /// The settings that cannot be used.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let memory = self.memory_bytes;
        checks.require(memory.as_u64() >= 8 << 20, "storage.memory_bytes", "at least 8MiB", memory);
        checks.finish()
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
