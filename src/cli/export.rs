//! `cairn export`: writes an evidence package of an agent.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::ExportArgs;
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure};
use super::ledger::{Reader, signed};
use super::progress::progress_bar;
use crate::audit::ExportRange;
use crate::audit::export::Export;
use crate::config::Loaded;
use crate::http::ErrorChain;
use crate::text::{plural, sanitize};
use cairn_proof::chain::time;

/// What to export: the validated arguments.
struct Request {
    range: ExportRange,
    /// The times as they were given, for a request to a server.
    since: Option<String>,
    until: Option<String>,
    output: Option<PathBuf>,
    server: Option<Client>,
    loaded: Loaded,
}

impl Request {
    fn new(args: ExportArgs) -> Result<Request, Failure> {
        let since_ms = parse_time("--since", args.since.as_deref())?;
        let until_ms = parse_time("--until", args.until.as_deref())?;
        if since_ms.zip(until_ms).is_some_and(|(since, until)| since >= until) {
            return Err(Failure::usage("--since must be before --until"));
        }
        Ok(Request {
            loaded: args.ledger.load()?,
            server: args.server.as_ref().map(|url| Client::at(url, &args.connect)).transpose()?,
            range: ExportRange { agent_id: args.agent_id, since_ms, until_ms, with_recorder: args.with_recorder },
            since: args.since,
            until: args.until,
            output: args.output,
        })
    }
}

/// Parses a time of an argument, in ms since 1970.
pub fn parse_time(argument: &str, text: Option<&str>) -> Result<Option<u64>, Failure> {
    let Some(text) = text else { return Ok(None) };
    let expected = "expected an RFC 3339 time such as 2026-02-17T10:30:00Z";
    let invalid = || Failure::usage(format!("{argument}: {expected}, found {text:?}"));
    time::parse_ms_ceil(text).map(Some).ok_or_else(invalid)
}

/// Writes an evidence package.
pub fn run(args: ExportArgs) -> CommandResult {
    let request = Request::new(args)?;
    let mut target = Target::open(request.output.as_deref())?;
    let written = match &request.server {
        Some(client) => plural(from_server(client, &request, &mut target)?, "byte"),
        None => plural(from_ledger(&request, &mut target)?, "event"),
    };
    target.finish()?;
    // Standard output may be the package.
    if let Some(path) = request.output.as_deref().filter(|path| path.as_os_str() != "-") {
        let agent_id = sanitize(&request.range.agent_id);
        eprintln!("cairn: {}: {written} of agent {agent_id}; `cairn verify-export` verifies it", path.display());
    }
    Ok(Exit::Success)
}

/// Returns the number of events.
fn from_ledger(request: &Request, target: &mut Target) -> Result<u64, Failure> {
    let Request { loaded, range, .. } = request;
    let (config, data_dir) = (loaded.config.log.tree(), &loaded.config.storage.data_dir);
    // The checkpoint is read before the database, so that the database contains everything it signs.
    let own = super::checkpoints::own(&config, data_dir)?;
    let reader = Reader::open(data_dir)?;
    let own = own?.ok_or("there is no checkpoint yet (log.checkpoint_file)")?;
    let signed = Arc::new(signed(&reader, &own)?);
    let key = own.keys.first().cloned().unwrap_or_default();
    let export = Export::prepare(signed, &key, range)?;
    let mut export = export.map_err(|missing| missing.message(&range.agent_id))?;
    let bar = progress_bar("events and proofs", Some(2 * export.events()));
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        let is_more = export.write_chunk(&mut chunk)?;
        target.write_all(&chunk)?;
        bar.set_position(export.written());
        if !is_more {
            break;
        }
    }
    bar.finish_and_clear();
    if export.newer() > 0 {
        let newer = export.newer();
        let newer = plural(newer, "newer event");
        eprintln!("cairn: not in the package, because no checkpoint covers them yet: {newer}");
    }
    Ok(export.events())
}

/// Returns the number of bytes.
fn from_server(client: &Client, request: &Request, target: &mut Target) -> Result<u64, Failure> {
    let mut query = vec![("agent_id", request.range.agent_id.as_str())];
    query.extend(request.since.as_deref().map(|since| ("since", since)));
    query.extend(request.until.as_deref().map(|until| ("until", until)));
    query.extend(request.range.with_recorder.then_some(("with_recorder", "true")));
    let mut package = client.download("/v1/export", &query)?;
    let bar = progress_bar("bytes", None);
    let (mut chunk, mut bytes) = (vec![0; 1 << 16], 0);
    loop {
        let length =
            package.read(&mut chunk).map_err(|error| format!("the response was truncated: {}", ErrorChain(&error)))?;
        if length == 0 {
            break;
        }
        target.write_all(&chunk[..length])?;
        bytes += length as u64;
        bar.inc(length as u64);
    }
    bar.finish_and_clear();
    Ok(bytes)
}

/// The output. A file is written under another name and renamed when it is complete.
enum Target {
    Output(io::StdoutLock<'static>),
    File {
        file: BufWriter<File>,
        part: PathBuf,
        path: PathBuf,
    },
    /// A device or a pipe, which must not be replaced by a file.
    Special(File),
}

impl Target {
    fn open(path: Option<&Path>) -> io::Result<Target> {
        let Some(path) = path.filter(|path| path.as_os_str() != "-") else {
            return Ok(Target::Output(io::stdout().lock()));
        };
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // A symbolic link is kept; its target is replaced.
        let path = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(_) => path.to_owned(),
        };
        let existing = std::fs::metadata(&path).ok();
        if existing.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            return OpenOptions::new().write(true).open(&path).map(Target::Special).map_err(named);
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let part = path.with_file_name(name);
        // A package contains events in clear text. What a former export left behind has permissions of its own.
        let _ = std::fs::remove_file(&part);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part).map_err(named)?;
        if let Some(metadata) = existing {
            file.set_permissions(metadata.permissions()).map_err(named)?;
        }
        Ok(Target::File { file: BufWriter::new(file), part, path })
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Target::Output(output) => output.write_all(bytes),
            Target::File { file, .. } => file.write_all(bytes),
            Target::Special(file) => file.write_all(bytes),
        }
    }

    fn finish(mut self) -> io::Result<()> {
        match &mut self {
            Target::Output(output) => output.flush(),
            Target::File { file, part, path } => {
                file.flush()?;
                std::fs::rename(part, path)
            }
            Target::Special(file) => file.flush(),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Target::File { part, .. } = self {
            // A complete file was renamed, so this only removes an incomplete one.
            let _ = std::fs::remove_file(part);
        }
    }
}
