//! Opens the database. Its settings and their reasons are also in `docs/adr/0010-write-ahead-log-settings.md`,
//! `docs/adr/0012-lz4-by-default.md` and `docs/adr/0013-database-settings-for-random-keys.md`.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, CompactionDecision, DB, DBCompactionStyle,
    DBCompressionType, LogLevel, LruCacheOptions, Options, WriteBufferManager,
};
use rustix::process::{Resource, getrlimit};

use super::config::{Compression, StorageConfig, ZSTD_LEVEL, open_files};
use super::directory::{LOCK_WAIT, create_directory, has_database, lock_directory};
use super::{Expired, Family, Store, StoreError, snapshot, tables};

/// The number of shards of the block cache, as a power of 2: see [`Memory::new`].
const CACHE_SHARD_BITS: i32 = 2;

/// The number of files in level 0 that starts a compaction, for families with random keys. Each compaction into the
/// first level rewrites all of that level; with this setting it runs half as often as by default. With this setting and
/// [`CACHE_SHARD_BITS`], a million new agents took 3 times as long as a million events of one, and 5 times without.
const RANDOM_KEYS_TRIGGER: i32 = 8;
/// The number of tables of client ids of about the same size that are merged. Few ids are looked up there, so many tables
/// cost little: see `docs/adr/0043-client-ids-are-written-behind-the-commit.md`.
const CLIENT_IDS_TRIGGER: i32 = 16;
/// The same for the index. A query reads a term in every table.
const INDEX_TRIGGER: i32 = 8;
/// Bits per id in the filters of these tables. An id is looked up in every table, and is usually in none.
const CLIENT_IDS_FILTER_BITS: f64 = 10.0;

/// The number of write buffers of families with small rows that every commit writes. The cap of the write-ahead log
/// flushes all families together, and these may have to be flushed again before the first flush is done. With two
/// buffers, RocksDB's default, that stopped all writes, every few seconds at full load. Families that fill a buffer by
/// themselves have two, because buffers are memory.
const WRITE_BUFFERS: i32 = 3;

/// The size of a block: two frames of events. Reading one event decompresses one block.
const EVENT_BLOCK_BYTES: usize = 32 << 10;
/// RocksDB's default. Zstandard does not use it.
const DEFAULT_WINDOW_BITS: i32 = -14;

impl Store {
    /// Opens the ledger's database for writing, and creates it if it does not exist.
    ///
    /// # Errors
    /// When the directory or the database in it cannot be opened.
    pub fn open(config: &StorageConfig) -> Result<Store, StoreError> {
        let path = &config.data_dir;
        create_directory(path)?;
        let deadline = Instant::now() + LOCK_WAIT;
        let lock = lock_directory(path, deadline)?;
        let memory = Memory::new(config.database_bytes());
        let expired = Arc::new(Expired::default());
        let db = loop {
            let families = Family::ALL.map(|family| {
                let mut options = options(family, &memory, config.compression);
                options.set_target_file_size_base(config.table_bytes());
                options.set_max_compaction_bytes(8 * config.table_bytes());
                leave_out(family, &expired, &mut options);
                ColumnFamilyDescriptor::new(family.name(), options)
            });
            let mut options = database_options(&memory);
            options.set_max_total_wal_size(config.wal_bytes());
            match open_in_own_thread(|| DB::open_cf_descriptors(&options, path, families)) {
                Ok(db) => break db,
                Err(error) if is_locked(error.as_ref()) && Instant::now() < deadline => {
                    std::thread::sleep(LOCK_WAIT / 50);
                }
                Err(error) if is_locked(error.as_ref()) => return Err(StoreError::InUse(path.clone())),
                Err(error) => return Err(StoreError::Database { path: path.clone(), message: error.into() }),
            }
        };
        tables::remove_left(path);
        snapshot::remove_left(path);
        let table_options = options(Family::ClientIds, &memory, config.compression);
        let store = Store { db, _lock: lock, path: path.clone(), sync: config.sync, table_options, expired };
        store.read_floors()?;
        Ok(store)
    }

