//! `cairn key`

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use uuid::Uuid;

use super::args::KeyAction;
use super::exit::{CommandResult, Exit, Failure, print};
use crate::config::Loaded;
use crate::ledger::store::Store;
use crate::tlog::keys::Keys;
use crate::tlog::rows::LogRows;

/// Shows and changes the keys of the log.
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

/// What is written is for the server, and for nobody else: who is root acts as the owner of what is there from here on.
fn act_as_owner_of(path: &Path) -> Result<(), Failure> {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // Whoever misses it says so.
    let Ok(owner) = std::fs::metadata(path) else { return Ok(()) };
    if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    let become_owner = || {
        // There is no other thread yet, and those that come are made by this one.
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)
    };
    become_owner().map_err(|error| format!("cannot act as the owner of {}: {error}", path.display()).into())
}

fn show(loaded: &Loaded) -> Result<String, Failure> {
    let path = loaded.config.log.tree().key_path(&loaded.config.storage.data_dir);
    let missing = || format!("log.key_file: {} is not there; the first start of the server makes it", path.display());
    let keys = Keys::read_any(&path)?.ok_or_else(missing)?;
    Ok(keys.verifiers().iter().map(|key| format!("{key}\n")).collect())
}

fn rotate(loaded: &Loaded) -> Result<String, Failure> {
    let path = loaded.config.log.tree().key_path(&loaded.config.storage.data_dir);
    let missing = || format!("log.key_file: {} is not there; the first start of the server makes it", path.display());
    let key = Keys::read_any(&path)?.ok_or_else(missing)?.add(&path)?;
    Ok(format!("{key}\n\nThis is the new verifier key. The server signs with it, too, from its next start on.\n"))
}

fn new_log(loaded: &Loaded) -> Result<String, Failure> {
    let config = loaded.config.log.tree();
    let data_dir = &loaded.config.storage.data_dir;
    let (key, checkpoint) = (config.key_path(data_dir), config.checkpoint_path(data_dir));
    // Also makes sure that no server runs.
    let store = Store::open(&loaded.config.storage)?;
    let rows = LogRows::new(store.into());
    let old = std::fs::read_to_string(&checkpoint).unwrap_or_default();
    let old = old.lines().next().unwrap_or_default();
    let origin = config.origin.clone().unwrap_or_else(|| format!("cairn/{}", Uuid::new_v4()));
    if origin == old {
        return Err(format!("log.origin: {origin:?} is the old log's name; set another one first").into());
    }
    let kept = Uuid::new_v4();
    for path in [&key, &checkpoint] {
        set_aside(path, &kept.simple().to_string())?;
    }
    rows.begin_anew(&origin)?;
    rows.store().stop_background_work();
    Ok(format!(
        "The next start of the server begins the log {origin} with a new key, over the events as they are then.\n"
    ))
}

/// Renames a file out of the way; it may be gone already.
fn set_aside(path: &Path, mark: &str) -> Result<(), Failure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".old-{mark}"));
    match std::fs::rename(path, path.with_file_name(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(format!("{}: {error}", path.display()).into()),
        _ => Ok(()),
    }
}
