//! `cairn status`

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::args::LedgerStatusArgs;
use super::checkpoints;
use super::exit::{CommandResult, Exit, Failure, print_line};
use super::ledger::{Reader, signed};
use crate::config::Loaded;
use crate::ledger::format::keys::ShardId;
use crate::ledger::read::lookup;
use crate::ledger::store::StoreError;
use crate::tlog::rows::LogRows;

/// How the log of a ledger is.
struct Status {
    /// How many events are committed.
    events: u64,
    /// How many of them are leaves of the tree.
    tree_size: u64,
    /// The last checkpoint: its size, its root, the log's name, and how old it is in seconds.
    checkpoint: Option<(u64, String, String, u64)>,
    /// Why nothing more can be signed.
    stopped: Option<String>,
}

/// Shows how far the log is, and whether it can be signed. Reads the data directory, also while the server runs.
pub fn run(args: &LedgerStatusArgs) -> CommandResult {
    let status = status(&args.config.load()?)?;
    let text = if args.json { status.to_json().to_string() } else { status.to_text() };
    print_line(text, if status.stopped.is_none() { Exit::Success } else { Exit::Invalid })
}

fn status(loaded: &Loaded) -> Result<Status, Failure> {
    let (config, data_dir) = (loaded.config.log.tree(), &loaded.config.storage.data_dir);
    // First the checkpoint, then the database: so it has whatever was signed.
    let own = checkpoints::own(&config, data_dir)?;
    let reader = Reader::open(data_dir)?;
    let rows = LogRows::new(Arc::clone(&reader.store));
    let progress = rows.progress()?;
    let mut events = 0;
    for shard in 0..reader.meta.shards {
        events += lookup::end(&reader.store, ShardId(shard))?.0;
    }
    let mut status =
        Status { events, tree_size: progress.as_ref().map_or(0, |log| log.size), checkpoint: None, stopped: None };
    let own = match own {
        Ok(own) => own,
        Err(why) => {
            status.stopped = Some(why);
            return Ok(status);
        }
    };
    let Some(own) = own else {
        let is_lost = progress.is_some();
        status.stopped = is_lost.then(|| "the last checkpoint is gone (log.checkpoint_file)".to_owned());
        return Ok(status);
    };
    let changed = std::fs::metadata(config.checkpoint_path(data_dir))?.modified()?;
    let age = SystemTime::now().duration_since(changed).unwrap_or_default().as_secs();
    let root = cairn_proof::chain::Hash(own.head.root.0).to_string();
    status.checkpoint = Some((own.head.size, root, own.head.origin.clone(), age));
    status.stopped = match signed(&reader, &own) {
        Ok(_) => None,
        Err(StoreError::Damaged { message, .. }) => Some(format!(
            "the database is not the one whose checkpoint was signed last: {message}. Restore what was lost, or begin a \
             new log with `cairn key new-log`"
        )),
        Err(error) => return Err(error.into()),
    };
    Ok(status)
}

impl Status {
    /// How many events are under no checkpoint; nobody knows while the checkpoint is not this ledger's.
    fn unsigned(&self) -> Option<u64> {
        let signed = self.checkpoint.as_ref().map_or(0, |(size, ..)| *size);
        self.stopped.is_none().then(|| self.events.saturating_sub(signed))
    }

    fn to_json(&self) -> serde_json::Value {
        let checkpoint = self.checkpoint.as_ref().map(
            |(size, root, origin, age)| json!({"origin": origin, "tree_size": size, "root": root, "age_seconds": age}),
        );
        json!({
            "events": self.events,
            "tree_size": self.tree_size,
            "checkpoint": checkpoint,
            "unsigned_events": self.unsigned(),
            "rollback": self.stopped.is_some(),
            "reason": self.stopped,
        })
    }

    fn to_text(&self) -> String {
        let checkpoint = match &self.checkpoint {
            Some((size, root, origin, age)) => format!("{size} events of {origin}, signed {age} s ago, root {root}"),
            None => "none".to_owned(),
        };
        let signing = match &self.stopped {
            None => "possible".to_owned(),
            Some(reason) => format!("STOPPED: {reason}"),
        };
        let Status { events, tree_size, .. } = self;
        format!(
            "events:           {events}\ntree size:        {tree_size}\nlast checkpoint:  {checkpoint}\nnot yet signed:   \
             {}\nsigning:          {signing}",
            self.unsigned().map_or("unknown".to_owned(), |events| format!("{events} events"))
        )
    }
}
