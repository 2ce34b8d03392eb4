//! `cairn status`: prints the state of the log, and whether it can be signed.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::args::LedgerStatusArgs;
use super::checkpoints;
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print_line};
use super::ledger::{Reader, signed};
use crate::config::Loaded;
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::keys::ShardId;
use crate::ledger::format::meta;
use crate::ledger::read::{lookup, received};
use crate::ledger::store::StoreError;
use crate::text::{plural, sanitize};
use crate::tlog::rows::LogRows;
use cairn_proof::chain::time;

/// The state of the log of a ledger.
struct Status {
    /// The number of committed events.
    events: u64,
    /// The number of events that retention has dropped.
    dropped: u64,
    /// The number of events that it had dropped when the log began.
    before_log: u64,
    /// The number of leaves of the tree.
    tree_size: u64,
    /// The last checkpoint: its size, its root, its origin, and its age in seconds.
    checkpoint: Option<(u64, String, String, u64)>,
    /// Why signing has stopped; `None` if it is possible.
    stopped: Option<String>,
    /// The repairs, each with its time in ms since 1970 and its report.
    repairs: Vec<(u64, serde_json::Value)>,
    /// The steps of the clock that the shards have found, in the order of the shards.
    clock_steps: Vec<ClockStep>,
}

/// Prints the state of the log, and whether it can be signed. Reads the data directory, also while the server runs.
pub fn run(args: &LedgerStatusArgs) -> CommandResult {
    if let Some(url) = &args.server {
        return of_server(&Client::at(url, &args.connect)?, args.json);
    }
    let status = status(&args.ledger.load()?)?;
    let text = if args.json { status.to_json().to_string() } else { status.to_text() };
    print_line(text, if status.stopped.is_none() { Exit::Success } else { Exit::Invalid })
}

/// Prints what a running server says of its log.
fn of_server(client: &Client, json: bool) -> CommandResult {
    let stats = client.get("/v1/stats", &[])?;
    let root = client.get("/v1/merkle/root", &[]);
    let (events, signed) = (&stats["total_events"], root.as_ref().ok());
    let stopped = root.as_ref().err().map(Failure::to_string);
    let exit = if stopped.is_none() { Exit::Success } else { Exit::Invalid };
    let size = signed.map(|root| root["tree_size"].clone()).unwrap_or_default();
    if json {
        let checkpoint = signed.map(|root| json!({"tree_size": root["tree_size"], "root": root["root"]}));
        return print_line(json!({"events": events, "checkpoint": checkpoint, "reason": stopped}), exit);
    }
    let checkpoint = signed.map_or("none".to_owned(), |root| {
        let origin = root["checkpoint"].as_str().and_then(|note| note.lines().next()).unwrap_or("?");
        format!(
            "{} of {}, root {}",
            plural(&size, "event"),
            sanitize(origin),
            sanitize(root["root"].as_str().unwrap_or("?"))
        )
    });
    let signing = stopped.map_or("possible".to_owned(), |reason| format!("STOPPED: {}", sanitize(&reason)));
    print_line(
        format_args!("events:           {events}\nlast checkpoint:  {checkpoint}\nsigning:          {signing}"),
        exit,
    )
}

fn status(loaded: &Loaded) -> Result<Status, Failure> {
    let (config, data_dir) = (loaded.config.log.tree(), &loaded.config.storage.data_dir);
    // The checkpoint is read before the database, so that the database contains everything it signs.
    let own = checkpoints::own(&config, data_dir)?;
    let reader = Reader::open(data_dir)?;
    let rows = LogRows::new(Arc::clone(&reader.store));
    let progress = rows.progress()?;
    let (mut events, mut dropped, mut clock_steps) = (0, 0, Vec::new());
    let before_log = rows.base()?.iter().map(|first| first.0).sum();
    for shard in (0..reader.meta.shards).map(ShardId) {
        events += lookup::end(&reader.store, shard)?.0;
        dropped += reader.store.expired().first_kept(shard.0);
        clock_steps.extend(received::clock_steps(&reader.store, shard)?);
    }
    let tree_size = progress.as_ref().map_or(0, |log| log.size);
    let repairs = meta::repairs(&reader.store)?;
    let mut status =
        Status { events, dropped, before_log, tree_size, checkpoint: None, stopped: None, repairs, clock_steps };
    let own = match own {
        Ok(own) => own,
        Err(why) => {
            status.stopped = Some(why);
            return Ok(status);
        }
    };
    let Some(own) = own else {
        let is_lost = progress.is_some();
        status.stopped = is_lost.then(|| "the last checkpoint is missing (log.checkpoint_file)".to_owned());
        return Ok(status);
    };
    let signed_at = std::fs::metadata(config.checkpoint_path(data_dir))?.modified()?;
    let age = SystemTime::now().duration_since(signed_at).unwrap_or_default().as_secs();
    let root = cairn_proof::chain::Hash(own.head.root.0).to_string();
    status.checkpoint = Some((own.head.size, root, own.head.origin.clone(), age));
    status.stopped = match signed(&reader, &own) {
        Ok(_) => None,
        Err(StoreError::Damaged { message, .. }) => Some(format!(
            "the database does not match the last signed checkpoint: {message}. Restore the missing data, or begin a \
             new log with `cairn key new-log`"
        )),
        Err(error) => return Err(error.into()),
    };
    Ok(status)
}

