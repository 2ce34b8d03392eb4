//! The arguments of commands that access a running server.

use std::time::Duration;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::config::{ConnectArgs, FileArgs};

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Check that the server accepts events, not only that it runs
    #[arg(long)]
    pub ready: bool,
    #[command(flatten)]
    pub file: FileArgs,
}

#[derive(Debug, Args)]
pub struct DrainArgs {
    /// End when no events have arrived for this time
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub after: Duration,
    /// End after this time in any case
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub within: Duration,
    #[command(flatten)]
    pub file: FileArgs,
}

#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// The process id of the server [default: the only process that runs `cairn serve`]
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub struct RelayCommand {
    #[command(subcommand)]
    pub action: RelayAction,
}

#[derive(Debug, Subcommand)]
pub enum RelayAction {
    /// Show the state, the backlog and the last error of each destination
    #[command(after_help = "Example:\n  cairn relay status")]
    Status(StatusArgs),
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the JSON of GET /v1/relay
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

/// The running server that a command accesses.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The URL of the server [default: `listen` of the configuration]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub file: FileArgs,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub struct DeadLetterCommand {
    #[command(subcommand)]
    pub action: DeadLetterAction,
}

#[derive(Debug, Subcommand)]
pub enum DeadLetterAction {
    /// List dead letters, with the answer of the upstream
    #[command(after_help = "Example:\n  cairn dead-letter list")]
    List(ListArgs),
    /// Show a dead letter with its event
    #[command(after_help = "Example:\n  cairn dead-letter show 01a20242-cc39-7000-8000-31cc52b97d6c")]
    Show(ShowArgs),
    /// Send dead letters again, each after the events that wait in its session
    #[command(after_help = "Examples:\n  cairn dead-letter retry --all\n  \
                            cairn dead-letter retry 01a20242-cc39-7000-8000-31cc52b97d6c")]
    Retry(MoveArgs),
    /// Drop dead letters; the events stay in the ledger
    #[command(after_help = "Example:\n  cairn dead-letter drop 01a20242-cc39-7000-8000-31cc52b97d6c")]
    Drop(MoveArgs),
}

/// The destination to which a command applies.
#[derive(Debug, Args)]
pub struct DestinationArgs {
    /// The destination; required if there are several
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print one JSON object per line
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
