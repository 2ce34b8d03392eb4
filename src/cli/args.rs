//! The arguments as they are written, and their help.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

use super::{Exit, complain};
use crate::config::{self, ConfigError, Flags, Loaded, StorageFlags};
use crate::http::Addresses;

/// Makes what AI agents did provable.
#[derive(Debug, Parser)]
#[command(name = "cairn", version, propagate_version = true, after_help = EXIT_HELP)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_HELP: &str =
    "Exit status: 0 fine, 1 verified and broken or not proven, 2 usage or configuration, 3 could not do it";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take events, keep them, answer questions about them
    #[command(after_help = "Example:\n  cairn serve --config /etc/cairn/cairn.yaml")]
    Serve(ConfigArgs),
    /// Check the configuration, or print what is in force
    Config(ConfigCommand),
    /// Show stored events, also while the server runs
    #[command(after_help = "Examples:\n  cairn log --last 5\n  cairn log --agent-id my-agent --last 1000000 --json")]
    Log(LogArgs),
    /// Verify chains, and with --all the log over them, also while the server runs
    #[command(after_help = "Examples:\n  cairn verify --all\n  cairn verify --agent-id my-agent\n  \
                            cairn verify --agent-id my-agent --server http://localhost:7600\n  \
                            cairn verify --log http://cairn:7600 --key cairn.vkey --place cairn.place")]
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
}

/// How a running server is asked.
#[derive(Debug, Clone, Default, Args)]
pub struct DoorArgs {
    /// A file with the server's API key
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust besides the system's, for https
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its private key (PEM, in one file), for a server that asks for one
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A YAML file with settings; config/cairn.yaml has all of them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the ledger is kept: storage.data_dir
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where events come in: listen
    #[arg(long, value_name = "ADDRESS", value_parser = addresses)]
    pub listen: Option<Addresses>,
}

fn addresses(text: &str) -> Result<Addresses, &'static str> {
    text.parse().map_err(|()| "expected an address such as 127.0.0.1:7600 or unix:/run/cairn.sock")
}

impl ConfigArgs {
    /// Reads the configuration, or complains.
    pub fn load(&self) -> Result<Loaded, Exit> {
        self.read().map_err(|error| complain(Exit::Usage, &error))
    }

    /// Reads the configuration.
    pub fn read(&self) -> Result<Loaded, ConfigError> {
        let flags = Flags {
            listen: self.listen.clone(),
            storage: self.data_dir.clone().map(|data_dir| StorageFlags { data_dir }),
        };
        config::load(self.config.as_deref(), &flags)
    }
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
pub struct LogArgs {
    /// Only this agent's events
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// How many events, counted from the newest
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub last: u64,
    /// One JSON object a line, as GET /v1/events answers it
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
    pub door: DoorArgs,
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
    #[arg(long, value_name = "FILE")]
    pub place: Option<PathBuf>,
    /// With --log: go on reading, with this pause in between, such as 30s, until something is broken
    #[arg(long, value_name = "TIME", value_parser = pause)]
    pub every: Option<Duration>,
}

impl FollowArgs {
    /// Whether any of it was given.
    pub fn is_used(&self) -> bool {
        !self.key.is_empty() || self.place.is_some() || self.every.is_some()
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
    pub door: DoorArgs,
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
pub struct RelayCommand {
    #[command(subcommand)]
    pub action: RelayAction,
}

#[derive(Debug, Subcommand)]
pub enum RelayAction {
    /// Show what each destination got, what waits, and what went wrong
    #[command(after_help = "Example:\n  cairn relay status")]
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// As GET /v1/relay answers it
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The running server that a command talks to.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The running server [default: what the configuration has as listen]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub door: DoorArgs,
    /// A YAML file with settings
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub struct DeadLetterCommand {
    #[command(subcommand)]
    pub action: DeadLetterAction,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetterAction {
    /// List them, with the upstream's answer
    #[command(after_help = "Example:\n  cairn dead-letter list")]
    List(ListArgs),
    /// Show one of them, with its event
    #[command(after_help = "Example:\n  cairn dead-letter show 01a20242-cc39-7000-8000-31cc52b97d6c")]
    Show(ShowArgs),
    /// Send them again, each behind what waits in its session
    #[command(after_help = "Examples:\n  cairn dead-letter retry --all\n  \
                            cairn dead-letter retry 01a20242-cc39-7000-8000-31cc52b97d6c")]
    Retry(MoveArgs),
    /// Forget them; the events stay in the ledger
    #[command(after_help = "Example:\n  cairn dead-letter drop 01a20242-cc39-7000-8000-31cc52b97d6c")]
    Drop(MoveArgs),
}

/// Whose dead letters.
#[derive(Debug, Args)]
pub struct DestinationArgs {
    /// The destination; needed if there are several
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub destination: DestinationArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The id of the event
    #[arg(value_name = "EVENT_ID")]
    pub event: Uuid,
    #[command(flatten)]
    pub destination: DestinationArgs,
}

#[derive(Debug, Args)]
#[group(id = "which", required = true, multiple = true, args = ["events", "all"])]
pub struct MoveArgs {
    /// The ids of the events
    #[arg(value_name = "EVENT_ID", conflicts_with = "all")]
    pub events: Vec<Uuid>,
    /// Every dead letter of the destination
    #[arg(long)]
    pub all: bool,
    #[command(flatten)]
    pub destination: DestinationArgs,
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
