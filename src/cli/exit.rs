//! The exit status of a command, and its error message on standard error. `docs/failures.md`, section "Exit statuses".

use std::error::Error;
use std::io;
use std::process::ExitCode;

use crate::http::ErrorChain;
use crate::text::sanitize;

/// The exit status of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: success.
    Success,
    /// 1: what was verified is broken or not proven.
    Invalid,
    /// 2: usage or configuration error.
    Usage,
    /// 3: operational error.
    Failed,
    /// 4: the server ended cleanly, but events were not relayed, and `shutdown.fail_if_unsent` is true.
    Unsent,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::Invalid => 1,
            Exit::Usage => 2,
            Exit::Failed => 3,
            Exit::Unsent => 4,
        })
    }
}

/// Why a command failed, and with which exit status.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: Box<dyn Error>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        ErrorChain(&*self.error).fmt(f)
    }
}

/// The result of a command.
pub type CommandResult = Result<Exit, Failure>;

impl Failure {
    /// A usage or configuration error.
    pub fn usage(error: impl Into<Box<dyn Error>>) -> Failure {
        Failure { exit: Exit::Usage, error: error.into() }
    }

    /// What was to be verified is not proven.
    pub fn not_proven(error: impl Into<Box<dyn Error>>) -> Failure {
        Failure { exit: Exit::Invalid, error: error.into() }
    }

    /// An operational error.
    pub fn operational(error: impl Into<Box<dyn Error>>) -> Failure {
        Failure { exit: Exit::Failed, error: error.into() }
    }

    /// The error, if it has the type `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }

    /// Writes the error to standard error, and returns the exit status. A broken pipe counts as success, because its
    /// reader has closed standard output on purpose.
    pub fn report(&self) -> Exit {
        if self.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Success;
        }
        // The message may contain untrusted text of a server or a file.
        for line in ErrorChain(&*self.error).to_string().lines() {
            eprintln!("cairn: {}", sanitize(line));
        }
        self.exit
    }
}

/// Converts errors of these types to operational errors.
macro_rules! operational {
    ($($error:ty),* $(,)?) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Failure {
                Failure::operational(error)
            }
        })*
    };
}

operational!(
    String,
    &'static str,
    Box<dyn Error>,
    io::Error,
    reqwest::Error,
    serde_json::Error,
    rustix::io::Errno,
    crate::ledger::store::StoreError,
    crate::serve::ServeError,
    crate::tlog::keys::KeyError,
);

impl From<Box<dyn Error + Send + Sync>> for Failure {
    fn from(error: Box<dyn Error + Send + Sync>) -> Failure {
        Failure { exit: Exit::Failed, error }
    }
}

/// Writes the output of a command, and returns `exit` even if the reader closes the pipe early.
pub fn print(text: impl AsRef<[u8]>, exit: Exit) -> CommandResult {
    match io::Write::write_all(&mut io::stdout(), text.as_ref()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(exit),
    }
}

/// Writes a line of output; see [`print`].
pub fn print_line(text: impl std::fmt::Display, exit: Exit) -> CommandResult {
    print(format!("{text}\n"), exit)
}
