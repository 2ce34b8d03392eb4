//! The command-line arguments as they are parsed, and their help texts.

mod backup;
mod config;
mod erase;
mod server;

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

pub use backup::{BackupArgs, RestoreArgs};
pub use config::{ConfigArgs, ConnectArgs, FileArgs, LedgerArgs};
pub use erase::{EraseArgs, HoldAction, HoldArgs, HoldCommand, HoldListArgs, SelectArgs};
pub use server::*;

/// Makes what AI agents did provable.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, propagate_version = true, after_help = EXIT_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_HELP: &str = "Exit status: 0 success, 1 verified and broken or not proven, 2 usage or configuration error, 3 operational error, \
     4 events were not relayed at the end of the server, if shutdown.fail_if_unsent is true";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: receive, store and serve events
    #[command(after_help = "Example:\n  cairn serve --config /etc/cairn/cairn.yaml")]
    Serve(ConfigArgs),
    /// Check, print or describe the configuration
    Config(ConfigCommand),
    /// List stored events, also while the server runs
    #[command(
        alias = "log",
        after_help = "Examples:\n  cairn events --last 5\n  cairn events --follow\n  cairn events --agent-id my-agent \
                            --last 1000000 --json"
    )]
    Events(EventsArgs),
    /// Verify chains, and with --all the log and all other rows as well, also while the server runs
    #[command(after_help = "Examples:\n  cairn verify --all\n  cairn verify --agent-id my-agent\n  \
                            cairn verify --agent-id my-agent --server http://localhost:7600\n  \
                            cairn verify --index --server http://localhost:7600\n  \
                            cairn verify --log http://cairn:7600 --key cairn.vkey --state cairn.state")]
    Verify(VerifyArgs),
    /// Derive rows again from the events, for rows that `cairn verify` finds wrong
    #[command(
        after_help = "Examples:\n  cairn repair --dry-run\n  cairn repair --apply --config /etc/cairn/cairn.yaml\n\n\
                            Events are never changed. Nothing is repaired if the events themselves are damaged. \
                            Exit status: 0 if every row is right or can be derived, 1 otherwise."
    )]
    Repair(RepairArgs),
    /// Show the state of the log, and whether it can be signed
    #[command(after_help = "Example:\n  cairn status --config /etc/cairn/cairn.yaml")]
    Status(LedgerStatusArgs),
    /// Write an evidence package: the events of an agent with their proofs, in one file
    #[command(after_help = "Examples:\n  cairn export --agent-id my-agent -o evidence.json\n  \
                            cairn export --agent-id my-agent --since 2026-02-01T00:00:00Z --until \
                            2026-03-01T00:00:00Z > february.json\n  \
                            cairn export --agent-id my-agent --server http://localhost:7600 -o evidence.json")]
    Export(ExportArgs),
    /// Verify an evidence package; needs only the file and a key that you trust
    #[command(after_help = "Examples:\n  cairn verify-export evidence.json --key cairn.vkey\n  \
                            cairn verify-export evidence.json --key 'my/log+1a2b3c4d+AQ...'\n\nExit status: 0 only if \
                            every layer holds, under a key that you named.")]
    VerifyExport(VerifyExportArgs),
    /// Copy the ledger, also while the server runs
    #[command(after_help = "Examples:\n  cairn backup /backups/today --config /etc/cairn/cairn.yaml\n  \
                            cairn backup - --keys | gpg --encrypt -r ops > cairn.tar.gpg\n  \
                            kubectl exec POD -c cairn -- /cairn backup - > cairn.tar")]
    Backup(BackupArgs),
    /// Rebuild a ledger from a backup
    #[command(after_help = "Examples:\n  cairn restore /backups/today --checkpoint last.checkpoint --config \
                            /etc/cairn/cairn.yaml\n  cairn restore cairn.tar --new-log --data-dir /var/lib/cairn/data\n\n\
                            The checkpoint tells whether anything was signed that the backup does not have. If so, a new \
                            log begins, because a log must not have two histories.")]
    Restore(RestoreArgs),
    /// Show the state of the relay
    Relay(RelayCommand),
    /// Manage dead letters: events that an upstream refused permanently
    DeadLetter(DeadLetterCommand),
    /// Erase the content of events for good; chains, proofs and packages stay valid
    #[command(after_help = "Examples:\n  cairn erase --session s-42 --dry-run\n  \
                            cairn erase --session s-42 --reason 'request of the customer, ticket 4711'\n  \
                            cairn erase --label user=4711 --until 2026-06-01T00:00:00Z --reason 'contract ended'\n  \
                            cairn erase --list\n\nNeeds a key with the scope erase. The reason and the number of events are \
                            recorded, the conditions only by name.")]
    Erase(EraseArgs),
    /// Keep events from erasure
    Hold(HoldCommand),
    /// Manage the keys of the log
    Key(KeyCommand),
    /// Show what the redaction of a configuration makes of events, and store nothing
    #[command(after_help = "Examples:\n  cairn redact --test events.jsonl --config /etc/cairn/cairn.yaml\n  \
                            cairn events --last 1000 --json | cairn redact --test -\n\nThe file has one event, an array of \
                            events, one on each line, or any text.")]
    Redact(RedactArgs),
    /// Check whether the server runs, for the health check of a container
    #[command(after_help = "Examples:\n  cairn health --config /etc/cairn/cairn.yaml\n  cairn health --ready\n\nExit \
                            status: 0 if it runs (with --ready: if it is ready), 3 otherwise.")]
    Health(HealthArgs),
    /// Wait until no more events arrive, for a preStop hook
    #[command(after_help = "Example:\n  cairn drain --after 5s --within 10s\n\nWhen an app and its sidecar are \
                            terminated at the same time, this keeps the sidecar running until the app has sent its \
                            last events. It does not stop the server.")]
    Drain(DrainArgs),
    /// Make the server on this machine reload its configuration, as SIGHUP does
    #[command(
        after_help = "Examples:\n  cairn reload\n  kubectl exec POD -c cairn -- /cairn reload\n\nThe process log lists \
                            the changed settings, those that need a restart, and errors."
    )]
    Reload(ReloadArgs),
    /// Print a script for shell completions
    #[command(after_help = "Example:\n  cairn completions bash > /usr/share/bash-completion/completions/cairn")]
    Completions(CompletionsArgs),
    /// Print the manual page, or write the pages of all commands into a directory
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
    /// Print the effective configuration with the source of each value, secrets masked
    #[command(after_help = "Example:\n  CAIRN_SHARDS=2 cairn config print")]
    Print(ConfigArgs),
    /// Print the JSON schema of configuration files, for editors and for the values of charts
    #[command(after_help = "Example:\n  cairn config schema > cairn.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this agent's events
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// The number of events, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: u64,
    /// Wait for new events, and print them when they are committed
    #[arg(long, short)]
    pub follow: bool,
    /// Print one JSON object per line, as in GET /v1/events
    #[arg(long)]
    pub json: bool,
    /// List the events of this running server, instead of reading the data directory
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[group(id = "what", required = true, multiple = true, args = ["agent_id", "all", "index", "log", "package"])]
pub struct VerifyArgs {
    /// A file that was named by mistake: an evidence package has a command of its own
    #[arg(value_name = "FILE", hide = true)]
    pub package: Option<PathBuf>,
    /// Verify the chain of this agent; with --log, print its last sequence in the log
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// Verify everything: the chains of all agents, the log, and every row that follows from the events
    #[arg(long, conflicts_with_all = ["agent_id", "log", "index"])]
    pub all: bool,
    /// Verify the index, by which events are found by type, status, session and label
    #[arg(long, conflicts_with_all = ["agent_id", "log"])]
    pub index: bool,
    /// Read every leaf of the log of a running server, and verify it
    #[arg(long, value_name = "URL", requires = "key")]
    pub log: Option<String>,
    /// With --all: the number of threads that hash and check events [default: all cores]
    #[arg(long, value_name = "N", requires = "all")]
    pub jobs: Option<NonZeroU16>,
    /// With --all: report when the server was up, down or refusing events since this time [default: the first start]
    #[arg(long, value_name = "TIME", requires = "all")]
    pub since: Option<String>,
    /// With --all: the same until this time
    #[arg(long, value_name = "TIME", requires = "all")]
    pub until: Option<String>,
    #[command(flatten)]
    pub follow: FollowArgs,
    /// With --all or --log: a checkpoint of this log that was stored outside the server. The log must begin with the
    /// tree that it signs
    #[arg(long, value_name = "FILE", conflicts_with = "server")]
    pub checkpoint: Option<PathBuf>,
    /// Let a running server verify, instead of reading the data directory
    #[arg(long, value_name = "URL", conflicts_with = "log")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

/// How the log of a running server is read.
#[derive(Debug, Args)]
pub struct FollowArgs {
    /// With --log: a verifier key that you trust, or a file with such keys
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// With --log: store in this file how far the log was read, and continue from there next time. Protect it from
    /// changes
    #[arg(long, alias = "place", value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// With --log: read repeatedly, with this pause in between (such as 30s), until something is broken
    #[arg(long, value_name = "TIME", value_parser = pause)]
    pub every: Option<Duration>,
}

impl FollowArgs {
    /// Whether any of these arguments was given.
    pub fn is_used(&self) -> bool {
        !self.key.is_empty() || self.state.is_some() || self.every.is_some()
    }
}

fn pause(text: &str) -> Result<Duration, String> {
    let pause = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if pause < Duration::from_secs(1) { Err("expected 1s or more".to_owned()) } else { Ok(pause) }
}

#[derive(Debug, Args)]
#[group(id = "mode", required = true, multiple = false, args = ["dry_run", "apply"])]
pub struct RepairArgs {
    /// Show the rows that would be repaired, also while the server runs
    #[arg(long)]
    pub dry_run: bool,
    /// Repair them, and record it in the ledger. The server must be stopped
    #[arg(long)]
    pub apply: bool,
    /// Print one JSON object per line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub struct LedgerStatusArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Ask this running server, instead of reading the data directory
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The agent whose events to export
    #[arg(long, value_name = "ID")]
    pub agent_id: String,
    /// Only events received at this time or later
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events received before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Include the events of the recorder in the interval: they show when the server was up, down or refusing events
    #[arg(long)]
    pub with_recorder: bool,
    /// The file to write; - for standard output, the default
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Download the package from a running server, instead of reading the data directory
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub struct VerifyExportArgs {
    /// The package; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// A verifier key that you trust, or a file with such keys. It must not come from the sender of the package
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Report when the server was up, down or refusing events: needs a package made with `cairn export --with-recorder`
    #[arg(long)]
    pub recorder: bool,
    /// Print one JSON object
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
    /// Print the verifier keys, with which an auditor checks checkpoints
    #[command(after_help = "Example:\n  cairn key show --config /etc/cairn/cairn.yaml")]
    Show(LedgerArgs),
    /// Add a key. From the next start, checkpoints have a signature of every key
    #[command(
        after_help = "Example:\n  cairn key rotate --config /etc/cairn/cairn.yaml\n\nOnce every auditor has the new \
                            verifier key, remove the old key with `cairn key remove`."
    )]
    Rotate(LedgerArgs),
    /// Remove a key, once every auditor has a newer one. From the next start, checkpoints have no signature of it
    #[command(after_help = "Example:\n  cairn key remove 1a2b3c4d --config /etc/cairn/cairn.yaml\n\nAuditors who \
                            know only this key cannot verify newer checkpoints. `cairn key show` prints the keys.")]
    Remove(KeyRemoveArgs),
    /// Begin a new log over the present events, with a new name and key. The server must be stopped
    #[command(
        after_help = "Example:\n  cairn key new-log --config /etc/cairn/cairn.yaml\n\nThe new log does not prove what the \
                            old one proved. The files of the old key and checkpoint are renamed to log.key.old-... \
                            and log.checkpoint.old-..."
    )]
    NewLog(LedgerArgs),
}

#[derive(Debug, Args)]
pub struct RedactArgs {
    /// The file with events or a text; - is standard input
    #[arg(long, value_name = "FILE")]
    pub test: PathBuf,
    #[command(flatten)]
    pub file: FileArgs,
}

#[derive(Debug, Args)]
pub struct KeyRemoveArgs {
    /// The verifier key to remove, or its id: the eight hex digits in it
    #[arg(value_name = "KEY")]
    pub verifier_key: String,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub struct ManArgs {
    /// The directory for the pages; it must exist
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
