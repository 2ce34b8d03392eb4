//! `cairn drain`

use std::time::{Duration, Instant};

use super::args::DrainArgs;
use super::client::{Client, is_unreachable};
use super::exit::{CommandResult, Exit, Failure};

/// How often it is looked at whether events come.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long that may take.
const WAIT: Duration = Duration::from_secs(2);

/// Waits until no more events arrive.
pub fn run(args: &DrainArgs) -> CommandResult {
    let client = Client::for_operators(&args.config.load()?.config)?;
    wait(&client, args)?;
    Ok(Exit::Success)
}

fn wait(client: &Client, args: &DrainArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let (mut requests, mut quiet_since) = (None, started);
    loop {
        let now = self::requests(client)?;
        // While it is too busy to say, it is not quiet.
        if now.is_none() || now != requests {
            (requests, quiet_since) = (now, Instant::now());
        }
        let quiet = args.after.saturating_sub(quiet_since.elapsed());
        let left = quiet.min(args.within.saturating_sub(started.elapsed()));
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK_INTERVAL));
    }
}

/// How many requests have brought events since the server started; `None` if it does not say in time.
fn requests(client: &Client) -> Result<Option<f64>, Failure> {
    let metrics = match client.text("/metrics", WAIT) {
        Ok(metrics) => metrics,
        Err(error) if is_unreachable(&error) => return Err(error),
        Err(_) => return Ok(None),
    };
    let counters = metrics.lines().filter(|line| line.starts_with("cairn_ingest_requests_total"));
    Ok(Some(counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()))
}
