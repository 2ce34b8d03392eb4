//! The destination type `file`: appends events as JSON lines to a file, or writes them to standard output. Documented in
//! `docs/relay.md`, section "Files".

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::batches::json_lines;
use super::config::RotateConfig;
use super::destination::{BatchLimits, Destination, Outcome, Reason, SendFuture, SendResult, SessionKey};
use super::event::RelayEvent;
use crate::runtime::blocking;

/// The path that stands for standard output.
const STANDARD_OUTPUT: &str = "-";
/// The permissions of a new file: its content is that of the ledger.
const MODE: u32 = 0o640;
/// How much is read at a time to find the last end of a line.
const BLOCK: u64 = 64 << 10;

/// A destination: a file, or standard output.
pub struct Lines {
    batch: BatchLimits,
    /// Locked while lines are written. There is one request at a time.
    appender: Arc<Mutex<Appender>>,
}

impl Lines {
    /// The file at `path`, which is opened when there is something to write.
    pub fn new(path: &Path, rotate: RotateConfig, batch: BatchLimits) -> Lines {
        let appender = Appender { path: path.to_owned(), rotate, open: None };
        Lines { batch, appender: Arc::new(Mutex::new(appender)) }
    }
}

impl Destination for Lines {
    /// All events are one session, so that the lines have the order in which events were read.
    fn session(&self, _event: &RelayEvent<'_>) -> SessionKey {
        SessionKey([0; 16])
    }

    fn batch(&self) -> BatchLimits {
        self.batch
    }

    fn send(&self, events: &[RelayEvent<'_>]) -> SendFuture {
        let (lines, appender) = (json_lines(events), Arc::clone(&self.appender));
        Box::pin(async move {
            let started = Instant::now();
            let append = move || appender.lock().unwrap_or_else(PoisonError::into_inner).append(&lines);
            let outcome = match blocking(append).await {
                Ok(()) => Outcome::Delivered,
                Err(error) => Outcome::Failed { reason: Reason::Write, message: error.to_string(), retry_after: None },
            };
            SendResult { outcome, status: None, duration: started.elapsed() }
        })
    }
}

/// Appends lines to a file.
struct Appender {
    path: PathBuf,
    rotate: RotateConfig,
    /// The file and its length.
    open: Option<(File, u64)>,
}

impl Appender {
    /// Appends whole lines, and returns when they are on disk. After an error, a part of them may be in the file: it is removed when
    /// the file is opened again, and the lines are sent again.
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        if self.path == Path::new(STANDARD_OUTPUT) {
            // Under one lock, so that no line of the process log is in between.
            let mut output = io::stdout().lock();
            return output.write_all(lines).and_then(|()| output.flush());
        }
        let appended = self.append_to_file(lines);
        if appended.is_err() {
            self.open = None;
        }
        appended
    }

    fn append_to_file(&mut self, mut lines: &[u8]) -> io::Result<()> {
        let (mut file, mut length) = match self.open.take() {
            Some(open) if is_at(&open.0, &self.path)? => open,
            _ => open(&self.path)?,
        };
        let most = Some(self.rotate.bytes.as_u64()).filter(|bytes| *bytes > 0).unwrap_or(u64::MAX);
        while !lines.is_empty() {
            let mut fitting = lines_within(lines, most.saturating_sub(length));
            if fitting == 0 && length > 0 {
                file.sync_data()?;
                rotate(&self.path, self.rotate.files)?;
                (file, length) = open(&self.path)?;
                continue;
            }
            if fitting == 0 {
                // A line that is longer than a file has one of its own.
                fitting = lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1);
            }
            file.write_all(&lines[..fitting])?;
            (lines, length) = (&lines[fitting..], length + fitting as u64);
        }
        file.sync_data()?;
        self.open = Some((file, length));
        Ok(())
    }
}

/// The length of the first lines that fit into `room` bytes.
fn lines_within(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// Whether the open file still has this path: another program may have rotated it.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    Ok(std::fs::metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == (open.dev(), open.ino())))
}

/// Opens a file to append to it, and removes the start of a line at its end, which an interrupted write has left.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)?;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        let mut block = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut block)?;
        if let Some(at) = block.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok((file, end))
}

/// Renames `path` to `path.1`, `path.1` to `path.2`, and so on. The last one is replaced.
fn rotate(path: &Path, files: usize) -> io::Result<()> {
    let numbered = |number: usize| match number {
        0 => path.to_owned(),
        number => {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        }
    };
    for number in (0..files).rev() {
        match std::fs::rename(numbered(number), numbered(number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytesize::ByteSize;

    use super::*;

    fn appender(path: &Path, bytes: u64, files: usize) -> Appender {
        Appender { path: path.to_owned(), rotate: RotateConfig { bytes: ByteSize::b(bytes), files }, open: None }
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_line_that_was_not_finished_is_removed() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("events");
        for (before, after) in [("", ""), ("one\n", "one\n"), ("one\ntw", "one\n"), ("on", "")] {
            std::fs::write(&path, before).unwrap();
            appender(&path, 0, 1).append(b"new\n").unwrap();
            assert_eq!(text(&path), format!("{after}new\n"), "{before:?}");
        }
        std::fs::write(&path, format!("one\n{}", "x".repeat(200_000))).unwrap();
        appender(&path, 0, 1).append(b"new\n").unwrap();
        assert_eq!(text(&path), "one\nnew\n");
    }

    #[test]
    fn full_files_are_kept_up_to_their_number_and_lines_stay_whole() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("events");
        let mut appender = appender(&path, 10, 2);
        for lines in ["1111\n2222\n", "3333\n4444\n5555\n", "6666 is too long\n7777\n"] {
            appender.append(lines.as_bytes()).unwrap();
        }
        let numbered = |number: usize| text(&folder.path().join(format!("events.{number}")));
        assert_eq!(
            (text(&path), numbered(1), numbered(2)),
            ("7777\n".into(), "6666 is too long\n".into(), "5555\n".into())
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
        // As logrotate does.
        std::fs::rename(&path, folder.path().join("moved")).unwrap();
        appender.append(b"8888\n").unwrap();
        assert_eq!(text(&path), "8888\n");
        // The folder is gone, and comes back.
        let moved = folder.path().with_extension("moved");
        std::fs::rename(folder.path(), &moved).unwrap();
        assert!(appender.append(b"9999\n").is_err());
        std::fs::rename(&moved, folder.path()).unwrap();
        appender.append(b"9999\n").unwrap();
        assert_eq!(text(&path), "8888\n9999\n");
    }
}
