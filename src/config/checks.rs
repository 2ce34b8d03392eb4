//! Checks a configuration: the settings of each stage, and settings that contradict one another.

use std::time::Duration;

use super::input::Scope;
use super::log_level::parse_levels;
use super::memory::Division;
use super::settings::Config;
use crate::auth;
use crate::text::settings::{Checks, InvalidSetting};

/// The maximum of `shutdown.grace`.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Checks what `scope` needs of a configuration, and returns the invalid settings. For a server, reads the files with keys
/// and certificates that it names. Starts nothing.
pub fn check(config: &Config, scope: Scope) -> Vec<InvalidSetting> {
    let mut checks = Checks::default();
    if scope == Scope::Redaction {
        return config.redaction.check();
    }
    checks.extend(config.storage.check());
    checks.extend(config.log.tree().check());
    if scope == Scope::Ledger {
        return checks.finish();
    }
    checks.number(Config::OWN, "shards", u64::from(config.shards));
    checks.extend(config.queue.check());
    checks.extend(config.limits.check());
    checks.extend(Division::of(config).check());
    let grace = config.shutdown.grace;
    checks.require(grace <= GRACE_MAX, "shutdown.grace", "at most 1day", humantime::format_duration(grace));
    let level = &config.log.level;
    checks.require(parse_levels(level).is_some(), "log.level", "error, warn, info, debug or trace", level);
    check_addresses(config, &mut checks);
    checks.extend(config.ingest.check(&config.limits));
    checks.extend(config.redaction.check());
    checks.extend(config.relay.check());
    checks.extend(config.retention.check(config.relay.all().next().is_some(), &config.storage));
    checks.extend(auth::check(&config.auth));
    checks.extend(config.tls.check());
    checks.extend(config.http.check());
    checks.finish()
}

/// Checks that every address is used once, and that an address that other machines can reach requires authentication or
/// explicitly allows anonymous callers.
fn check_addresses(config: &Config, checks: &mut Checks) {
    let may_be_remote = config.auth.has_keys() || config.tls.client_ca_file.is_some() || config.auth.allow_anonymous;
    let otlp: Vec<_> = config.ingest.otlp.addresses().collect();
    let public = config.listen.0.iter().map(|address| ("listen", address));
    for (key, address) in public.chain(otlp.iter().map(|(key, address)| (*key, address))) {
        let expected = "a loopback address, or auth.api_keys, or tls.client_ca_file, or auth.allow_anonymous: true";
        checks.require(address.is_local() || may_be_remote, key, expected, address);
    }
    checks.require(!config.listen.0.is_empty(), "listen", "at least one address", "nothing");
    let admin = &config.admin.listen;
    checks.require(admin.tcp().is_some(), "admin.listen", "an address of TCP", admin);
    for (index, address) in config.listen.0.iter().enumerate() {
        checks.require(admin.can_coexist_with(address), "admin.listen", "an address other than listen", admin);
        let is_unique = config.listen.0[..index].iter().all(|other| address.can_coexist_with(other));
        checks.require(is_unique, "listen", "each address once", address);
    }
    for (index, (key, address)) in otlp.iter().enumerate() {
        let is_free = config.listen.0.iter().chain([admin]).all(|other| address.can_coexist_with(other));
        checks.require(is_free, key, "an address other than listen and admin.listen", address);
        let is_unique = otlp[..index].iter().all(|(_, other)| address.can_coexist_with(other));
        checks.require(is_unique, key, "an address other than ingest.otlp.listen", address);
    }
}
