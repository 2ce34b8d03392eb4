//! `cairn drain`: waits until no more requests with events arrive, for a preStop hook.

use std::time::{Duration, Instant};

use super::args::DrainArgs;
use super::client::{Client, is_unreachable};
use super::exit::{CommandResult, Exit, Failure};

/// The interval at which the number of requests is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The timeout of one poll.
const POLL_TIMEOUT: Duration = Duration::from_secs(2);

/// Waits until no requests with events have arrived for `--after`, but not longer than `--within`.
pub fn run(args: &DrainArgs) -> CommandResult {
    let client = Client::for_admin_port(&args.file.load()?.config)?;
    wait(&client, args)?;
    Ok(Exit::Success)
}

fn wait(client: &Client, args: &DrainArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let (mut requests, mut quiet_since) = (None, started);
    loop {
        let now = self::requests(client)?;
        // A server that is too busy to answer counts as receiving events.
        if now.is_none() || now != requests {
            (requests, quiet_since) = (now, Instant::now());
        }
        let quiet = args.after.saturating_sub(quiet_since.elapsed());
        let left = quiet.min(args.within.saturating_sub(started.elapsed()));
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(POLL_INTERVAL));
    }
}

/// The number of requests with events since the server started; `None` if the server does not answer in time.
fn requests(client: &Client) -> Result<Option<f64>, Failure> {
    let metrics = match client.text("/metrics", POLL_TIMEOUT) {
        Ok(metrics) => metrics,
        Err(error) if is_unreachable(&error) => return Err(error),
        Err(_) => return Ok(None),
    };
    let counters = metrics.lines().filter(|line| line.starts_with("cairn_ingest_requests_total"));
    Ok(Some(counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()))
}