impl Status {
    /// The number of events that no checkpoint covers; unknown if the last checkpoint does not match this ledger.
    fn unsigned(&self) -> Option<u64> {
        let signed = self.checkpoint.as_ref().map_or(0, |(size, ..)| *size);
        self.stopped.is_none().then(|| self.events.saturating_sub(self.before_log + signed))
    }

    fn to_json(&self) -> serde_json::Value {
        let checkpoint = self.checkpoint.as_ref().map(
            |(size, root, origin, age)| json!({"origin": origin, "tree_size": size, "root": root, "age_seconds": age}),
        );
        json!({
            "events": self.events,
            "events_dropped": self.dropped,
            "tree_size": self.tree_size,
            "checkpoint": checkpoint,
            "unsigned_events": self.unsigned(),
            "rollback": self.stopped.is_some(),
            "reason": self.stopped,
            "repairs": self.repairs.iter().map(|(ms, report)| json!({"at": text(*ms), "report": report})).collect::<Vec<_>>(),
            "clock_steps": {
                "count": self.clock_steps.len(),
                "last_seconds": self.last_step().map(seconds),
                "last_at": self.last_step().map(time_after),
            },
        })
    }

    /// The step of the clock after which the latest event was received.
    fn last_step(&self) -> Option<&ClockStep> {
        self.clock_steps.iter().max_by_key(|step| step.found_ms)
    }

    fn to_text(&self) -> String {
        let checkpoint = match &self.checkpoint {
            Some((size, root, origin, age)) => {
                format!("{} of {origin}, signed {age} s ago, root {root}", plural(size, "event"))
            }
            None => "none".to_owned(),
        };
        let signing = match &self.stopped {
            None => "possible".to_owned(),
            Some(reason) => format!("STOPPED: {reason}"),
        };
        let clock = match self.last_step() {
            None => "none".to_owned(),
            Some(step) => {
                format!("{}, the last by {:+} s to {}", self.clock_steps.len(), seconds(step), time_after(step))
            }
        };
        let repairs = match self.repairs.last() {
            None => "none".to_owned(),
            Some((ms, report)) => {
                let rows = report["rows"].as_object().into_iter().flatten();
                let rows: u64 = rows.filter_map(|(_, count)| count.as_u64()).sum();
                format!("{}, the last at {}: {} derived again", self.repairs.len(), text(*ms), plural(rows, "row"))
            }
        };
        let Status { events, tree_size, .. } = self;
        let dropped = match self.dropped {
            0 => String::new(),
            dropped => format!("dropped of them:  {dropped}\n"),
        };
        format!(
            "events:           {events}\n{dropped}tree size:        {tree_size}\nlast checkpoint:  {checkpoint}\n\
             not yet signed:   {}\nsigning:          {signing}\nclock steps:      {clock}\n\
             repairs:          {repairs}",
            self.unsigned().map_or("unknown".to_owned(), |events| plural(events, "event"))
        )
    }
}

/// By how many seconds the clock was set forward or, if negative, back.
fn seconds(step: &ClockStep) -> f64 {
    step.by_ms() as f64 / 1000.0
}

/// The time that the clock showed after the step.
fn time_after(step: &ClockStep) -> String {
    text(step.found_ms)
}

fn text(ms: u64) -> String {
    String::from_utf8_lossy(&time::format_ms(ms)).into_owned()
}
