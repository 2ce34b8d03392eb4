//! File access: keys, state files of a monitor, and copies of a log. No other module of this crate touches the file
//! system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::evidence::follow::{LogError, LogSource};
use crate::evidence::monitor::MonitorState;
use crate::tree::{WIDTH, note_keys};

/// Creates the directory of a file with those above it, unless it exists, accessible to its owner only.
///
/// # Errors
/// When it cannot be created.
pub fn create_directory_of(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder_of(path))
}

/// Replaces or creates a file atomically and durably, readable by its owner only. A missing directory is an error: one that was
/// removed, or is on a disk that is not mounted, must not be replaced by an empty one.
///
/// After a crash or a power loss the file has either the old or the new content. The new content is on disk when this
/// returns.
///
/// # Errors
/// When the file cannot be written. It keeps its old content, unless only the sync of the directory failed.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    // A fixed name, not a random one: the next write removes a file that a crash left behind.
    let new = with_suffix(path, "new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The mode applies to a new file only, and a symbolic link is not followed.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    // The rename survives a power loss only after the directory is synced.
    File::open(folder)?.sync_all()
}

/// Creates a file with this content, atomically and durably, readable by its owner only. Missing directories are created.
///
/// # Errors
/// When the file exists, whoever created it, or cannot be written.
pub fn create(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = folder_of(path);
    create_directory_of(path)?;
    let new = write_new(path, bytes)?;
    // Unlike a rename, a link does not replace a file that another process has created in the meantime.
    let linked = fs::hard_link(&new, path);
    fs::remove_file(&new)?;
    linked?;
    File::open(folder)?.sync_all()
}

/// Replaces the content of a file by what `change` makes of it, atomically and durably. Processes that change a file at the
/// same time do so one after the other, so that none overwrites what another has written.
///
/// # Errors
/// When the file does not exist, or cannot be read or written. It keeps its content then.
pub fn change(path: &Path, change: impl FnOnce(String) -> String) -> io::Result<()> {
    // The lock is on the content that is replaced: whoever waited for it opens the new content and locks that.
    let locked = loop {
        let file = File::open(path)?;
        file.lock()?;
        let (own, present) = (file.metadata()?, fs::metadata(path)?);
        if (own.dev(), own.ino()) == (present.dev(), present.ino()) {
            break file;
        }
    };
    remove_left_behind(path)?;
    let mut text = String::new();
    (&locked).read_to_string(&mut text)?;
    let new = write_new(path, change(text).as_bytes())?;
    fs::rename(&new, path)?;
    File::open(folder_of(path))?.sync_all()
}

/// Renames a file by adding a suffix to its name, durably.
///
/// # Errors
/// When the file does not exist or cannot be renamed.
pub fn rename_to(path: &Path, suffix: &str) -> io::Result<()> {
    fs::rename(path, with_suffix(path, suffix))?;
    File::open(folder_of(path))?.sync_all()
}

/// Writes a file beside `path` whose name no other running process uses.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let new = with_suffix(path, &format!("{}-{count}.new", std::process::id()));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.map(|()| new)
}

/// Removes the new content that killed processes left beside `path`. The caller holds the lock, so nobody else writes any.
fn remove_left_behind(path: &Path) -> io::Result<()> {
    let prefix = with_suffix(path, "");
    let prefix = prefix.file_name().unwrap_or_default().as_encoded_bytes();
    for entry in fs::read_dir(folder_of(path))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(prefix) && name.as_encoded_bytes().ends_with(b".new") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(suffix);
    path.with_file_name(name)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the verifier keys of a command-line argument, which is a key or the path of a file with keys.
///
/// # Errors
/// When the argument is neither a verifier key nor a readable file that contains one.
pub fn verifier_keys(argument: &str) -> Result<Vec<String>, String> {
    if note_keys::is_verifier_key(argument) {
        return Ok(vec![argument.to_owned()]);
    }
    let text = fs::read_to_string(argument)
        .map_err(|error| format!("--key: {argument:?} is not a verifier key, and cannot be read as a file: {error}"))?;
    let keys: Vec<String> =
        text.split_whitespace().filter(|text| note_keys::is_verifier_key(text)).map(str::to_owned).collect();
    if keys.is_empty() { Err(format!("--key: {argument} contains no verifier key")) } else { Ok(keys) }
}

/// Reads the state of a monitor; `None` if the file does not exist.
///
/// # Errors
/// When the file cannot be read, or was not written by [`write_state`].
pub fn read_state(path: &Path) -> Result<Option<MonitorState>, String> {
    let with_path = |error: &dyn std::fmt::Display| format!("--state {}: {error}", path.display());
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(with_path(&error)),
    };
    let state = serde_json::from_slice(&text);
    state.map(Some).map_err(|error| with_path(&format!("not a state file: {error}")))
}

