//! `cairn repair`: derives rows again from the events. `docs/failures.md` describes when to use it.

use std::sync::Arc;

use serde_json::json;

use super::args::RepairArgs;
use super::checkpoints;
use super::exit::{CommandResult, Exit, Failure, print};
use super::ledger::Reader;
use super::owner::Opened;
use super::progress::progress_bar;
use crate::audit::repair::{Repaired, repair};
use crate::config::Config;
use crate::ledger::format::meta::Meta;
use crate::ledger::store::{Store, StoreError};
use crate::runtime::now_ms;
use crate::text::plural;

/// Shows the rows that differ from what the events give, or writes them anew.
pub fn run(args: &RepairArgs) -> CommandResult {
    let config = args.ledger.load()?.config;
    let own = checkpoints::own(&config.log.tree(), &config.storage.data_dir)?;
    let repaired = match args.apply {
        true => apply(config, &own)?,
        false => dry_run(&config, &own)?,
    };
    let is_whole = repaired.left.is_empty() && repaired.refused.is_none();
    let exit = if is_whole { Exit::Success } else { Exit::Invalid };
    print(if args.json { to_json(&repaired, args.apply) } else { to_text(&repaired, args.apply) }, exit)
}

fn dry_run(config: &Config, own: &OwnCheckpoint) -> Result<Repaired, Failure> {
    let reader = Reader::open(&config.storage.data_dir)?;
    let find = || run_on(&reader.store, reader.meta.shards, own, None);
    let found = find()?;
    if found.rows.is_empty() && found.left.is_empty() && found.refused.is_none() {
        return Ok(found);
    }
    reader.refresh()?;
    find()
}

fn apply(mut config: Config, own: &OwnCheckpoint) -> Result<Repaired, Failure> {
    let data_dir = config.storage.data_dir.clone();
    let opened = Opened::as_owner_of(&data_dir, &mut config)?;
    let apply = || {
        // Opening the store also ensures that no server is running.
        let store = Arc::new(Store::open_existing(&config.storage)?);
        let meta = Meta::read(&store)?.ok_or(StoreError::Missing(data_dir))?;
        let repaired = run_on(&store, meta.shards, own, Some(now_ms()))?;
        store.stop_background_work();
        Ok(repaired)
    };
    apply().map_err(|failure: Failure| opened.name_paths(&failure.to_string()).into())
}

/// The last checkpoint of the server, or why it is invalid.
type OwnCheckpoint = Result<Option<checkpoints::VerifiedCheckpoint>, String>;

fn run_on(store: &Arc<Store>, shards: u16, own: &OwnCheckpoint, apply: Option<u64>) -> Result<Repaired, Failure> {
    let own = match own {
        Ok(own) => own,
        Err(why) => return Ok(Repaired { refused: Some(why.clone()), ..Repaired::default() }),
    };
    let checkpoints: Vec<_> =
        own.iter().map(|own| ("the last checkpoint (log.checkpoint_file)".to_owned(), own.head.clone())).collect();
    let bar = progress_bar("events", None);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let shown = bar.clone();
    let repaired = repair(store, shards, &checkpoints, jobs, apply, move |events| shown.inc(events));
    bar.finish_and_clear();
    Ok(repaired?)
}

fn to_text(repaired: &Repaired, is_applied: bool) -> String {
    let mut text = String::new();
    let mut line = |line: String| text.extend([line.as_str(), "\n"]);
    repaired.rows.iter().for_each(|row| line(row.to_string()));
    repaired.left.iter().for_each(|row| line(format!("{row}, and cannot be derived from the events")));
    if let Some(why) = &repaired.refused {
        line(format!("nothing more is repaired, because the events are not whole: {why}"));
        line("restore the missing events first; `cairn verify --all` names them".to_owned());
    }
    let count = repaired.rows.len();
    line(match (is_applied, count) {
        (_, 0) => "no row to repair".to_owned(),
        (true, _) => format!("{} repaired", plural(count, "row")),
        (false, _) => format!("{} to repair: stop the server and run `cairn repair --apply`", plural(count, "row")),
    });
    text
}

fn to_json(repaired: &Repaired, is_applied: bool) -> String {
    let mut text = String::new();
    for (rows, can_repair) in [(&repaired.rows, true), (&repaired.left, false)] {
        for row in rows {
            let mut row = row.to_json();
            row["repairable"] = json!(can_repair);
            text.extend([row.to_string().as_str(), "\n"]);
        }
    }
    let (rows, left) = (repaired.rows.len(), repaired.left.len());
    let summary = json!({"applied": is_applied, "rows": rows, "not_repairable": left, "refused": repaired.refused});
    text + &summary.to_string() + "\n"
}
