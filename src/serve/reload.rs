//! Changes settings while the server runs: keys, certificates, limits, destinations.
//!
//! A new configuration is checked as a whole before any of it is applied. The files that it names are polled, because a
//! program that mounts secrets into a pod cannot send a signal. `docs/configuration.md`, section "Changing settings
//! while the server runs", lists the settings.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::file_handles::{ADMIN_CONNECTIONS, max_connections};
use super::metrics::Metrics;
use super::recorded;
use crate::auth::{self, Guard, Keys};
use crate::config::Config;
use crate::http::{Address, ConnectionLimits, Readers, Timeouts, Tls};
use crate::ingest::{Ingest, LimitsConfig};
use crate::ledger::Ledger;
use crate::recorder::Notes;
use crate::relay::Relay;
use crate::runtime::blocking;
use cairn_proof::evidence::recorder::action;

/// The interval at which files with keys and certificates are polled.
const FILES_INTERVAL: Duration = Duration::from_secs(5);

/// The settings that are applied without a restart. A key that ends with a dot stands for all settings below it.
const LIVE: [&str; 7] =
    ["auth.", "limits.", "log.level", "relay.", "storage.max_bytes", "storage.min_free_bytes", "tls."];

/// Among these, those that need a restart: the database has its part of the memory for as long as it is open.
const NOT_LIVE: &str = "limits.memory";

/// The parts of a server whose settings can be changed.
pub struct ReloadTargets {
    /// API keys.
    pub guard: Arc<Guard>,
    /// Certificates, if TLS is on.
    pub tls: Option<Tls>,
    /// Limits of requests.
    pub ingest: Arc<Ingest>,
    /// Limits of reads and of their responses.
    pub readers: Arc<Readers>,
    /// Limits of connections, of the public addresses and of the admin port.
    pub connections: [Arc<ConnectionLimits>; 2],
    /// Destinations.
    pub relay: Arc<Relay>,
    /// Limits of disk space.
    pub ledger: Arc<Ledger>,
    /// The recorder for the metrics of new destinations.
    pub metrics: Arc<Metrics>,
    /// Reports to the chain of the recorder.
    pub notes: Notes,
}

/// The keys of the settings that a new configuration changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Settings that were applied.
    pub applied: Vec<String>,
    /// Settings that need a restart.
    pub needs_restart: Vec<String>,
}

/// The settings of a running server, and the parts to which changes are applied.
pub struct Live {
    parts: ReloadTargets,
    /// The addresses that receive events. They do not change before a restart.
    public_addresses: Vec<Address>,
    /// The configuration in use. The mutex is held during a change. Settings that need a restart keep their old values.
    running: Mutex<Config>,
    /// The contents of the files that `running` names, as they were last applied.
    files: Mutex<Contents>,
}

/// The contents of files, or why they cannot be read.
type Contents = Vec<(PathBuf, Result<Vec<u8>, std::io::ErrorKind>)>;

impl Live {
    /// The settings of a server that was started with `config`. `files` are the contents of its files, read before the
    /// server used them.
    pub fn new(config: &Config, files: Contents, public_addresses: Vec<Address>, parts: ReloadTargets) -> Live {
        let mut running = config.clone();
        auth::hash_keys(&mut running.auth);
        Live { parts, public_addresses, running: Mutex::new(running), files: Mutex::new(files) }
    }