/// Writes the state of a monitor, atomically and durably.
///
/// # Errors
/// When the file cannot be written.
pub fn write_state(path: &Path, state: &MonitorState) -> Result<(), String> {
    let with_path = |error: &dyn std::fmt::Display| format!("--state {}: {error}", path.display());
    let text = serde_json::to_vec(state).map_err(|error| with_path(&error))?;
    create_directory_of(path).and_then(|()| replace(path, &text)).map_err(|error| with_path(&error))
}

/// A log in a directory with the layout of C2SP tlog-tiles: `checkpoint`, `tile/...`.
pub struct LogDirectory {
    path: PathBuf,
    name: String,
}

impl LogDirectory {
    /// The log in a directory. Nothing is read until [`LogSource::read`] is called.
    pub fn new(path: &Path) -> LogDirectory {
        LogDirectory { path: path.to_owned(), name: path.display().to_string() }
    }
}

impl LogSource for LogDirectory {
    fn name(&self) -> &str {
        &self.name
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, LogError> {
        let path = self.path.join(path);
        let with_path = |error: io::Error| format!("{}: {error}", path.display());
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes));
        if read.map_err(with_path)? as u64 > max_bytes {
            return Err(format!("{}: longer than {max_bytes} bytes", path.display()).into());
        }
        Ok(bytes)
    }
}

/// A log that is read as a stream: its bundles one after the other, and a checkpoint from another source.
///
/// The stream must begin with the first bundle that the state file does not cover completely. It contains no tiles, so
/// the log cannot be compared with other checkpoints.
pub struct LogStream<R> {
    checkpoint: Vec<u8>,
    entries: Mutex<R>,
}

impl<R: BufRead> LogStream<R> {
    /// A log whose bundles are read from `entries`; `checkpoint` is the signed note of the log itself.
    pub fn new(checkpoint: Vec<u8>, entries: R) -> LogStream<R> {
        LogStream { checkpoint, entries: Mutex::new(entries) }
    }

    fn read_bundle(&self, width: usize) -> io::Result<Vec<u8>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bundle = Vec::new();
        for _ in 0..width {
            let mut length = [0; 2];
            entries.read_exact(&mut length)?;
            bundle.extend_from_slice(&length);
            let end = bundle.len() + usize::from(u16::from_be_bytes(length));
            let start = bundle.len();
            bundle.resize(end, 0);
            entries.read_exact(&mut bundle[start..])?;
        }
        Ok(bundle)
    }
}

impl<R: BufRead> LogSource for LogStream<R> {
    fn name(&self) -> &str {
        "standard input"
    }

    fn read(&self, path: &str, _max_bytes: u64) -> Result<Vec<u8>, LogError> {
        if path == "checkpoint" {
            return Ok(self.checkpoint.clone());
        }
        let Some(bundle) = path.strip_prefix("tile/entries/") else {
            return Err(
                format!("standard input has no {path}: to compare checkpoints, use a directory or a server").into()
            );
        };
        let width = bundle.split_once(".p/").map_or(Ok(WIDTH), |(_, width)| width.parse())?;
        self.read_bundle(width.min(WIDTH)).map_err(|error| format!("standard input ends within {path}: {error}").into())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_left_behind_by_a_crash_neither_lends_its_mode_nor_its_target() {
        let folder = std::env::temp_dir().join(format!("cairn-proof-files-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, new, other) = (folder.join("state"), folder.join("state.new"), folder.join("other"));
        fs::write(&new, "left behind").unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"first").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&other, "untouched").unwrap();
        symlink(&other, &new).unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::read(&other).unwrap()), (b"second".to_vec(), b"untouched".to_vec()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
