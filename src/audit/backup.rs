//! A backup: everything that a ledger needs to continue elsewhere, as one tar archive. `docs/backup.md` specifies its content.
//!
//! The checkpoint of the log is read before the snapshot of the database is made, so the database contains everything that it
//! signs. The file that completes the database is the last one, so a truncated archive contains no database.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, Response, Uri, header};
use serde_json::json;

use super::context::{Audit, store_failed};
use super::streamed_response::{self, CHUNK_BYTES, ChunkSource};
use crate::http::{ApiError, QueryParams, Read};
use crate::ledger::format::meta::Meta;
use crate::ledger::read::lookup;
use crate::ledger::store::snapshot::Snapshot;
use crate::ledger::store::{Store, StoreError};
use crate::runtime::now_ms;
use crate::tlog::State as LogState;
use cairn_proof::chain::time;

/// The description of the backup.
pub const MANIFEST: &str = "backup.json";
/// The last signed checkpoint of the log.
pub const CHECKPOINT: &str = "log.checkpoint";
/// The signing keys of the log. No server sends them: whoever may call it could sign in its name. `cairn backup --keys` adds
/// them from the file.
pub const KEYS: &str = "log.key";
/// The directory of the files of the database.
pub const DATABASE: &str = "database/";

/// The length of a block of a tar archive, in bytes. Each file is padded to it.
const BLOCK_BYTES: u64 = 512;

/// A backup that is being written.
pub struct Backup {
    snapshot: Snapshot,
    /// The short files, which come first.
    head: Vec<(&'static str, Vec<u8>)>,
    /// The files of the database that are not written yet, the last first.
    files: Vec<(String, u64)>,
    /// The file that is being written, and how much of it and its padding is left.
    open: Option<(File, u64, u64)>,
}

impl Backup {
    /// A backup of the ledger in `store`, of which `snapshot` makes or has made a snapshot.
    ///
    /// # Errors
    /// When the ledger cannot be read, or the snapshot cannot be made.
    pub fn begin(
        store: &Store,
        snapshot: impl FnOnce(&Store) -> Result<Snapshot, StoreError>,
        checkpoint: Option<Vec<u8>>,
    ) -> Result<Backup, StoreError> {
        let meta = Meta::read(store)?.ok_or_else(|| StoreError::Missing(store.path().to_owned()))?;
        // Counted before: the snapshot has at least these.
        let events = lookup::count(store, meta.shards)?;
        let snapshot = snapshot(store)?;
        let manifest = json!({
            "backup": 1,
            "made_at": String::from_utf8_lossy(&time::format_ms(now_ms())),
            "cairn": env!("CARGO_PKG_VERSION"),
            "instance": meta.instance.to_string(),
            "events": events,
        });
        let mut head = vec![(MANIFEST, format!("{manifest:#}\n").into_bytes())];
        head.extend(checkpoint.map(|note| (CHECKPOINT, note)));
        let mut files =
            snapshot.files().map_err(|source| StoreError::Directory { path: snapshot.path().to_owned(), source })?;
        files.reverse();
        head.reverse();
        Ok(Backup { snapshot, head, files, open: None })
    }

    /// Appends the next part of the archive to `out`, and returns whether more follow.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn write_chunk(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        while out.len() < CHUNK_BYTES {
            if let Some((file, left, padding)) = &mut self.open {
                let wanted = (*left).min((CHUNK_BYTES - out.len()) as u64);
                let read = file.take(wanted).read_to_end(out)? as u64;
                if read < wanted {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                *left -= read;
                if *left == 0 {
                    out.resize(out.len() + *padding as usize, 0);
                    self.open = None;
                }
            } else if let Some((name, bytes)) = self.head.pop() {
                out.extend(entry(name, &bytes)?);
            } else if let Some((name, bytes)) = self.files.pop() {
                out.extend_from_slice(header(&format!("{DATABASE}{name}"), bytes)?.as_bytes());
                self.open = Some((File::open(self.snapshot.path().join(name))?, bytes, padding(bytes)));
            } else {
                // Two empty blocks end an archive.
                out.resize(out.len() + 2 * BLOCK_BYTES as usize, 0);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A whole file of an archive.
///
/// # Errors
/// When the name is too long.
pub fn entry(name: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let length = bytes.len() as u64;
    let mut out = header(name, length)?.as_bytes().to_vec();
    out.extend_from_slice(bytes);
    out.resize(out.len() + padding(length) as usize, 0);
    Ok(out)
}

fn header(name: &str, bytes: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(bytes);
    header.set_mode(0o600);
    header.set_mtime(now_ms() / 1000);
    header.set_cksum();
    Ok(header)
}

fn padding(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES) - bytes
}

impl ChunkSource for Backup {
    fn next_chunk(&mut self, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        self.write_chunk(out).map_err(|error| ApiError::unavailable(format!("the backup cannot be read: {error}")))
    }
}

/// `GET /v1/backup`: the archive, without the signing keys.
pub async fn backup(State(audit): State<Arc<Audit>>, uri: Uri) -> Result<Response<Body>, ApiError> {
    QueryParams::of(&uri)?.finish()?;
    let work = |audit: &Audit, _: &_| {
        let checkpoint = match audit.log.state() {
            LogState::Signed(signed) => Some(signed.note.clone()),
            LogState::Starting | LogState::Stopped(_) => None,
        };
        let backup = Backup::begin(audit.ledger.store(), Store::snapshot, checkpoint).map_err(store_failed)?;
        streamed_response::begin(audit, backup)
    };
    let started = audit.read(Read::Scan, work).await?;
    let mut response = streamed_response::respond(audit, started);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    let name = HeaderValue::from_static("attachment; filename=\"cairn-backup.tar\"");
    headers.insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}
