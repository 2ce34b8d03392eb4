//! What can be changed while the server runs: keys, certificates, limits, destinations.
//!
//! A new configuration is read and checked as a whole before anything of it is in force. Files that it names are looked at
//! now and then, since whoever mounts secrets in a pod can send no signal.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::access::{Guard, Keys};
use crate::admin::Metrics;
use crate::config::Config;
use crate::http::{ConnectionLimits, Timeouts, Tls};
use crate::ingest::Ingest;
use crate::ledger::Ledger;
use crate::relay::Relay;

/// How often files with keys and certificates are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(5);

/// Settings that are in force as soon as they are read; a dot at the end stands for all below.
const LIVE: [&str; 7] =
    ["auth.", "limits.", "log.level", "relay.", "storage.max_bytes", "storage.min_free_bytes", "tls."];

/// The parts of a server that can be changed.
pub struct Parts {
    /// Who may call.
    pub guard: Arc<Guard>,
    /// TLS, if there is any.
    pub tls: Option<Tls>,
    /// What requests may take.
    pub ingest: Arc<Ingest>,
    /// What connections may take, on each port.
    pub connections: [Arc<ConnectionLimits>; 2],
    /// Where events go.
    pub relay: Arc<Relay>,
    /// How much room there is.
    pub ledger: Arc<Ledger>,
    /// Where new destinations count.
    pub metrics: Arc<Metrics>,
}

/// What came of a new configuration: names of settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// In force from now on.
    pub in_force: Vec<String>,
    /// Not before the next start.
    pub at_restart: Vec<String>,
}

/// What is in force, and how it is changed.
pub struct Live {
    parts: Parts,
    /// Held while something changes.
    config: Mutex<Config>,
}

/// What stands in files, or why they cannot be read.
type Contents = Vec<(PathBuf, Result<Vec<u8>, std::io::ErrorKind>)>;

impl Live {
    /// A server that runs with this configuration.
    pub fn new(config: &Config, parts: Parts) -> Live {
        let mut config = config.clone();
        config.auth.forget_keys();
        Live { parts, config: Mutex::new(config) }
    }

    /// Puts in force what can be changed. Blocks while a destination of the relay ends. Has to be called in the runtime.
    ///
    /// # Errors
    /// What is wrong; then nothing changes.
    pub fn change(&self, new: &Config) -> Result<Changed, String> {
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = new.clone();
        new.auth.forget_keys();
        let changed = compare(&config, &new);
        let keys = Keys::load(&new.auth).map_err(|error| error.to_string())?;
        let Parts { guard, tls, ingest, connections, relay, ledger, metrics } = &self.parts;
        if let Some(tls) = tls {
            tls.reload(&new.tls).map_err(|error| error.to_string())?;
        }
        metrics.scope(|| relay.change(&new.relay)).map_err(|error| error.to_string())?;
        guard.change(keys);
        ingest.change(new.limits);
        connections.iter().for_each(|limits| limits.change(timeouts(&new), new.limits.connections));
        ledger.space().change(&new.storage);
        *config = new;
        Ok(changed)
    }

    /// Looks at the files that the configuration names, and reads them again when they have changed. It ends with the
    /// server.
    pub async fn watch_files(self: Arc<Live>) {
        let mut known = self.contents();
        loop {
            tokio::time::sleep(FILES_INTERVAL).await;
            let live = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || live.look(known)).await;
            // A panic in it is a bug, and goes on as one.
            known = look.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
    }

    fn look(&self, known: Contents) -> Contents {
        let now = self.contents();
        if now == known {
            return known;
        }
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.change(&config) {
            Ok(_) => tracing::info!("files with keys or certificates have changed, and are in force"),
            Err(error) => tracing::error!(%error, "files have changed and cannot be used: nothing changes"),
        }
        now
    }

    fn contents(&self) -> Contents {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let relay = config.relay.all().flat_map(|(_, it)| [&it.org_id_file, &it.ca_file]).flatten();
        let files = config.tls.files().chain(config.auth.api_keys_file.as_deref()).chain(relay.map(PathBuf::as_path));
        files.map(|file| (file.to_owned(), std::fs::read(file).map_err(|error| error.kind()))).collect()
    }
}

/// The time-outs of connections.
pub fn timeouts(config: &Config) -> Timeouts {
    let limits = &config.limits;
    Timeouts { header: limits.header_timeout, body: limits.body_timeout, idle: limits.idle_timeout }
}

/// Which settings are not as they were.
fn compare(old: &Config, new: &Config) -> Changed {
    let mut changed = Changed::default();
    // Whether there is TLS at all is decided when a port is opened.
    let is_tls_kept = old.tls.cert_file.is_some() == new.tls.cert_file.is_some();
    for key in crate::config::differences(old, new) {
        let is_live = LIVE.iter().any(|live| key == *live || live.ends_with('.') && key.starts_with(live));
        let is_live = is_live && (is_tls_kept || !key.starts_with("tls."));
        if is_live { changed.in_force.push(key) } else { changed.at_restart.push(key) }
    }
    changed
}
