//! `cairn key`: prints and changes the keys of the log. `docs/verification.md` describes the rotation of keys.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::args::KeyAction;
use super::exit::{CommandResult, Exit, Failure, print};
use crate::config::Loaded;
use crate::ledger::store::Store;
use crate::tlog::keys::Keys;
use crate::tlog::new_log::NewLog;
use crate::tlog::rows::LogRows;

/// Prints or changes the keys of the log.
pub fn run(action: &KeyAction) -> CommandResult {
    let (KeyAction::Show(args) | KeyAction::Rotate(args) | KeyAction::NewLog(args)) = action;
    let loaded = args.load()?;
    let (log, data_dir) = (loaded.config.log.tree(), &loaded.config.storage.data_dir);
    let text = match action {
        KeyAction::Show(_) => show(&loaded)?,
        KeyAction::Rotate(_) => {
            act_as_owner_of(&log.key_path(data_dir))?;
            rotate(&loaded)?
        }
        KeyAction::NewLog(_) => {
            act_as_owner_of(data_dir)?;
            new_log(&loaded)?
        }
    };
    print(text, Exit::Success)
}

/// Makes root act as the owner of `path` for the rest of the process, so that the server can read the files that are
/// written. The files are readable by that user only.
pub fn act_as_owner_of(path: &Path) -> Result<(), Failure> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // A missing path is reported by the code that needs it.
    let Ok(owner) = std::fs::metadata(path) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    let become_owner = || {
        // These calls change only this thread. No other thread exists yet, and later threads inherit from this one.
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)
    };
    become_owner().map_err(|error| format!("cannot act as the owner of {}: {error}", path.display()).into())
}

fn show(loaded: &Loaded) -> Result<String, Failure> {
    let path = loaded.config.log.tree().key_path(&loaded.config.storage.data_dir);
    let missing =
        || format!("log.key_file: {} does not exist; the first start of the server creates it", path.display());
    let keys = Keys::read_any(&path)?.ok_or_else(missing)?;
    Ok(keys.verifiers().iter().map(|key| format!("{key}\n")).collect())
}

fn rotate(loaded: &Loaded) -> Result<String, Failure> {
    let path = loaded.config.log.tree().key_path(&loaded.config.storage.data_dir);
    let missing =
        || format!("log.key_file: {} does not exist; the first start of the server creates it", path.display());
    let key = Keys::read_any(&path)?.ok_or_else(missing)?.add(&path)?;
    Ok(format!("{key}\n\nThis is the new verifier key. From its next start, the server also signs with this key.\n"))
}

fn new_log(loaded: &Loaded) -> Result<String, Failure> {
    // Opening the store also ensures that no server is running.
    let store = Store::open(&loaded.config.storage)?;
    let rows = LogRows::new(store.into());
    let new_log = NewLog::new(rows.clone(), &loaded.config.log.tree(), &loaded.config.storage.data_dir);
    let origin =
        new_log.and_then(|new_log| new_log.begin().map(|()| new_log.origin)).map_err(|error| error.to_string())?;
    rows.store().stop_background_work();
    Ok(format!(
        "The next start of the server begins the log {origin} with a new key, over all events stored by then.\n"
    ))
}
