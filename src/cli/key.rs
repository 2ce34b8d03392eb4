//! `cairn key`: prints and changes the keys of the log. `docs/verification.md` describes the rotation of keys.

use std::path::Path;

use cairn_proof::tree::checkpoint;

use super::args::KeyAction;
use super::exit::{CommandResult, Exit, Failure, print};
use super::owner::Opened;
use crate::config::Config;
use crate::ledger::format::meta::Meta;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use crate::text::plural;
use crate::tlog::keys::Keys;
use crate::tlog::new_log::NewLog;
use crate::tlog::rows::LogRows;

/// Prints or changes the keys of the log.
pub fn run(action: &KeyAction) -> CommandResult {
    let args = match action {
        KeyAction::Show(args) | KeyAction::Rotate(args) | KeyAction::NewLog(args) => args,
        KeyAction::Remove(args) => &args.ledger,
    };
    let mut config = args.load()?.config;
    let data_dir = config.storage.data_dir.clone();
    let changed_file = match action {
        KeyAction::Show(_) => return print(show(&config)?, Exit::Success),
        KeyAction::Rotate(_) | KeyAction::Remove(_) => config.log.tree().key_path(&data_dir),
        KeyAction::NewLog(_) => data_dir,
    };
    let opened = Opened::as_owner_of(&changed_file, &mut config)?;
    let text = match action {
        KeyAction::Show(_) => show(&config),
        KeyAction::Rotate(_) => rotate(&config),
        KeyAction::Remove(args) => remove(&config, &args.verifier_key),
        KeyAction::NewLog(_) => new_log(&config),
    };
    let text = text.map_err(|failure| opened.name_paths(&failure.to_string()))?;
    print(opened.name_paths(&text), Exit::Success)
}

fn missing(path: &Path) -> String {
    format!(
        "log.key_file: {} does not exist; the first start of the server creates it (the configuration of the packaged \
         service is /etc/cairn/cairn.yaml)",
        path.display()
    )
}

fn show(config: &Config) -> Result<String, Failure> {
    let path = config.log.tree().key_path(&config.storage.data_dir);
    let keys = Keys::read_any(&path)?.ok_or_else(|| missing(&path))?;
    Ok(keys.verifiers().iter().map(|key| format!("{key}\n")).collect())
}

fn rotate(config: &Config) -> Result<String, Failure> {
    let path = config.log.tree().key_path(&config.storage.data_dir);
    let key = Keys::read_any(&path)?.ok_or_else(|| missing(&path))?.add(&path)?;
    Ok(format!(
        "{key}\n\nThis is the new verifier key. Restart the server: from then on it also signs with this \
         key. Give it to auditors, and back the file up again.\n"
    ))
}

/// Removes a key, which is named by its verifier key or by the id in that.
fn remove(config: &Config, named: &str) -> Result<String, Failure> {
    let (log, data_dir) = (config.log.tree(), &config.storage.data_dir);
    let is_named = |key: &String| key == named || key.split('+').nth(1) == Some(named);
    let keys = Keys::read_any(&log.key_path(data_dir))?.map_or(Vec::new(), |keys| keys.verifiers().to_vec());
    let (removed, others): (Vec<String>, Vec<String>) = keys.into_iter().partition(is_named);
    let verifier_key = removed.first().map_or(named, String::as_str);
    // The next start verifies the last checkpoint with the keys that remain.
    let is_unsigned = |note: Vec<u8>| !others.is_empty() && checkpoint::open(&note, &others).is_err();
    if std::fs::read(log.checkpoint_path(data_dir)).is_ok_and(is_unsigned) {
        return Err(
            "the last checkpoint is not signed with another key: restart the server, which signs with all keys".into(),
        );
    }
    Keys::remove(&log.key_path(data_dir), verifier_key)?;
    Ok(format!("Removed {verifier_key}. Restart the server: from then on it does not sign with this key.\n"))
}

fn new_log(config: &Config) -> Result<String, Failure> {
    let data_dir = &config.storage.data_dir;
    // Opening the store also ensures that no server is running.
    let store = Store::open_existing(&config.storage)?;
    let meta = Meta::read(&store)?.ok_or_else(|| StoreError::Missing(data_dir.clone()))?;
    let events = lookup::count(&store, meta.shards)?;
    let rows = LogRows::new(store.into());
    let new_log = NewLog::new(rows.clone(), &config.log.tree(), data_dir);
    let origin =
        new_log.and_then(|new_log| new_log.begin().map(|()| new_log.origin)).map_err(|error| error.to_string())?;
    rows.store().stop_background_work();
    Ok(format!(
        "{}: a ledger of {}.\nThe next start of the server begins the log {origin} with a new key, over all events \
         stored by then.\n",
        data_dir.display(),
        plural(events, "event")
    ))
}
