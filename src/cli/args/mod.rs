//! The arguments as they are written, and their help.

mod config;
mod server;

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use config::{ConfigArgs, ConnectArgs};
pub use server::*;

/// Makes what AI agents did provable.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, propagate_version = true, after_help = EXIT_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_HELP: &str =
    "Exit status: 0 success, 1 verified and broken or not proven, 2 usage or configuration error, 3 operational error";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take events, keep them, answer questions about them
    #[command(after_help = "Example:\n  cairn serve --config /etc/cairn/cairn.yaml")]
    Serve(ConfigArgs),
    /// Check the configuration, or print what is in force
    Config(ConfigCommand),
    /// List stored events, also while the server runs
    #[command(
        alias = "log",
        after_help = "Examples:\n  cairn events --last 5\n  cairn events --follow\n  cairn events --agent-id my-agent \
                            --last 1000000 --json"
    )]
    Events(EventsArgs),
    /// Verify chains, and with --all the log over them, also while the server runs
    #[command(after_help = "Examples:\n  cairn verify --all\n  cairn verify --agent-id my-agent\n  \
                            cairn verify --agent-id my-agent --server http://localhost:7600\n  \
                            cairn verify --log http://cairn:7600 --key cairn.vkey --state cairn.state")]
    Verify(VerifyArgs),
    /// Show how far the log is, and whether it can be signed
    #[command(after_help = "Example:\n  cairn status --data-dir /var/lib/cairn")]
    Status(LedgerStatusArgs),
    /// Write an evidence package: an agent's events with all that proves them, in one file
    #[command(after_help = "Examples:\n  cairn export --agent-id my-agent -o evidence.json\n  \
                            cairn export --agent-id my-agent --since 2026-02-01T00:00:00Z --until \
                            2026-03-01T00:00:00Z > february.json\n  \
                            cairn export --agent-id my-agent --server http://localhost:7600 -o evidence.json")]
    Export(ExportArgs),
    /// Verify an evidence package; needs nothing but the file and a key that you trust
    #[command(after_help = "Examples:\n  cairn verify-export evidence.json --key cairn.vkey\n  \
                            cairn verify-export evidence.json --key 'my/log+1a2b3c4d+AQ...'\n\nExit status: 0 only if \
                            every layer holds, under a key that you named.")]
    VerifyExport(VerifyExportArgs),
    /// Show how far the relay is
    Relay(RelayCommand),
    /// Look after events that an upstream refused for good
    DeadLetter(DeadLetterCommand),
    /// Look after the keys of the log
    Key(KeyCommand),
    /// Ask whether the server runs, for a container's health check
    #[command(after_help = "Examples:\n  cairn health --config /etc/cairn/cairn.yaml\n  cairn health --ready\n\nExit \
                            status: 0 it does, 3 it does not.")]
    Health(HealthArgs),
    /// Wait while the last events come in, before the server is ended: for a preStop hook
    #[command(after_help = "Example:\n  cairn drain --after 5s --within 10s\n\nWhere an app and its sidecar are told \
                            to end at the same moment, this keeps the sidecar until the app has sent its last events. \
                            What ends the server comes behind it.")]
    Drain(DrainArgs),
    /// Have the server on this machine read its configuration again, as SIGHUP does
    #[command(
        after_help = "Examples:\n  cairn reload\n  kubectl exec POD -c cairn -- /cairn reload\n\nIts log says what \
                            changed, what needs a restart, or what is wrong."
    )]
    Reload(ReloadArgs),
    /// Print a script that completes these commands in a shell
    #[command(after_help = "Example:\n  cairn completions bash > /usr/share/bash-completion/completions/cairn")]
    Completions(CompletionsArgs),
    /// Print the manual page, or write that of each command into a folder
    #[command(after_help = "Examples:\n  cairn man | man -l -\n  cairn man --folder /usr/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub struct ConfigCommand {
    #[command(subcommand)]
    pub action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub enum ConfigAction {
    /// Check the configuration and start nothing
    #[command(after_help = "Example:\n  cairn config validate --config cairn.yaml")]
    Validate(ConfigArgs),
    /// Print what is in force and where each value came from, secrets masked
    #[command(after_help = "Example:\n  CAIRN_SHARDS=2 cairn config print")]
    Print(ConfigArgs),
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this agent's events
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// How many events, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: u64,
    /// Wait for more events, and print them as they are committed
    #[arg(long, short)]
    pub follow: bool,
    /// One JSON object on each line, as GET /v1/events answers it
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["agent_id", "all", "log"])]
pub struct VerifyArgs {
    /// This agent's chain; with --log, its last sequence there
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// Every agent's chain, and the log over them
    #[arg(long, conflicts_with_all = ["agent_id", "log"])]
    pub all: bool,
    /// The log of a running server, every leaf of it, from outside
    #[arg(long, value_name = "URL", requires = "key")]
    pub log: Option<String>,
    /// With --all: how many threads hash and check events [default: all cores]
    #[arg(long, value_name = "N", requires = "all")]
    pub jobs: Option<NonZeroU16>,
    #[command(flatten)]
    pub follow: FollowArgs,
    /// With --all or --log: a checkpoint of this log that was kept elsewhere. The events have to begin with those that it
    /// signed
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub checkpoint: Option<PathBuf>,
    /// Ask a running server, instead of reading the data directory
    #[arg(long, value_name = "URL", conflicts_with = "log")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

/// How a log is read from outside.
#[derive(Debug, Args)]
pub struct FollowArgs {
    /// With --log: a verifier key that you trust, or a file with such keys
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// With --log: keep in this file how far it was read, and go on from there next time. Nobody else may write it
    #[arg(long, alias = "place", value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// With --log: go on reading, with this pause in between, such as 30s, until something is broken
    #[arg(long, value_name = "TIME", value_parser = pause)]
    pub every: Option<Duration>,
}

impl FollowArgs {
    /// Whether any of it was given.
    pub fn is_used(&self) -> bool {
        !self.key.is_empty() || self.state.is_some() || self.every.is_some()
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if pause < Duration::from_secs(1) { Err("expected 1s or more".to_owned()) } else { Ok(pause) }
}

#[derive(Debug, Args)]
pub struct LedgerStatusArgs {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Whose events
    #[arg(long, value_name = "ID")]
    pub agent_id: String,
    /// Received then or later
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Received before
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Where to write it; - for standard output, as without it
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Ask a running server, instead of reading the data directory
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub config: ConfigArgs,
}

#[derive(Debug, Args)]
pub struct VerifyExportArgs {
    /// The package; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A verifier key that you trust, or a file with such keys. It must not come with the package
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub struct KeyCommand {
    #[command(subcommand)]
    pub action: KeyAction,
}

#[derive(Debug, Subcommand)]
pub enum KeyAction {
    /// Print the verifier keys: what an auditor needs to check checkpoints
    #[command(after_help = "Example:\n  cairn key show --data-dir /var/lib/cairn")]
    Show(ConfigArgs),
    /// Add a key: from the next start on, checkpoints bear a signature of each
    #[command(after_help = "Example:\n  cairn key rotate --data-dir /var/lib/cairn\n\nOnce every auditor has the new \
                            verifier key, remove the old one's line from the key file.")]
    Rotate(ConfigArgs),
    /// Begin a new log over the events as they are now, under a new name and key. The server has to be stopped
    #[command(
        after_help = "Example:\n  cairn key new-log --data-dir /var/lib/cairn\n\nWhat the old log proved is not \
                            proved by the new one. The old key and checkpoint are kept, as log.key.old-... and so on."
    )]
    NewLog(ConfigArgs),
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Whose script
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where the pages go, which has to be there
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
