//! The command line. One file per subcommand; each takes its arguments and says how the process ends.

mod args;
mod checkpoints;
mod config;
mod dead_letter;
mod drain;
mod export;
mod follow;
mod health;
mod key;
mod ledger;
mod log;
mod manual;
mod progress;
mod relay;
mod reload;
mod serve;
mod server;
mod status;
mod verify;
mod verify_export;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

/// Why a command could not do it.
type Error = Box<dyn std::error::Error>;

/// How the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Fine,
    /// It was verified, and it is broken.
    Broken,
    /// The arguments or the configuration are wrong.
    Usage,
    /// It could not be done.
    Failed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Fine => 0,
            Exit::Broken => 1,
            Exit::Usage => 2,
            Exit::Failed => 3,
        })
    }
}

/// Says on standard error why a command did not do it.
fn complain(exit: Exit, error: &dyn std::fmt::Display) -> Exit {
    eprintln!("cairn: {error}");
    exit
}

/// How a command ends that has written its output. Whoever closed it early has seen enough.
fn said(written: io::Result<()>, exit: Exit) -> Exit {
    match written {
        Ok(()) => exit,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => exit,
        Err(error) => complain(Exit::Failed, &error),
    }
}

/// Runs the command that the arguments name.
pub fn run() -> Exit {
    match Arguments::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Export(args) => export::run(&args),
        Command::VerifyExport(args) => verify_export::run(&args),
        Command::Relay(args) => relay::run(&args.action),
        Command::DeadLetter(args) => dead_letter::run(&args.action),
        Command::Key(args) => key::run(&args.action),
        Command::Health(args) => health::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}
