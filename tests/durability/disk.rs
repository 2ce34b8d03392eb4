//! A model of a disk, computed from a trace of system calls: what it contains if the power is lost at any moment.
//!
//! The model is the strictest disk that POSIX allows: a file has the content of its last sync, and a folder the names
//! of its last sync. Other disks also have a part of the later writes, torn at any byte.

use std::collections::BTreeMap;
use std::path::Path;

/// The arguments with which strace writes such a trace: every call that changes a file, and every answer that is sent.
pub const TRACE: [&str; 10] = [
    "-D",
    "-f",
    "-qq",
    "-y",
    "-xx",
    "-s",
    "67108864",
    "-e",
    "trace=openat,open,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,rename,renameat,renameat2,\
     unlink,unlinkat,link,linkat,mkdir,rmdir,fsync,fdatasync,sync,syncfs,sendto,sendmsg,copy_file_range,sendfile,mmap",
    "-o",
];

/// A system call of a trace, or its beginning.
#[derive(Debug, Clone)]
pub struct Call {
    name: String,
    arguments: String,
    /// The returned value; `None` for the beginning of a call.
    returned: Option<String>,
}

/// Parses a trace. Each call is in the result twice: where it begins and where it ends.
pub fn read_trace(text: &str) -> Vec<Call> {
    let mut started_calls: BTreeMap<&str, (String, String)> = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, arguments)) = started_calls.remove(process) else { continue };
            let more = resumed.split_once("resumed>").map_or("", |(_, more)| more);
            let (more, returned) = more.rsplit_once(") ").map_or((more, ""), |(more, returned)| (more, returned));
            let arguments = format!("{arguments}{more}");
            calls.push(Call {
                name,
                arguments,
                returned: Some(returned.trim_start().trim_start_matches("= ").to_owned()),
            });
        } else if let Some((name, rest)) = rest.split_once('(') {
            let name = name.to_owned();
            if let Some(arguments) = rest.strip_suffix(" <unfinished ...>") {
                started_calls.insert(process, (name.clone(), arguments.to_owned()));
                calls.push(Call { name, arguments: arguments.to_owned(), returned: None });
            } else if let Some((arguments, returned)) = rest.rsplit_once(") ") {
                let returned = returned.trim_start().trim_start_matches("= ").to_owned();
                let begin = Call { name: name.clone(), arguments: arguments.to_owned(), returned: None };
                calls.extend([begin, Call { name, arguments: arguments.to_owned(), returned: Some(returned) }]);
            }
        }
    }
    calls
}

/// The bytes of every string in the arguments of a call.
fn strings(arguments: &str) -> Vec<Vec<u8>> {
    let quoted = arguments.split('"').skip(1).step_by(2);
    quoted.map(unescape).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).map(|hex| u8::from_str_radix(&hex[..2], 16).unwrap()).collect()
}

/// The number and the name of a file descriptor that strace writes as `7<...>`.
fn descriptor_of(text: &str) -> Option<(u32, String)> {
    let (number, rest) = text.split_once('<')?;
    let name = unescape(rest.split_once('>')?.0);
    Some((number.trim().parse().ok()?, String::from_utf8_lossy(&name).into_owned()))
}

impl Call {
    /// The bytes that the call begins to send to a socket; `None` for any other call.
    pub fn sends(&self) -> Option<Vec<u8>> {
        let is_socket = || descriptor_of(&self.arguments).is_some_and(|(_, name)| name.starts_with("socket:"));
        let sends = matches!(self.name.as_str(), "sendto" | "sendmsg" | "write" | "writev");
        (sends && self.returned.is_none() && is_socket()).then(|| strings(&self.arguments).concat())
    }

    fn number(&self, at: usize) -> usize {
        self.arguments.split(", ").nth(at).unwrap().parse().unwrap_or_else(|_| panic!("{self:?}"))
    }
}

#[derive(Debug, Clone, Default)]
struct File {
    /// The content that a reader sees.
    now: Vec<u8>,
    /// The content that is certainly on disk.
    synced: Vec<u8>,
    /// The content that is certainly on disk after the sync that is in progress.
    syncing: Option<Vec<u8>>,
}

/// The files of one folder without subfolders.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    folder: String,
    files: Vec<File>,
    /// The index in `files` by name, as a reader sees it.
    names: BTreeMap<String, usize>,
    /// The names that are certainly on disk.
    synced_names: BTreeMap<String, usize>,
    syncing_names: Option<BTreeMap<String, usize>>,
    /// By file descriptor: the index in `files`, and the offset; `usize::MAX` for files that are opened with
    /// `O_APPEND`.
    open: BTreeMap<u32, (usize, usize)>,
}

