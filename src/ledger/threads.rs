//! The threads of a running ledger.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::ids::ClientIds;
use super::read::committed::Committed;
use super::read::index::Index;
use super::shard::disk_space::{self, DiskSpace};
use super::shard::queue::Message;
use super::shard::thread::Shard;
use super::store::Store;
use crate::runtime::{OnFailure, spawn};

/// The threads of a ledger. Its owner joins them.
pub struct Threads {
    on_failure: OnFailure,
    shards: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    /// Dropping a sender stops its thread.
    stop: Vec<Sender<()>>,
}

impl Threads {
    /// No threads yet. `on_failure` is called when a thread fails.
    pub fn new(on_failure: OnFailure) -> Threads {
        Threads { on_failure, shards: Vec::new(), others: Vec::new(), stop: Vec::new() }
    }

    /// Starts the thread of a shard.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start_shard(&mut self, shard: Shard, queue: Receiver<Message>) -> io::Result<()> {
        let name = format!("cairn-shard-{}", shard.id.0);
        self.shards.push(spawn(name, &self.on_failure, move || shard.run(&queue))?);
        Ok(())
    }

    /// Starts the thread that writes the ids of clients.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start_client_ids(&mut self, ids: &Arc<ClientIds>, store: &Arc<Store>) -> io::Result<()> {
        let (ids, store) = (Arc::clone(ids), Arc::clone(store));
        self.start_other("cairn-ids", move |stop| ids.follow(&store, stop).map_err(|error| error.to_string()))
    }

    /// Starts the thread that writes the index.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start_index(
        &mut self,
        index: &Arc<Index>,
        store: &Arc<Store>,
        committed: &Arc<Committed>,
    ) -> io::Result<()> {
        let (index, store, committed) = (Arc::clone(index), Arc::clone(store), Arc::clone(committed));
        self.start_other("cairn-index", move |stop| {
            index.follow(&store, &committed, stop);
            Ok(())
        })
    }

    /// Starts the thread that measures disk space.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start_disk_watch(&mut self, space: &Arc<DiskSpace>, path: &Path) -> io::Result<()> {
        let (space, path) = (Arc::clone(space), path.to_owned());
        self.start_other("cairn-space", move |stop| {
            while stop.recv_timeout(disk_space::INTERVAL) == Err(RecvTimeoutError::Timeout) {
                if space.is_data_dir_gone(&path) {
                    let path = path.display();
                    return Err(format!("the data directory {path} was removed or replaced while it was in use"));
                }
                if let Err(error) = space.measure(&path) {
                    tracing::warn!(%error, path = %path.display(), "disk space cannot be measured");
                }
            }
            Ok(())
        })
    }

    fn start_other(
        &mut self,
        name: &str,
        work: impl FnOnce(&Receiver<()>) -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let (stop, stopped) = crossbeam_channel::bounded(0);
        self.others.push(spawn(name.to_owned(), &self.on_failure, move || work(&stopped))?);
        self.stop.push(stop);
        Ok(())
    }

    /// Waits until the shards of a closed ledger have committed all queued events, then stops the other threads.
    pub fn join(self) {
        for shard in self.shards {
            // A panic was already reported by `spawn`.
            let _ = shard.join();
        }
        drop(self.stop);
        for other in self.others {
            let _ = other.join();
        }
    }
}
