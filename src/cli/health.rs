//! `cairn health`

use std::io::{self, Write};
use std::time::Duration;

use super::args::HealthArgs;
use super::server::Server;
use super::{Exit, complain, said};
use crate::http::Causes;

/// Who asks wants to know soon.
const WAIT: Duration = Duration::from_secs(3);

/// Asks the port for operators.
pub fn run(args: &HealthArgs) -> Exit {
    let server = match args.config.load().and_then(|loaded| Server::for_operators(&loaded.config)) {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let path = if args.ready { "/readyz" } else { "/healthz" };
    match server.text(path, WAIT) {
        Ok(answer) => said(writeln!(io::stdout(), "{}", answer.trim_end()), Exit::Fine),
        Err(error) => complain(Exit::Failed, &Causes(&*error)),
    }
}
