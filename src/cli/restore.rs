//! `cairn restore`: rebuilds a ledger from a backup. `docs/backup.md` describes when and how.
//!
//! A log must never have two histories under one key. So nothing can be signed before it is known whether the backup has
//! everything that the log signed: the key and the checkpoint are put in their places last.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cairn_proof::files;
use cairn_proof::tree::checkpoint;
use rustix::fs::Mode;

use super::args::RestoreArgs;
use super::backup::{is_expected, unpack, with_manifest, write_file};
use super::exit::{CommandResult, Exit, Failure, print};
use crate::audit::backup::{CHECKPOINT, DATABASE, KEYS, MANIFEST};
use crate::config::Config;
use crate::ledger::format::meta::Meta;
use crate::ledger::read::lookup;
use crate::ledger::store::directory::{CURRENT, has_database, require_ledger_or_empty};
use crate::ledger::store::{Store, StoreError};
use crate::text::plural;
use crate::tlog::keys::Keys;
use crate::tlog::new_log::{NewLog, NewLogError};
use crate::tlog::rows::LogRows;
use crate::tlog::{SignedTree, origin};

/// Rebuilds a ledger, and continues its log or begins a new one.
pub fn run(args: &RestoreArgs) -> CommandResult {
    // The database creates its own files as well.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let config = args.ledger.load()?.config;
    let data_dir = &config.storage.data_dir;
    let log = config.log.tree();
    let log_files = [log.key_path(data_dir), log.checkpoint_path(data_dir)];
    if has_database(data_dir)? {
        return Err(format!("{} contains a ledger: restore into an empty directory", data_dir.display()).into());
    }
    require_ledger_or_empty(data_dir, &log_files)?;
    let named = |path: &PathBuf, error: io::Error| Failure::usage(format!("--checkpoint {}: {error}", path.display()));
    let external =
        args.checkpoint.as_ref().map(|path| fs::read(path).map_err(|error| named(path, error))).transpose()?;
    let owner = owner_of_parent(data_dir)?;
    create(data_dir)?;
    if owner.is_some() {
        // Nobody else can put links into it while it is filled.
        lchown(data_dir, Some(0), Some(0))?;
        fs::set_permissions(data_dir, Permissions::from_mode(0o700))?;
    }
    let before = names_in(data_dir)?;
    let restored = restore(args, &config, external).inspect_err(|_| {
        // What is left of a refused backup looks like a ledger, and the next try would find it in its way.
        let _ = remove_others(data_dir, &before);
    });
    let outcome = restored?;
    give_to(owner, data_dir, &log_files)?;
    let text = format!("{}: {outcome}\n`cairn verify --all` verifies it.\n", data_dir.display());
    print(text, Exit::Success)
}

/// Puts the files of the backup in their places, and returns what was done.
fn restore(args: &RestoreArgs, config: &Config, external: Option<Vec<u8>>) -> Result<String, Failure> {
    let data_dir = &config.storage.data_dir;
    let mut kept = KeptFiles::default();
    read_source(&args.source, &mut |name, bytes| match name.strip_prefix(DATABASE) {
        Some(name) if name != CURRENT => write_file(&data_dir.join(name), bytes),
        _ => kept.take(name, bytes),
    })?;
    // Only a complete copy becomes a database.
    write_file(&data_dir.join(CURRENT), &mut &*kept.current)?;
    File::open(data_dir)?.sync_all()?;
    decide(config, &kept, external)
}

fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Removes the files of a directory that were not in it before, except for keys and checkpoints that a new log has renamed.
/// [`CURRENT`] is the first, so there is no database any more.
fn remove_others(directory: &Path, before: &[OsString]) -> io::Result<()> {
    let mut names = names_in(directory)?;
    names.sort_by_key(|name| name != CURRENT);
    let is_kept = |name: &OsString| before.contains(name) || name.to_string_lossy().contains(".old-");
    names.into_iter().filter(|name| !is_kept(name)).try_for_each(|name| fs::remove_file(directory.join(name)))
}

