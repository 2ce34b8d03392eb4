//! The arguments of `cairn erase` and `cairn hold`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::server::ServerArgs;

/// Which events a command means: all conditions together.
#[derive(Debug, Args)]
pub struct SelectArgs {
    /// The event with this id
    #[arg(long, value_name = "ID")]
    pub id: Option<Uuid>,
    /// The events of this session
    #[arg(long, value_name = "SESSION")]
    pub session: Option<String>,
    /// The events of this agent
    #[arg(long, value_name = "ID")]
    pub agent_id: Option<String>,
    /// The events with this label; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Args)]
pub struct EraseArgs {
    #[command(flatten)]
    pub select: SelectArgs,
    /// Only events received at this time or later
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only events received before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Why; it is recorded, and stays
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["dry_run", "list", "replay"])]
    pub reason: Option<String>,
    /// Count the events, and erase nothing
    #[arg(long)]
    pub dry_run: bool,
    /// List what was erased, when, by which key, and why
    #[arg(long, conflicts_with_all = ["id", "session", "agent_id", "label", "since", "until", "reason", "dry_run", "replay"])]
    pub list: bool,
    /// Erase again what the erasures in this file erased: the output of `--list --json` from before a backup was restored
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "session", "agent_id", "label", "since", "until"])]
    pub replay: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
#[command(subcommand_required = true)]
pub struct HoldCommand {
    #[command(subcommand)]
    pub action: HoldAction,
}

#[derive(Debug, Subcommand)]
pub enum HoldAction {
    /// Keep events from erasure, also those that come later
    #[command(after_help = "Example:\n  cairn hold add --session s-42 --reason 'case 2026-117'")]
    Add(HoldArgs),
    /// Lift the hold that was added with the same conditions
    #[command(after_help = "Example:\n  cairn hold lift --session s-42 --reason 'case 2026-117 is closed'")]
    Lift(HoldArgs),
    /// List the holds
    #[command(after_help = "Example:\n  cairn hold list")]
    List(HoldListArgs),
}

#[derive(Debug, Args)]
pub struct HoldArgs {
    #[command(flatten)]
    pub select: SelectArgs,
    /// Why; it is recorded, and stays
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    #[command(flatten)]
    pub server: ServerArgs,
}

#[derive(Debug, Args)]
pub struct HoldListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub server: ServerArgs,
}
