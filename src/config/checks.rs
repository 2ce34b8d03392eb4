//! The settings that cannot be used: those of each stage, and those that contradict one another.

use std::time::Duration;

use super::log_level::levels;
use super::settings::Config;
use crate::auth;
use crate::http::Address;
use crate::text::settings::{Checks, InvalidSetting};

/// The longest that a shutdown may take.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Checks a configuration. Reads the files with keys and certificates that it names, and starts nothing.
pub fn check(config: &Config) -> Vec<InvalidSetting> {
    let mut checks = Checks::default();
    checks.number(Config::OWN, "shards", u64::from(config.shards));
    checks.extend(config.queue.check());
    checks.extend(config.storage.check());
    checks.extend(config.limits.check());
    let grace = config.shutdown.grace;
    checks.require(grace <= GRACE_MAX, "shutdown.grace", "at most 1day", humantime::format_duration(grace));
    let level = &config.log.level;
    checks.require(levels(level).is_some(), "log.level", "error, warn, info, debug or trace", level);
    checks.extend(config.log.tree().check());
    addresses(config, &mut checks);
    checks.extend(config.ingest.check(&config.limits));
    checks.extend(config.relay.check());
    checks.extend(auth::check(&config.auth));
    checks.extend(config.tls.check());
    checks.finish()
}

/// Every address is used once, and those that other machines reach need authentication.
fn addresses(config: &Config, checks: &mut Checks) {
    let is_closed = config.auth.has_keys() || config.tls.client_ca_file.is_some() || config.auth.allow_anonymous;
    let otlp = config.ingest.otlp.listen.as_ref();
    let public = config.listen.0.iter().map(|address| ("listen", address));
    for (key, address) in public.chain(otlp.map(|address| ("ingest.otlp.listen", address))) {
        let expected = "a loopback address, or auth.api_keys, or tls.client_ca_file, or auth.allow_anonymous: true";
        checks.require(address.is_local() || is_closed, key, expected, address);
    }
    checks.require(!config.listen.0.is_empty(), "listen", "at least one address", "nothing");
    let admin = Address::Tcp(config.admin.listen);
    for (index, address) in config.listen.0.iter().enumerate() {
        checks.require(admin.is_free_beside(address), "admin.listen", "another address than listen", &admin);
        let is_new = config.listen.0[..index].iter().all(|other| address.is_free_beside(other));
        checks.require(is_new, "listen", "each address once", address);
    }
    if let Some(otlp) = otlp {
        let is_free = config.listen.0.iter().chain([&admin]).all(|other| otlp.is_free_beside(other));
        checks.require(is_free, "ingest.otlp.listen", "another address than listen and admin.listen", otlp);
    }
}
