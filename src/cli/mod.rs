//! The command line. One file per command; each takes its arguments and returns the exit status or the failure.

mod args;
mod backup;
mod checkpoints;
mod client;
mod config;
mod dead_letter;
mod drain;
mod erase;
mod events;
mod exit;
mod export;
mod health;
mod hold;
mod key;
mod ledger;
mod logging;
mod manual;
mod owner;
mod progress;
mod redact;
mod relay;
mod reload;
mod repair;
mod restore;
mod serve;
mod service;
mod status;
mod termination;
mod verify;
mod verify_export;
mod verify_log;

use clap::Parser;

use args::{Arguments, Command};
pub use exit::Exit;

/// Runs the command that the arguments name.
pub fn run() -> Exit {
    let result = match Arguments::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Verify(args) => verify::run(args),
        Command::Repair(args) => repair::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Export(args) => export::run(args),
        Command::VerifyExport(args) => verify_export::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Relay(args) => relay::run(&args.action),
        Command::DeadLetter(args) => dead_letter::run(args.action),
        Command::Erase(args) => erase::run(&args),
        Command::Hold(args) => hold::run(&args.action),
        Command::Key(args) => key::run(&args.action),
        Command::Redact(args) => redact::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Drain(args) => drain::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    };
    result.unwrap_or_else(|failure| failure.report())
}