    /// Applies the settings of `new` that can be changed without a restart. Blocks while destinations of the relay
    /// stop. Must be called within the Tokio runtime.
    ///
    /// # Errors
    /// When a setting cannot be applied. Nothing is changed then, except when the ledger fails while a destination
    /// starts.
    pub fn apply(&self, new: &Config) -> Result<Changed, String> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = new.clone();
        auth::hash_keys(&mut new.auth);
        self.require_protection(&new)?;
        // Read before the files are used, so that a change in between is noticed later.
        let files = contents(&new);
        let ReloadTargets { guard, tls, ingest, readers, connections, relay, ledger, metrics, .. } = &self.parts;
        let keys = Keys::load(&new.auth).map_err(|error| error.to_string())?;
        let prepared = Tls::prepare(&new.tls).map_err(|error| error.to_string())?;
        let destinations = relay.prepare(&new.relay).map_err(|error| error.to_string())?;
        let changed = compare(&running, &new);
        guard.set_keys(keys);
        if let Some((tls, prepared)) = tls.as_ref().zip(prepared) {
            tls.replace(prepared);
            running.tls = new.tls;
        }
        ingest.set_limits(new.limits);
        readers.set(new.limits.response_bytes.as_u64(), new.limits.read_timeout);
        let [public, admin] = connections;
        public.set(timeouts(&new.limits), self::connections(&new.limits));
        admin.set(timeouts(&new.limits), (ADMIN_CONNECTIONS, 0));
        ledger.space().set_limits(&new.storage);
        (running.auth, running.limits, running.log.level) = (new.auth, new.limits, new.log.level);
        running.storage.max_bytes = new.storage.max_bytes;
        running.storage.min_free_bytes = new.storage.min_free_bytes;
        metrics.scope(|| relay.apply(destinations)).map_err(|error| error.to_string())?;
        running.relay = new.relay;
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = files;
        if !changed.applied.is_empty() {
            self.note_change(&running, &changed.applied);
        }
        Ok(changed)
    }

    /// Reports a change to the chain of the recorder.
    fn note_change(&self, running: &Config, changed: &[String]) {
        let input = recorded::change(running, changed, self.parts.guard.fingerprints());
        self.parts.notes.add(action::CONFIGURATION, input);
    }

    /// Refuses a configuration without authentication while an address is bound that other machines can reach.
    /// Addresses stay bound until a restart.
    fn require_protection(&self, new: &Config) -> Result<(), String> {
        let has_certificates = self.parts.tls.is_some() && new.tls.client_ca_file.is_some();
        if new.auth.has_keys() || has_certificates || new.auth.allow_anonymous {
            return Ok(());
        }
        match self.public_addresses.iter().find(|address| !address.is_local()) {
            Some(address) => Err(format!(
                "{address} stays bound until a restart and would accept requests without authentication: set \
                 auth.api_keys, tls.client_ca_file (with TLS running) or auth.allow_anonymous: true"
            )),
            None => Ok(()),
        }
    }

    /// Polls the files that the configuration names, and applies them when they change. Runs until it is aborted.
    pub async fn watch_files(self: Arc<Live>) {
        loop {
            tokio::time::sleep(FILES_INTERVAL).await;
            let live = Arc::clone(&self);
            blocking(move || live.reload_changed_files()).await;
        }
    }

    /// Applies the files that the configuration names if any of them has changed. Each kind of file is applied on its
    /// own, so that an invalid certificate does not prevent the revocation of a key. Blocks like [`Live::apply`].
    pub fn reload_changed_files(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let current = contents(&running);
        let mut applied = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if current == *applied {
            return;
        }
        let ReloadTargets { guard, tls, relay, metrics, .. } = &self.parts;
        let keys = Keys::load(&running.auth).map(|keys| guard.set_keys(keys)).map_err(|error| error.to_string());
        let certificates = Tls::prepare(&running.tls).map_err(|error| error.to_string());
        let certificates =
            certificates.map(|prepared| tls.as_ref().zip(prepared).map_or((), |(tls, prepared)| tls.replace(prepared)));
        let destinations = relay.prepare(&running.relay).map_err(|error| error.to_string());
        let destinations =
            destinations.and_then(|changes| metrics.scope(|| relay.apply(changes)).map_err(|error| error.to_string()));
        for error in [keys, certificates, destinations].into_iter().filter_map(Result::err) {
            tracing::error!(error, "a changed file cannot be used; its previous content stays in use");
        }
        tracing::info!("files with keys or certificates changed and were reloaded");
        self.note_change(&running, &["files with keys or certificates".to_owned()]);
        *applied = current;
    }
}

/// The current contents of the files that a configuration names.
pub fn contents(config: &Config) -> Contents {
    let files = config.secret_files().into_iter();
    files.map(|file| (file.to_owned(), std::fs::read(file).map_err(|error| error.kind()))).collect()
}

/// The most connections to the public addresses, and the most streams of HTTP/2 of all of them.
pub fn connections(limits: &LimitsConfig) -> (usize, usize) {
    (max_connections(limits.connections), limits.requests)
}

/// The timeouts of connections.
pub fn timeouts(limits: &LimitsConfig) -> Timeouts {
    Timeouts {
        header: limits.header_timeout,
        body: limits.body_timeout,
        idle: limits.idle_timeout,
        age: Some(limits.connection_age).filter(|age| !age.is_zero()),
        keepalive: Some(limits.keepalive_interval).filter(|interval| !interval.is_zero()),
    }
}

/// The settings that differ, by whether they can be applied without a restart.
fn compare(old: &Config, new: &Config) -> Changed {
    let mut changed = Changed::default();
    // TLS is turned on or off when an address is bound, so that needs a restart.
    let is_tls_kept = old.tls.cert_file.is_some() == new.tls.cert_file.is_some();
    for key in crate::config::differences(old, new) {
        let is_live = LIVE.iter().any(|live| key == *live || live.ends_with('.') && key.starts_with(live));
        let is_live = is_live && key != NOT_LIVE && (is_tls_kept || !key.starts_with("tls."));
        if is_live { changed.applied.push(key) } else { changed.needs_restart.push(key) }
    }
    changed
}