    /// Opens the ledger's database for writing, if it exists.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn open_existing(config: &StorageConfig) -> Result<Store, StoreError> {
        if has_database(&config.data_dir)? {
            Store::open(config)
        } else {
            Err(StoreError::Missing(config.data_dir.clone()))
        }
    }

    /// Opens the database for reading, even while another process writes to it. See
    /// `docs/adr/0011-read-a-live-database-as-a-secondary.md`.
    ///
    /// `private_dir` is a directory for the files that RocksDB writes for this reader. Opening the database read-only
    /// instead would fail whenever the writer removes a file at the wrong moment.
    ///
    /// # Errors
    /// When there is no database, or it cannot be read.
    pub fn open_secondary(path: &Path, private_dir: &Path) -> Result<Store, StoreError> {
        if !has_database(path)? {
            return Err(StoreError::Missing(path.to_owned()));
        }
        const READER_MEMORY_BYTES: u64 = 16 << 20;
        let memory = Memory::new(READER_MEMORY_BYTES);
        let mut options = database_options(&memory);
        // RocksDB requires a secondary to keep all files open, because the primary may remove them.
        options.set_max_open_files(-1);
        options.create_if_missing(false);
        options.create_missing_column_families(false);
        let failed = |error: rocksdb::Error| StoreError::Database { path: path.to_owned(), message: error.into() };
        // A database of an older version has fewer families.
        let existing_families = DB::list_cf(&options, path).map_err(failed)?;
        let families =
            Family::ALL.into_iter().filter(|family| existing_families.iter().any(|name| name == family.name()));
        let families: Vec<_> = families.map(|family| descriptor(family, &memory, Compression::default())).collect();
        let db = DB::open_cf_descriptors_as_secondary(&options, path, private_dir, families).map_err(failed)?;
        let table_options = Options::default();
        let expired = Arc::default();
        let store = Store { db, _lock: None, path: path.to_owned(), sync: true, table_options, expired };
        store.catch_up()?;
        Ok(store)
    }
}

/// Opens the database in a thread of its own. The allocator retains what replaying the write-ahead log allocates and
/// frees for the thread that allocated it: 27 MiB after a kill, for as long as the process ran. It releases that memory
/// when the thread ends. See `docs/adr/0030-replay-in-a-thread-of-its-own.md`.
fn open_in_own_thread(open: impl FnOnce() -> Result<DB, rocksdb::Error> + Send) -> Result<DB, rocksdb::Error> {
    // A panic is a bug and is passed on.
    std::thread::scope(|scope| scope.spawn(open).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn is_locked(message: &str) -> bool {
    message.contains("lock") && (message.contains("LOCK") || message.contains("unavailable"))
}

/// The memory that all families share. `storage.memory_bytes` bounds blocks and write buffers together.
struct Memory {
    cache: Cache,
    buffers: WriteBufferManager,
    buffer_bytes: usize,
}

impl Memory {
    fn new(bytes: u64) -> Memory {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        // Few shards: with the default number, a filter of some hundred KiB does not fit into a shard, and is read from
        // disk for every new agent.
        let mut cache = LruCacheOptions::default();
        cache.set_capacity(bytes);
        cache.set_num_shard_bits(CACHE_SHARD_BITS);
        let cache = Cache::new_lru_cache_opts(&cache);
        // Charged to the cache: what write buffers take is no longer available for blocks.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(bytes / 2, false, cache.clone());
        Memory { cache, buffers, buffer_bytes: bytes / 4 }
    }
}

fn database_options(memory: &Memory) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_write_buffer_manager(&memory.buffers);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    options.set_max_open_files(open_files(limit).into());
    options.set_max_background_jobs(2);
    // Spreads the writes of flushes and compactions, so that the sync of a commit does not wait for all of them.
    options.set_bytes_per_sync(1 << 20);
    // RocksDB's process log: a few small files, without statistics.
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(3);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    // Deliberately not set: recycled log files (a secondary could not open the database), and manual flushing of the
    // write-ahead log (it would make every error of the log fatal).
    options
}

/// For families in which most lookups find nothing.
fn optimize_for_misses(options: &mut Options, table: &mut BlockBasedOptions) {
    table.set_bloom_filter(10.0, false);
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.02);
}

