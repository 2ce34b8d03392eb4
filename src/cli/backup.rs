//! `cairn backup`: copies a ledger while its server runs, or while it is stopped. `docs/backup.md` describes when and how.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Cursor, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use serde_json::Value;
use uuid::Uuid;

use super::args::{BackupArgs, ServerArgs};
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print_line};
use super::ledger::Reader;
use super::progress::progress_bar;
use crate::audit::backup::{Backup, CHECKPOINT, DATABASE, KEYS, MANIFEST, entry};
use crate::config::Config;
use crate::http::ErrorChain;
use crate::ledger::store::StoreError;
use crate::ledger::store::directory::CURRENT;
use crate::ledger::store::snapshot::Snapshot;
use crate::text::plural;

/// The length of a block of a tar archive, in bytes.
const BLOCK_BYTES: usize = 512;
/// The maximum length of the description of a backup, in bytes.
const MAX_MANIFEST_BYTES: usize = 64 << 10;
/// The bytes that are copied at a time.
const COPY_BYTES: usize = 1 << 16;

/// An archive that is being read.
pub type Archive = Box<dyn Read>;

/// Copies the ledger into a directory, or writes it to standard output as a tar archive.
pub fn run(args: &BackupArgs) -> CommandResult {
    let folder = (args.target.as_os_str() != "-").then_some(args.target.as_path());
    folder.map_or(Ok(()), require_empty)?;
    let (manifest, mut archive) = open(args)?;
    let summary = describe(&manifest, args.keys);
    let Some(folder) = folder else {
        copy(&mut archive, &mut io::stdout().lock())?;
        // Standard output is the archive.
        eprintln!("cairn: {summary}");
        return Ok(Exit::Success);
    };
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder.join(DATABASE));
    created.map_err(|error| format!("{}: {error}", folder.display()))?;
    unpack(archive, &mut |name, bytes| write_file(&folder.join(name), bytes)).inspect_err(|_| {
        // Nobody may take an incomplete copy for a backup.
        let _ = fs::remove_dir_all(folder);
    })?;
    File::open(folder.join(DATABASE)).and_then(|folder| folder.sync_all())?;
    File::open(folder)?.sync_all()?;
    print_line(format_args!("{}: {summary}", folder.display()), Exit::Success)
}

fn describe(manifest: &Value, with_keys: bool) -> String {
    let events = plural(manifest["events"].as_u64().unwrap_or_default(), "event");
    let keys = if with_keys { "with the signing keys: protect it" } else { "without the signing keys" };
    format!("a backup of {events}, {keys}")
}

