//! What the process tells the service manager: systemd, sd_notify(3). Without one, nothing is sent.

use std::io;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::ledger::Ledger;
use crate::ledger::read::committed::Committed;
use crate::text::plural;

/// The interval at which the status text is renewed, unless the watchdog asks for a shorter one.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Reports that the server accepts events, and from then on that it runs and what it has. The task ends with the runtime.
pub fn ready(ledger: &Ledger) -> JoinHandle<()> {
    let committed = ledger.committed().clone();
    notify(&[NotifyState::Ready, NotifyState::Status(&status(&committed))]);
    let watchdog = sd_notify::watchdog_enabled();
    // The manual recommends half of the time after which the manager acts.
    let interval = watchdog.map_or(STATUS_INTERVAL, |time| STATUS_INTERVAL.min(time / 2));
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let status = status(&committed);
            match watchdog {
                Some(_) => notify(&[NotifyState::Watchdog, NotifyState::Status(&status)]),
                None => notify(&[NotifyState::Status(&status)]),
            }
        }
    })
}

/// Reports that the server shuts down.
pub fn stopping() {
    notify(&[NotifyState::Stopping, NotifyState::Status("shutting down")]);
}

fn status(committed: &Committed) -> String {
    format!("accepting events, {} stored", plural(committed.events(), "event"))
}

/// Sends a message. A manager that cannot be reached will act on its own.
fn notify(message: &[NotifyState<'_>]) {
    let sent: io::Result<()> = sd_notify::notify(message);
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}
