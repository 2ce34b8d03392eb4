//! What the process tells the service manager: systemd, sd_notify(3). Without one, nothing is sent.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Access, access};
use sd_notify::NotifyState;
use tokio::task::JoinHandle;

use crate::config::{Config, state_directories};
use crate::ledger::read::committed::Committed;
use crate::serve::Server;
use crate::text::plural;
use crate::tlog;

/// The interval at which the status text is renewed, unless the watchdog asks for a shorter one.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Warns of files that the service cannot write because they are outside of the directories that its unit gives it. The errors
/// that follow do not name the reason: they are those of a read-only file system, or of missing permissions.
pub fn sandbox_warnings(config: &Config) -> Vec<String> {
    let permitted = state_directories();
    if permitted.is_empty() {
        return Vec::new();
    }
    let (data_dir, log) = (&config.storage.data_dir, config.log.tree());
    let (checkpoint, key) = (log.checkpoint_path(data_dir), log.key_path(data_dir));
    // Files are replaced, which needs permission to write their directory.
    let directories = [
        ("storage.data_dir", Some(data_dir.as_path())),
        ("log.checkpoint_file", checkpoint.parent()),
        ("log.key_file", key.parent()),
    ];
    let names = permitted.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    let mut warnings = Vec::new();
    for (setting, path) in directories.into_iter().filter_map(|(setting, path)| Some((setting, path?))) {
        let is_own = permitted.iter().any(|own| path.starts_with(own));
        let existing = path.ancestors().find(|path| path.exists());
        if !is_own && existing.is_some_and(|path| access(path, Access::WRITE_OK).is_err()) {
            let path = path.display();
            warnings.push(format!(
                "{setting}: the service cannot write {path}: DynamicUser and ProtectSystem in its unit permit only {names}; \
                 docs/backup.md shows how to use another disk"
            ));
        }
    }
    warnings
}

/// Reports that the server accepts events, and from then on that it runs and what it has. The task ends with the runtime.
pub fn ready(server: &Server) -> JoinHandle<()> {
    let (committed, log) = (server.ledger().committed().clone(), Arc::clone(server.log()));
    notify(&[NotifyState::Ready, NotifyState::Status(&status(&committed, &log.state()))]);
    let watchdog = sd_notify::watchdog_enabled();
    // The manual recommends half of the time after which the manager acts.
    let interval = watchdog.map_or(STATUS_INTERVAL, |time| STATUS_INTERVAL.min(time / 2));
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(interval);
        loop {
            ticks.tick().await;
            let status = status(&committed, &log.state());
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

fn status(committed: &Committed, log: &tlog::State) -> String {
    let stored = plural(committed.events(), "event");
    match log {
        tlog::State::Stopped(why) => format!("accepting events, {stored} stored, NOTHING IS SIGNED: {why}"),
        tlog::State::Starting | tlog::State::Signed(_) => format!("accepting events, {stored} stored"),
    }
}

/// Sends a message. A manager that cannot be reached will act on its own.
fn notify(message: &[NotifyState<'_>]) {
    let sent: io::Result<()> = sd_notify::notify(message);
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager cannot be reached");
    }
}
