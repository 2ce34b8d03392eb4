//! The arguments of `cairn backup` and `cairn restore`.

use std::path::PathBuf;

use clap::Args;

use super::config::{ConnectArgs, LedgerArgs};

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The directory to create; - writes a tar archive to standard output
    #[arg(value_name = "DIR|-")]
    pub target: PathBuf,
    /// Include the signing keys of the log, with which the restored log continues; only on the machine of the server
    #[arg(long, conflicts_with = "server")]
    pub keys: bool,
    /// Copy the ledger of this running server [default: the ledger in the data directory, with the help of its server if
    /// that runs]
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub connect: ConnectArgs,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}

#[derive(Debug, Args)]
#[group(id = "log", required = true, multiple = false, args = ["checkpoint", "new_log"])]
pub struct RestoreArgs {
    /// The directory or the tar archive of a backup; - for standard input
    #[arg(value_name = "DIR|FILE|-")]
    pub source: PathBuf,
    /// The last checkpoint of the log that was kept outside the server. The log continues if the backup has everything that
    /// it signs
    #[arg(long, value_name = "FILE")]
    pub checkpoint: Option<PathBuf>,
    /// Begin a new log, because no checkpoint or no signing key was kept
    #[arg(long)]
    pub new_log: bool,
    #[command(flatten)]
    pub ledger: LedgerArgs,
}
