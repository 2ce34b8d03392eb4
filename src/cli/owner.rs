//! Lets root change the files of a ledger as the user who owns them.
//!
//! A packaged service has a user of its own, and its files must stay readable for that user alone. Root gives up its
//! privileges before it touches them, so that a file which that user has replaced by a link leads nowhere. The user may not
//! pass the parents of the directory (`/var/lib/private` belongs to root), so the directories are opened before that, and
//! reached through their handles: proc(5), `/proc/self/fd`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::exit::Failure;
use crate::config::Config;

/// The directories of a ledger, opened before the privileges were given up.
#[derive(Default)]
pub struct Opened {
    /// Each with its path as the user knows it, and the path through its handle.
    directories: Vec<(PathBuf, String, File)>,
}

impl Opened {
    /// Makes root act as the owner of `path` for the rest of the process, and changes the paths of the ledger in `config` so
    /// that they can be reached then. Changes nothing if the caller is not root, or root is the owner.
    ///
    /// # Errors
    /// When a directory cannot be opened, or the system does not permit to change the user.
    pub fn as_owner_of(path: &Path, config: &mut Config) -> Result<Opened, Failure> {
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        // A missing path is reported by the code that needs it.
        let Ok(owner) = std::fs::metadata(path) else { return Ok(Opened::default()) };
        if !rustix::process::geteuid().is_root() || owner.uid() == 0 {
            return Ok(Opened::default());
        }
        let mut opened = Opened::default();
        let data_dir = config.storage.data_dir.clone();
        let log = config.log.tree();
        config.log.key_file = Some(opened.file(&log.key_path(&data_dir))?);
        config.log.checkpoint_file = Some(opened.file(&log.checkpoint_path(&data_dir))?);
        config.storage.data_dir = opened.directory(&data_dir)?;
        become_user(Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()))
            .map_err(|error| format!("cannot act as the owner of {}: {error}", path.display()))?;
        Ok(opened)
    }

    /// The path of a directory through its handle. A missing directory is reported by the code that needs it.
    fn directory(&mut self, path: &Path) -> Result<PathBuf, Failure> {
        if let Some((.., file)) = self.directories.iter().find(|(known, ..)| known == path) {
            return Ok(through(file).into());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
            Ok(file) => {
                let handle = through(&file);
                self.directories.push((path.to_owned(), handle.clone(), file));
                Ok(handle.into())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(path.to_owned()),
            Err(error) => Err(format!("{}: {error}", path.display()).into()),
        }
    }

    /// The path of a file through the handle of its directory.
    fn file(&mut self, path: &Path) -> Result<PathBuf, Failure> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = self.directory(directory)?;
        Ok(path.file_name().map_or(directory.clone(), |name| directory.join(name)))
    }

    /// The text with the paths as the user knows them.
    pub fn name_paths(&self, text: &str) -> String {
        let longest_first = self.directories.iter().rev();
        longest_first.fold(text.to_owned(), |text, (path, handle, _)| text.replace(handle, &path.display().to_string()))
    }
}

fn through(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// Changes the user of this thread. No other thread exists yet, and later threads inherit from this one.
fn become_user(user: Uid, group: Gid) -> rustix::io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}
