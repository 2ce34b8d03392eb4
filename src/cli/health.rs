//! `cairn health`: asks the admin port whether the server runs.

use std::time::Duration;

use super::args::HealthArgs;
use super::client::Client;
use super::exit::{CommandResult, Exit, print_line};

/// The timeout of the request.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Requests `/healthz`, or `/readyz` with `--ready`, and prints the response.
pub fn run(args: &HealthArgs) -> CommandResult {
    let client = Client::for_admin_port(&args.file.load()?.config)?;
    let path = if args.ready { "/readyz" } else { "/healthz" };
    print_line(client.text(path, TIMEOUT)?.trim_end(), Exit::Success)
}