/// The files of a backup that are put in their places last.
#[derive(Default)]
struct KeptFiles {
    /// The file that completes the database.
    current: Vec<u8>,
    checkpoint: Option<Vec<u8>>,
    keys: Option<Vec<u8>>,
}

impl KeptFiles {
    fn take(&mut self, name: &str, bytes: &mut dyn Read) -> io::Result<()> {
        let mut content = Vec::new();
        bytes.read_to_end(&mut content)?;
        match name {
            CHECKPOINT => self.checkpoint = Some(content),
            KEYS => self.keys = Some(content),
            MANIFEST => {}
            _ => self.current = content,
        }
        Ok(())
    }
}

/// Calls `place` with each file of a backup: a directory, or an archive in a file or on standard input.
fn read_source(source: &Path, place: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>) -> Result<(), Failure> {
    let named = |error: io::Error| Failure::from(format!("{}: {error}", source.display()));
    if source.as_os_str() == "-" {
        return unpack(with_manifest(io::stdin(), None)?.1, place);
    }
    if !fs::metadata(source).map_err(named)?.is_dir() {
        return unpack(with_manifest(File::open(source).map_err(named)?, None)?.1, place);
    }
    if !source.join(MANIFEST).exists() || !source.join(DATABASE).join(CURRENT).exists() {
        return Err(format!("{} is not a complete backup of Cairn", source.display()).into());
    }
    for folder in ["", DATABASE] {
        let mut entries = fs::read_dir(source.join(folder)).map_err(named)?.collect::<io::Result<Vec<_>>>()?;
        // Tables first, as in an archive: the server refuses a directory with tables and without a complete database.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{folder}{}", entry.file_name().to_string_lossy());
            if is_expected(&name) && entry.file_type()?.is_file() {
                place(&name, &mut File::open(entry.path())?).map_err(|error| format!("{name}: {error}"))?;
            }
        }
    }
    Ok(())
}

/// Continues the log with the checkpoint that was kept outside, or begins a new one. Returns what was done.
fn decide(config: &Config, kept: &KeptFiles, external: Option<Vec<u8>>) -> Result<String, Failure> {
    let (log, data_dir) = (config.log.tree(), &config.storage.data_dir);
    let store = Arc::new(Store::open_existing(&config.storage)?);
    let meta = Meta::read(&store)?.ok_or_else(|| StoreError::Missing(data_dir.clone()))?;
    let events = lookup::count(&store, meta.shards)?;
    let restored = format!("a ledger of {}", plural(events, "event"));
    let rows = LogRows::new(Arc::clone(&store));
    let (key_path, checkpoint_path) = (log.key_path(data_dir), log.checkpoint_path(data_dir));
    let Some(note) = external else {
        return begin_new_log(&rows, config, kept.checkpoint.as_deref()).map(|begun| format!("{restored}. {begun}"));
    };
    let keys = read_keys(&key_path, kept.keys.as_deref(), data_dir)?;
    let (head, _) = checkpoint::open(&note, keys.verifiers()).map_err(|why| format!("--checkpoint: {why}"))?;
    let own = origin(&log, &rows, meta.instance)?;
    if head.origin != own {
        return Err(
            format!("--checkpoint: it is one of the log {}, and the backup has the log {own}", head.origin).into()
        );
    }
    let size = rows.progress()?.map_or(0, |progress| progress.size);
    if head.size > size {
        let lost = plural(head.size - size, "event");
        let begun = begin_new_log(&rows, config, Some(&note))?;
        return Ok(format!("{restored}. The log had signed {lost} that the backup does not have. {begun}"));
    }
    let signed = SignedTree::of(rows.clone(), &head, note.clone());
    signed.map_err(|error| format!("the backup contradicts the checkpoint, and nothing will be signed: {error}"))?;
    // The backup may have been made after the checkpoint was kept.
    let newest = kept.checkpoint.as_ref().filter(|own| {
        checkpoint::open(own, keys.verifiers()).is_ok_and(|(own, _)| own.origin == head.origin && own.size > head.size)
    });
    files::create_directory_of(&checkpoint_path)?;
    files::replace(&checkpoint_path, newest.unwrap_or(&note))?;
    if let Some(backed_up) = kept.keys.as_deref().filter(|_| !key_path.exists()) {
        files::create(&key_path, backed_up)?;
    }
    rows.store().stop_background_work();
    let signed = plural(head.size, "event");
    Ok(format!(
        "{restored}. The log {own} continues after the checkpoint over {signed}. If the lost server signed a later one, \
         do not start this ledger: restore with --new-log instead"
    ))
}

