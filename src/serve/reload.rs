//! What can be changed while the server runs: keys, certificates, limits, destinations.
//!
//! A new configuration is read and checked as a whole before anything of it is in force. Files that it names are looked at
//! now and then, since whoever mounts secrets in a pod can send no signal.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::metrics::Metrics;
use crate::auth::{self, Guard, Keys};
use crate::config::Config;
use crate::http::{Address, ConnectionLimits, Timeouts, Tls};
use crate::ingest::{Ingest, LimitsConfig};
use crate::ledger::Ledger;
use crate::relay::Relay;

/// How often files with keys and certificates are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(5);

/// Settings that are in force as soon as they are read; a dot at the end stands for all below.
const LIVE: [&str; 7] =
    ["auth.", "limits.", "log.level", "relay.", "storage.max_bytes", "storage.min_free_bytes", "tls."];

/// The parts of a server that can be changed.
pub struct ReloadTargets {
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
    parts: ReloadTargets,
    /// Addresses where events are taken.
    taking: Vec<Address>,
    /// Held while something changes. What needs a restart stays as it is there.
    running: Mutex<Config>,
    files: Mutex<Contents>,
}

/// What stands in files, or why they cannot be read.
type Contents = Vec<(PathBuf, Result<Vec<u8>, std::io::ErrorKind>)>;

impl Live {
    /// A server that runs with this configuration, whose files had these contents before they were read for it.
    pub fn new(config: &Config, files: Contents, taking: Vec<Address>, parts: ReloadTargets) -> Live {
        let mut running = config.clone();
        auth::hash_keys(&mut running.auth);
        Live { parts, taking, running: Mutex::new(running), files: Mutex::new(files) }
    }

    /// Puts in force what can be changed. Blocks while a destination of the relay ends. Has to be called in the runtime.
    ///
    /// # Errors
    /// What is wrong; then nothing changes, but when the ledger fails while a destination starts.
    pub fn change(&self, new: &Config) -> Result<Changed, String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = new.clone();
        auth::hash_keys(&mut new.auth);
        self.refuse_to_open(&new)?;
        // Before they are read: a change in between is not missed.
        let files = contents(&new);
        let ReloadTargets { guard, tls, ingest, connections, relay, ledger, metrics } = &self.parts;
        let keys = Keys::load(&new.auth).map_err(|error| error.to_string())?;
        let prepared = Tls::prepare(&new.tls).map_err(|error| error.to_string())?;
        let destinations = relay.prepare(&new.relay).map_err(|error| error.to_string())?;
        let changed = compare(&running, &new);
        guard.change(keys);
        if let Some((tls, prepared)) = tls.as_ref().zip(prepared) {
            tls.change(prepared);
            running.tls = new.tls;
        }
        ingest.change(new.limits);
        connections.iter().for_each(|limits| limits.change(timeouts(&new.limits), new.limits.connections));
        ledger.space().change(&new.storage);
        (running.auth, running.limits, running.log.level) = (new.auth, new.limits, new.log.level);
        running.storage.max_bytes = new.storage.max_bytes;
        running.storage.min_free_bytes = new.storage.min_free_bytes;
        metrics.scope(|| relay.change(destinations)).map_err(|error| error.to_string())?;
        running.relay = new.relay;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        Ok(changed)
    }

    /// The addresses in use stay until a restart: what closes them must not go before.
    fn refuse_to_open(&self, new: &Config) -> Result<(), String> {
        let has_certificates = self.parts.tls.is_some() && new.tls.client_ca_file.is_some();
        if new.auth.has_keys() || has_certificates || new.auth.allow_anonymous {
            return Ok(());
        }
        match self.taking.iter().find(|address| !address.is_local()) {
            Some(address) => Err(format!(
                "{address} is in use until the next start, and nothing would close it any more: auth.api_keys, \
                 tls.client_ca_file (with TLS running) or auth.allow_anonymous: true is needed"
            )),
            None => Ok(()),
        }
    }

    /// Looks at the files that the configuration names, and reads them again when they have changed. It ends with the
    /// server.
    pub async fn watch_files(self: Arc<Live>) {
        loop {
            tokio::time::sleep(FILES_INTERVAL).await;
            let live = Arc::clone(&self);
            let look = tokio::task::spawn_blocking(move || live.look_at_files()).await;
            // A panic in it is a bug, and goes on as one.
            look.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
    }

    /// Looks once. Each kind of file for itself: one that is wrong keeps no key from being taken back. Blocks, as
    /// [`Live::change`] does.
    pub fn look_at_files(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let now = contents(&running);
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if now == *known {
            return;
        }
        let ReloadTargets { guard, tls, relay, metrics, .. } = &self.parts;
        let keys = Keys::load(&running.auth).map(|keys| guard.change(keys)).map_err(|error| error.to_string());
        let certificates = Tls::prepare(&running.tls).map_err(|error| error.to_string());
        let certificates =
            certificates.map(|prepared| tls.as_ref().zip(prepared).map_or((), |(tls, prepared)| tls.change(prepared)));
        let destinations = relay.prepare(&running.relay).map_err(|error| error.to_string());
        let destinations =
            destinations.and_then(|changes| metrics.scope(|| relay.change(changes)).map_err(|error| error.to_string()));
        for error in [keys, certificates, destinations].into_iter().filter_map(Result::err) {
            tracing::error!(error, "a file has changed and cannot be used: what was in it before stays in force");
        }
        tracing::info!("files with keys or certificates have changed, and were read again");
        *known = now;
    }
}

/// What stands now in the files that a configuration names.
pub fn contents(config: &Config) -> Contents {
    let relay = config.relay.all().flat_map(|(_, it)| [&it.org_id_file, &it.ca_file]).flatten();
    let files = config.tls.files().chain(config.auth.api_keys_file.as_deref()).chain(relay.map(PathBuf::as_path));
    files.map(|file| (file.to_owned(), std::fs::read(file).map_err(|error| error.kind()))).collect()
}

/// The time-outs of connections.
pub fn timeouts(limits: &LimitsConfig) -> Timeouts {
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