/// The description of the backup, and the archive.
fn open(args: &BackupArgs) -> Result<(Value, Archive), Failure> {
    if let Some(url) = &args.server {
        return with_manifest(Client::at(url, &args.connect)?.download("/v1/backup", &[])?, None);
    }
    let config = args.ledger.load()?.config;
    let data_dir = &config.storage.data_dir;
    let keys = args.keys.then(|| fs::read(config.log.tree().key_path(data_dir))).transpose();
    let keys = keys.map_err(|error| format!("log.key_file: {error}"))?;
    match Snapshot::of_stopped(data_dir) {
        Ok(snapshot) => with_manifest(Made::of(snapshot, &config)?, keys),
        Err(StoreError::InUse(_)) => {
            let server = ServerArgs { server: None, connect: args.connect.clone(), file: args.ledger.file().clone() };
            let (manifest, archive) = with_manifest(Client::of(&server)?.download("/v1/backup", &[])?, keys)?;
            let instance = Reader::open(data_dir)?.meta.instance;
            match manifest["instance"].as_str().and_then(|text| text.parse::<Uuid>().ok()) == Some(instance) {
                true => Ok((manifest, archive)),
                false => Err("the running server has another ledger: name the right one with --server URL".into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads the description, which is the first file of an archive, and adds the signing keys after it.
///
/// # Errors
/// When the archive cannot be read, or is not a backup.
pub fn with_manifest(mut archive: impl Read + 'static, keys: Option<Vec<u8>>) -> Result<(Value, Archive), Failure> {
    let mut head = vec![0; BLOCK_BYTES];
    let not_a_backup = || Failure::from("this is not a backup of Cairn");
    archive.read_exact(&mut head).map_err(|error| format!("the backup cannot be read: {}", ErrorChain(&error)))?;
    let length = {
        let header = tar::Header::from_byte_slice(&head);
        let is_manifest = header.path().is_ok_and(|path| path == Path::new(MANIFEST));
        let length = header.size().ok().and_then(|size| usize::try_from(size).ok());
        length.filter(|length| is_manifest && *length <= MAX_MANIFEST_BYTES).ok_or_else(not_a_backup)?
    };
    head.resize(BLOCK_BYTES + length.next_multiple_of(BLOCK_BYTES), 0);
    archive.read_exact(&mut head[BLOCK_BYTES..])?;
    let manifest = &head[BLOCK_BYTES..BLOCK_BYTES + length];
    let manifest: Value = serde_json::from_slice(manifest).map_err(|_| not_a_backup())?;
    if let Some(keys) = keys {
        head.extend(entry(KEYS, &keys)?);
    }
    match manifest["backup"].as_u64() {
        Some(1) => Ok((manifest, Box::new(Cursor::new(head).chain(archive)))),
        Some(version) => Err(format!("the backup has format {version}, and this program supports format 1").into()),
        None => Err(not_a_backup()),
    }
}

/// Calls `place` with the name and the bytes of each file of an archive.
///
/// # Errors
/// When the archive is truncated, contains other files, or a file cannot be placed.
pub fn unpack(archive: Archive, place: &mut dyn FnMut(&str, &mut dyn Read) -> io::Result<()>) -> Result<(), Failure> {
    let bar = progress_bar("files", None);
    let mut archive = tar::Archive::new(archive);
    let mut is_complete = false;
    for entry in archive.entries()? {
        let mut entry = entry.map_err(|error| format!("the backup is truncated: {}", ErrorChain(&error)))?;
        let name = entry.path()?.to_str().unwrap_or_default().to_owned();
        if !is_expected(&name) || !entry.header().entry_type().is_file() {
            return Err(format!("the backup contains {name:?}, which is not part of one").into());
        }
        place(&name, &mut entry).map_err(|error| format!("{name}: {error}"))?;
        is_complete |= name.strip_prefix(DATABASE) == Some(CURRENT);
        bar.inc(1);
    }
    bar.finish_and_clear();
    if is_complete { Ok(()) } else { Err("the backup is truncated: it contains no complete database".into()) }
}

/// Whether a file may be in a backup. None leads out of its directory.
pub fn is_expected(name: &str) -> bool {
    let is_plain = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    [MANIFEST, CHECKPOINT, KEYS].contains(&name) || name.strip_prefix(DATABASE).is_some_and(is_plain)
}

/// Writes a new file durably, readable by its owner only.
///
/// # Errors
/// When it exists, or cannot be written.
pub fn write_file(path: &Path, bytes: &mut dyn Read) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::copy(bytes, &mut file)?;
    file.sync_all()
}

fn copy(from: &mut dyn Read, to: &mut dyn Write) -> Result<(), Failure> {
    let bar = progress_bar("bytes", None);
    let mut chunk = vec![0; COPY_BYTES];
    loop {
        let length =
            from.read(&mut chunk).map_err(|error| format!("the backup is truncated: {}", ErrorChain(&error)))?;
        if length == 0 {
            break;
        }
        to.write_all(&chunk[..length])?;
        bar.inc(length as u64);
    }
    bar.finish_and_clear();
    Ok(to.flush()?)
}

/// Refuses a directory that is not empty.
fn require_empty(folder: &Path) -> Result<(), Failure> {
    let is_used = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(format!("{}: {error}", folder.display()).into()),
    };
    if is_used {
        return Err(Failure::usage(format!(
            "{} is not empty: a backup needs a directory of its own",
            folder.display()
        )));
    }
    Ok(())
}

/// A backup that this process makes of a ledger whose server is stopped.
struct Made {
    backup: Backup,
    chunk: Cursor<Vec<u8>>,
    has_more: bool,
}

impl Made {
    fn of(snapshot: Snapshot, config: &Config) -> Result<Made, Failure> {
        let data_dir = &config.storage.data_dir;
        let reader = Reader::open(data_dir)?;
        let checkpoint = fs::read(config.log.tree().checkpoint_path(data_dir)).ok();
        let backup = Backup::begin(&reader.store, |_| Ok(snapshot), checkpoint)?;
        Ok(Made { backup, chunk: Cursor::default(), has_more: true })
    }
}

impl Read for Made {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.chunk.read(buffer)?;
        if read > 0 || !self.has_more || buffer.is_empty() {
            return Ok(read);
        }
        let mut chunk = std::mem::take(&mut self.chunk).into_inner();
        chunk.clear();
        self.has_more = self.backup.write_chunk(&mut chunk)?;
        self.chunk = Cursor::new(chunk);
        self.chunk.read(buffer)
    }
}
