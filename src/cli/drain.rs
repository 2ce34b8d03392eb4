//! `cairn drain`

use std::time::{Duration, Instant};

use super::args::DrainArgs;
use super::server::Server;
use super::{Error, Exit, complain};
use crate::http::Causes;

/// How often it is looked at whether events come.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long that may take.
const WAIT: Duration = Duration::from_secs(2);

/// Waits until nobody brings events any more.
pub fn run(args: &DrainArgs) -> Exit {
    let server = match args.config.load().and_then(|loaded| Server::for_operators(&loaded.config)) {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    match wait(&server, args.after, Instant::now() + args.within) {
        Ok(()) => Exit::Fine,
        // There is nothing to wait for.
        Err(error) => complain(Exit::Failed, &Causes(&*error)),
    }
}

fn wait(server: &Server, after: Duration, deadline: Instant) -> Result<(), Error> {
    let (mut requests, mut quiet_since) = (requests(server)?, Instant::now());
    while quiet_since.elapsed() < after && Instant::now() < deadline {
        let left = after.saturating_sub(quiet_since.elapsed()).min(deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(left.min(LOOK_INTERVAL));
        let now = self::requests(server)?;
        if now != requests {
            (requests, quiet_since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// How many requests have brought events since the server started.
fn requests(server: &Server) -> Result<f64, Error> {
    let metrics = server.text("/metrics", WAIT)?;
    let counters = metrics.lines().filter(|line| line.starts_with("cairn_ingest_requests_total"));
    Ok(counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