/// Begins a new log; `last` is a checkpoint of the old one. Neither that nor the old key is put in its place, so nothing can
/// sign for the old log, whenever this is interrupted.
fn begin_new_log(rows: &LogRows, config: &Config, last: Option<&[u8]>) -> Result<String, Failure> {
    let old = last.and_then(|note| std::str::from_utf8(note).ok()?.lines().next());
    if let Some(origin) = config.log.origin.as_ref().filter(|origin| Some(origin.as_str()) == old) {
        return Err(NewLogError::SameOrigin(origin.clone()).to_string().into());
    }
    let new_log = NewLog::new(rows.clone(), &config.log.tree(), &config.storage.data_dir);
    let name =
        new_log.and_then(|new_log| new_log.begin().map(|()| new_log.origin)).map_err(|error| error.to_string())?;
    rows.store().stop_background_work();
    Ok(format!("The next start of the server begins the log {name} with a new key: give auditors its verifier key."))
}

/// The keys that will be those of the log: the present ones, or those of the backup.
fn read_keys(path: &Path, backed_up: Option<&[u8]>, data_dir: &Path) -> Result<Keys, Failure> {
    if let Some(keys) = Keys::read_any(path)? {
        match backed_up {
            Some(backed_up) if fs::read(path)? != backed_up => {
                let path = path.display();
                return Err(
                    format!("log.key_file: {path} has other keys than the backup: move one of them away").into()
                );
            }
            _ => return Ok(keys),
        }
    }
    let missing = "there is no signing key, in the backup or in log.key_file: put it there, or use --new-log";
    let draft = data_dir.join(".restored.key");
    files::replace(&draft, backed_up.ok_or(missing)?)?;
    let keys = Keys::read_any(&draft);
    fs::remove_file(&draft)?;
    keys?.ok_or_else(|| missing.into())
}

/// The user and the group that own the nearest existing directory, if the caller is root.
fn owner_of_parent(path: &Path) -> Result<Option<(u32, u32)>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let absolute = std::path::absolute(path)?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let metadata = fs::metadata(existing)?;
    Ok(Some((metadata.uid(), metadata.gid())))
}

/// Creates a directory with those above it. A link of root may lead to a directory that is missing: /var/lib/cairn of a service with
/// a dynamic user leads to /var/lib/private/cairn, which a new disk does not have.
fn create(directory: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::from(format!("{} cannot be created: {error}", directory.display()));
    let create = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    for ancestor in directory.ancestors().collect::<Vec<_>>().into_iter().rev() {
        let Ok(link) = ancestor.symlink_metadata() else { continue };
        if link.is_symlink() && link.uid() == 0 && !ancestor.exists() {
            let target = fs::read_link(ancestor).map_err(failed)?;
            create(&ancestor.parent().unwrap_or(Path::new("/")).join(target)).map_err(failed)?;
        }
    }
    create(directory).map_err(failed)
}

/// Gives everything that root wrote to its owner. Until then, the directory is accessible to root only.
fn give_to(owner: Option<(u32, u32)>, data_dir: &Path, log_files: &[PathBuf]) -> io::Result<()> {
    let Some((user, group)) = owner else { return Ok(()) };
    // A file in another directory belongs to the owner of that: the directory of the ledger may be a new one of root.
    for file in log_files.iter().filter(|file| !file.starts_with(data_dir) && file.exists()) {
        let directory = file.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let metadata = fs::metadata(directory)?;
        lchown(file, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    if user == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(data_dir)? {
        lchown(entry?.path(), Some(user), Some(group))?;
    }
    lchown(data_dir, Some(user), Some(group))
}
