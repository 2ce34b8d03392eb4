//! `cairn health`

use std::time::Duration;

use super::args::HealthArgs;
use super::client::Client;
use super::exit::{CommandResult, Exit, print_line};

/// How long the answer may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the admin port.
pub fn run(args: &HealthArgs) -> CommandResult {
    let client = Client::for_operators(&args.config.load()?.config)?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    print_line(client.text(path, TIMEOUT)?.trim_end(), Exit::Success)
}