fn descriptor(family: Family, memory: &Memory, event_compression: Compression) -> ColumnFamilyDescriptor {
    ColumnFamilyDescriptor::new(family.name(), options(family, memory, event_compression))
}

/// Lets compactions of a family leave out what retention has dropped, and what leads there.
fn leave_out(family: Family, expired: &Arc<Expired>, options: &mut Options) {
    let expired = Arc::clone(expired);
    let is_expired: fn(&Expired, &[u8], &[u8]) -> bool = match family {
        Family::Events => |expired, key, _| expired.is_expired_frame(key),
        Family::Chain => |expired, _, value| expired.is_expired_run(value),
        Family::ClientIds => Expired::is_expired_id,
        Family::Index => Expired::is_expired_posting,
        _ => return,
    };
    options.set_compaction_filter("expired", move |_, key, value| match is_expired(&expired, key, value) {
        true => CompactionDecision::Remove,
        false => CompactionDecision::Keep,
    });
}

fn options(family: Family, memory: &Memory, event_compression: Compression) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_format_version(6);
    let mut options = Options::default();
    let mut compression = DBCompressionType::Lz4;
    match family {
        // Long rows, read in order. Only these are worth the time of the better compression: the keys of other families
        // are hashes, and their values short.
        Family::Events => {
            table.set_block_size(EVENT_BLOCK_BYTES);
            if event_compression == Compression::Zstd {
                compression = DBCompressionType::Zstd;
                options.set_compression_options(DEFAULT_WINDOW_BITS, ZSTD_LEVEL, 0, 0);
            }
        }
        Family::Agents => {
            optimize_for_misses(&mut options, &mut table);
            options.set_level_zero_file_num_compaction_trigger(RANDOM_KEYS_TRIGGER);
            options.set_max_write_buffer_number(WRITE_BUFFERS);
        }
        // Written as large tables, of which those of about the same size are merged: an id is rewritten a few times in all.
        Family::ClientIds => {
            table.set_bloom_filter(CLIENT_IDS_FILTER_BITS, false);
            // In blocks of 4 KiB: as a whole, the filters of some ten million ids would push each other out of the cache.
            table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
            table.set_partition_filters(true);
            table.set_pin_top_level_index_and_filter(true);
            options.set_compaction_style(DBCompactionStyle::Universal);
            options.set_level_zero_file_num_compaction_trigger(CLIENT_IDS_TRIGGER);
            // Commits do not wait until ids are merged.
            options.set_level_zero_slowdown_writes_trigger(4 * CLIENT_IDS_TRIGGER);
            options.set_level_zero_stop_writes_trigger(8 * CLIENT_IDS_TRIGGER);
        }
        Family::Chain => {
            options.set_level_zero_file_num_compaction_trigger(RANDOM_KEYS_TRIGGER);
            options.set_max_write_buffer_number(WRITE_BUFFERS);
        }
        Family::Times | Family::Meta => options.set_max_write_buffer_number(WRITE_BUFFERS),
        // Hashes cannot be compressed.
        Family::Tiles => compression = DBCompressionType::None,
        // Rows of hashes: with levels, each compaction into the first one rewrites all of it.
        Family::Index => {
            options.set_compaction_style(DBCompactionStyle::Universal);
            options.set_level_zero_file_num_compaction_trigger(INDEX_TRIGGER);
        }
        Family::Log | Family::Relay => {}
    }
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size(memory.buffer_bytes.max(1 << 20));
    // The same on every level, so that a table whose keys are in order moves down without being rewritten.
    options.set_compression_type(compression);
    options
}