impl Disk {
    /// The disk with the current content of a folder, all of it synced.
    pub fn of(folder: &Path) -> Disk {
        let mut disk = Disk { folder: folder.to_str().unwrap().to_owned(), ..Disk::default() };
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let bytes = std::fs::read(entry.path()).unwrap();
            disk.names.insert(entry.file_name().to_str().unwrap().to_owned(), disk.files.len());
            disk.files.push(File { now: bytes.clone(), synced: bytes, syncing: None });
        }
        disk.synced_names = disk.names.clone();
        disk
    }

    /// The name of a path within the folder; `None` for other paths.
    fn name<'p>(&self, path: &'p str) -> Option<&'p str> {
        path.strip_prefix(&self.folder)?.strip_prefix('/')
    }

    /// Applies the effect of a call.
    pub fn apply(&mut self, call: &Call) {
        let failed = call.returned.as_ref().is_some_and(|returned| returned.starts_with('-'));
        let texts = || strings(&call.arguments).into_iter().map(|text| String::from_utf8_lossy(&text).into_owned());
        match (call.name.as_str(), &call.returned) {
            _ if failed => {}
            ("fsync" | "fdatasync", None) => self.begin_sync(&call.arguments),
            ("fsync" | "fdatasync", Some(_)) => self.end_sync(&call.arguments),
            (_, None) => {}
            ("openat", Some(returned)) => self.open(&call.arguments, returned),
            ("write", _) => self.write(call, None),
            ("pwrite64", _) => self.write(call, Some(call.number(3))),
            ("ftruncate", _) => {
                let length = call.number(1);
                if let Some(file) = self.file(&call.arguments) {
                    self.files[file].now.resize(length, 0);
                }
            }
            ("fallocate", _) => assert!(call.arguments.contains("KEEP_SIZE"), "{call:?}"),
            ("unlink", _) => {
                for path in texts() {
                    self.name(&path).map(str::to_owned).map(|name| self.names.remove(&name));
                }
            }
            ("rename", _) => {
                let paths: Vec<String> = texts().collect();
                if let (Some(from), Some(to)) = (self.name(&paths[0]), self.name(&paths[1])) {
                    let file = self.names.remove(from).unwrap();
                    self.names.insert(to.to_owned(), file);
                }
            }
            ("linkat", _) => {
                // Descriptors of the working directory are no strings.
                let paths: Vec<String> = texts().collect();
                if let (Some(from), Some(to)) = (self.name(&paths[0]), self.name(&paths[1])) {
                    self.names.insert(to.to_owned(), self.names[from]);
                }
            }
            ("mmap", _) => {
                let is_written = call.arguments.contains("MAP_SHARED") && call.arguments.contains("PROT_WRITE");
                assert!(
                    !is_written || !call.arguments.contains('<'),
                    "files are not written by mapping them: {call:?}"
                );
            }
            ("mkdir" | "sendto" | "sendmsg" | "sync_file_range" | "writev", _) => {
                let touches = call.arguments.split(", ").next().and_then(descriptor_of);
                assert!(touches.is_none_or(|(_, path)| self.name(&path).is_none()), "{call:?}");
            }
            (other, _) => {
                let touches = texts().any(|path| self.name(&path).is_some()) || self.file(&call.arguments).is_some();
                assert!(!touches, "the model does not implement {other}: {call:?}");
            }
        }
    }

    fn open(&mut self, arguments: &str, returned: &str) {
        let Some((descriptor, path)) = descriptor_of(returned) else { return };
        self.open.remove(&descriptor);
        let Some(name) = self.name(&path).map(str::to_owned) else { return };
        let file = match self.names.get(&name) {
            Some(file) => *file,
            None if arguments.contains("O_CREAT") => {
                self.files.push(File::default());
                self.names.insert(name, self.files.len() - 1);
                self.files.len() - 1
            }
            None => panic!("{name} does not exist"),
        };
        if arguments.contains("O_TRUNC") {
            self.files[file].now.clear();
        }
        let at = if arguments.contains("O_APPEND") { usize::MAX } else { 0 };
        self.open.insert(descriptor, (file, at));
    }

    /// The index in `files` of the descriptor in the first argument.
    fn file(&self, arguments: &str) -> Option<usize> {
        let (descriptor, path) = descriptor_of(arguments)?;
        self.name(&path)?;
        Some(self.open.get(&descriptor).unwrap_or_else(|| panic!("{descriptor} is not open")).0)
    }

    fn write(&mut self, call: &Call, at: Option<usize>) {
        let Some(file) = self.file(&call.arguments) else { return };
        let (descriptor, _) = descriptor_of(&call.arguments).unwrap();
        let written: usize = call.returned.as_ref().unwrap().parse().unwrap();
        let bytes = &strings(&call.arguments).concat()[..written];
        let offset = &mut self.open.get_mut(&descriptor).unwrap().1;
        let now = &mut self.files[file].now;
        let start = at.unwrap_or(if *offset == usize::MAX { now.len() } else { *offset });
        if at.is_none() && *offset != usize::MAX {
            *offset += written;
        }
        now.resize(now.len().max(start + written), 0);
        now[start..start + written].copy_from_slice(bytes);
    }

    fn is_folder(&self, arguments: &str) -> bool {
        descriptor_of(arguments).is_some_and(|(_, path)| path == self.folder)
    }

    fn begin_sync(&mut self, arguments: &str) {
        if self.is_folder(arguments) {
            self.syncing_names = Some(self.names.clone());
        } else if let Some(file) = self.file(arguments) {
            self.files[file].syncing = Some(self.files[file].now.clone());
        }
    }

    fn end_sync(&mut self, arguments: &str) {
        if self.is_folder(arguments) {
            self.synced_names = self.syncing_names.take().unwrap();
        } else if let Some(file) = self.file(arguments) {
            let file = &mut self.files[file];
            file.synced = file.syncing.take().unwrap();
        }
    }

    /// Writes only what is certainly on disk.
    pub fn write_synced(&self, to: &Path) {
        for (name, file) in &self.synced_names {
            std::fs::write(to.join(name), &self.files[*file].synced).unwrap();
        }
    }

    /// Writes what may be on disk: of each file also a part of what was written since its last sync; of the folder its
    /// current names or those of its last sync.
    pub fn write_torn(&self, to: &Path, random: &mut fastrand::Rng) {
        let names = if random.bool() { &self.names } else { &self.synced_names };
        for (name, file) in names {
            let File { now, synced, .. } = &self.files[*file];
            let bytes = if now.starts_with(synced) { &now[..random.usize(synced.len()..=now.len())] } else { synced };
            std::fs::write(to.join(name), bytes).unwrap();
        }
    }
}
