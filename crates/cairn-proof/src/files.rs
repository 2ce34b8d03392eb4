//! The only module of this crate that touches the file system: keys, state files, and a log in a directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::evidence::follow::{LogError, LogSource};
use crate::evidence::monitor::MonitorState;
use crate::tree::{WIDTH, note_keys};

/// Replaces a file, or creates it, so that only its owner can read it. The file has either the old or the new content, also after a
/// power loss, and is on disk when this returns.
///
/// # Errors
/// When the file cannot be written. It has its old content then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name is on disk only when the directory is.
    File::open(folder)?.sync_all()
}

/// The verifier keys that an argument names: the key itself, or a file that contains keys.
///
/// # Errors
/// When the argument is neither.
pub fn verifier_keys(argument: &str) -> Result<Vec<String>, String> {
    if note_keys::is_verifier(argument) {
        return Ok(vec![argument.to_owned()]);
    }
    let text = fs::read_to_string(argument)
        .map_err(|error| format!("--key: {argument:?} is not a verifier key, and cannot be read as a file: {error}"))?;
    let found: Vec<String> =
        text.split_whitespace().filter(|word| note_keys::is_verifier(word)).map(str::to_owned).collect();
    if found.is_empty() { Err(format!("--key: {argument} contains no verifier key")) } else { Ok(found) }
}

/// Reads how far a log was followed; `None` if the file does not exist yet.
///
/// # Errors
/// When the file cannot be read, or was not written by [`write_state`].
pub fn read_state(path: &Path) -> Result<Option<MonitorState>, String> {
    let named = |error: &dyn std::fmt::Display| format!("--state {}: {error}", path.display());
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(&error)),
    };
    let state = serde_json::from_slice(&text);
    state.map(Some).map_err(|error| named(&format!("this file was not written by --state: {error}")))
}

/// Writes how far a log was followed.
///
/// # Errors
/// When the file cannot be written.
pub fn write_state(path: &Path, state: &MonitorState) -> Result<(), String> {
    let named = |error: &dyn std::fmt::Display| format!("--state {}: {error}", path.display());
    let text = serde_json::to_vec(state).map_err(|error| named(&error))?;
    replace(path, &text).map_err(|error| named(&error))
}

/// A log in a directory with the layout of C2SP tlog-tiles: `checkpoint`, `tile/...`.
pub struct LogDirectory {
    path: PathBuf,
    name: String,
}

impl LogDirectory {
    /// The log in a directory. Nothing is read yet.
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
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(max_bytes + 1).read_to_end(&mut bytes));
        if read.map_err(named)? as u64 > max_bytes {
            return Err(format!("{}: longer than {max_bytes} bytes", path.display()).into());
        }
        Ok(bytes)
    }
}

/// A log as a stream: its entry bundles one after the other, starting with the first bundle that was not read completely, and a
/// checkpoint from elsewhere. Hash tiles cannot be read from it.
pub struct LogStream<R> {
    checkpoint: Vec<u8>,
    entries: Mutex<R>,
}

impl<R: BufRead> LogStream<R> {
    /// A log whose entry bundles are read from `entries`.
    pub fn new(checkpoint: Vec<u8>, entries: R) -> LogStream<R> {
        LogStream { checkpoint, entries: Mutex::new(entries) }
    }

    fn bundle(&self, width: usize) -> io::Result<Vec<u8>> {
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
                format!("standard input has no {path}: compare checkpoints in a directory or with a server").into()
            );
        };
        let width = bundle.split_once(".p/").map_or(Ok(WIDTH), |(_, width)| width.parse())?;
        self.bundle(width.min(WIDTH)).map_err(|error| format!("standard input ends within {path}: {error}").into())
    }
}
