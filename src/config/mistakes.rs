//! What is wrong with a configuration, in sentences: the key, the value, where it came from, what was expected.

use std::fmt;
use std::time::Duration;

use figment::error::Kind;
use figment::value::Value;
use figment::{Figment, Metadata, Source};

use super::{Config, ConfigError, ENV_PREFIX, Loaded, levels};
use crate::access::Keys;
use crate::chain::{DEFAULT_LABELS_MAX, DefaultLabels, is_agent_id};
use crate::http::{Address, Tls};
use crate::ingest::IngestConfig;
use crate::nearest::nearest;
use crate::tlog::LogConfig as LogOrigin;

/// The most that default labels add to each event, in bytes.
const DEFAULT_LABELS_BYTES: u64 = 1024;

/// The longest that the end may take. Nobody waits longer, and a time that has no end is no time.
const GRACE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Turns the library's errors into sentences.
pub fn explain(sources: &Figment, errors: figment::Error) -> ConfigError {
    let lines = errors.into_iter().map(|error| {
        let mut path = error.path.clone();
        if let Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let key = key_of(&path);
        let from = error.metadata.clone().or_else(|| origin(sources, &key).cloned());
        let from = from.map(|metadata| format!(" (in {})", place(&metadata, &key))).unwrap_or_default();
        let message = match &error.kind {
            Kind::UnknownField(field, known) => unknown(field, known),
            // A file that is none of ours may be anything, even a secret.
            _ if key.is_empty() => "expected settings, one a line".to_owned(),
            kind => match expected(&key) {
                // The library's words hold the value.
                expected if may_be_secret(&key) => format!("expected {}", expected.unwrap_or("a string")),
                Some(expected) => format!("expected {expected}, found {}", found(sources, &key)),
                None => kind.to_string(),
            },
        };
        let separator = if key.is_empty() { "" } else { ": " };
        format!("{key}{separator}{message}{from}")
    });
    ConfigError(lines.collect())
}

/// What was probably meant by a key that there is not.
fn unknown(field: &str, known: &[&'static str]) -> String {
    // A single underscore between levels is the usual slip in the environment, a dot that in a file.
    let flat = |text: &str| text.replace('.', "_");
    if let Some(meant) = keys().iter().find(|key| key.contains('.') && flat(key) == flat(field)) {
        let variable = format!("{ENV_PREFIX}{}", meant.to_ascii_uppercase().replace('.', "__"));
        return format!("unknown key; did you mean {meant}, one level per line, or {variable}?");
    }
    match nearest(field, known) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => format!("unknown key; there are {}", known.join(", ")),
    }
}

/// The names of all settings, with dots between the levels.
fn keys() -> Vec<String> {
    let mut found = Vec::new();
    let mut levels = vec![(String::new(), serde_json::to_value(Config::default()).unwrap_or_default())];
    while let Some((path, value)) = levels.pop() {
        match value {
            serde_json::Value::Object(members) if !members.is_empty() => levels.extend(
                members
                    .into_iter()
                    .map(|(name, value)| (if path.is_empty() { name } else { format!("{path}.{name}") }, value)),
            ),
            _ => found.push(path),
        }
    }
    found
}

/// What a setting has to be, as far as its type says.
fn expected(key: &str) -> Option<&'static str> {
    if key.starts_with("ingest.default_labels.") {
        return Some("a text, in quotes if it looks like something else");
    }
    let last = key.rsplit('.').next().unwrap_or(key);
    Some(match last {
        "listen" if key.starts_with("admin") => "an address such as 127.0.0.1:7601",
        "listen" => "an address such as 127.0.0.1:7600 or unix:/run/cairn.sock",
        "socket_mode" => "permissions in octal digits such as \"0660\"",
        "events_per_second" => "a number from 1 to 4294967295, or null",
        "connections" => "a number",
        "sync" | "allow_anonymous" | "enabled" => "true or false",
        "data_dir" | "api_keys_file" | "org_id_file" | "ca_file" | "key_file" | "checkpoint_file" | "cert_file"
        | "client_ca_file" => "a path",
        "api_keys" => "a list of strings, such as [one, two]",
        "compression" => "lz4 or zstd",
        "shards" => "a number from 1 to 256",
        "events" => "a number from 1 to 1000000",
        "batch_events" | "otlp_records" => "a number",
        "select" => "all or agent",
        "format" => "auto, json or text",
        "level" => "error, warn, info, debug or trace",
        "bytes" => "a size such as 64MiB",
        "max_wait" | "grace" => "a time such as 250ms or 10s",
        _ if last.ends_with("_bytes") => "a size such as 64MiB",
        _ if last.ends_with("_timeout") => "a time such as 250ms or 10s",
        "admin" | "storage" | "queue" | "limits" | "auth" | "shutdown" | "log" | "relay" | "agnost" | "otlp"
        | "ingest" | "tls" | "retry" | "filter" => "settings under it, one a line",
        "destinations" => "a list of destinations",
        "type" => "agnost",
        "from" => "start or now",
        "content" => "full or metadata-only",
        "concurrency" => "a number from 1 to 1024",
        "name" | "endpoint" | "org_id" | "origin" | "agent_id" => "a text",
        _ if last.ends_with("_interval") => "a time such as 250ms or 10s",
        "agent_ids" | "action_types" => "a list of strings, such as [one, two]",
        "labels" => "names with strings, numbers or booleans",
        "default_labels" => "names with texts",
        "timeout" | "initial" | "max" => "a time such as 250ms or 10s",
        _ => return None,
    })
}

/// The name of a setting: levels with dots between them, elements of a list by their number, as `destinations[0]`.
fn key_of(path: &[String]) -> String {
    path.iter().fold(String::new(), |key, level| match level.parse::<usize>() {
        Ok(index) => format!("{key}[{index}]"),
        Err(_) if key.is_empty() => level.clone(),
        Err(_) => format!("{key}.{level}"),
    })
}

/// The list that a setting stands in, and the way to it from there; the library does not look into lists.
fn split_at_list(key: &str) -> (&str, Option<String>) {
    match key.split_once('[') {
        Some((list, rest)) => (list, Some(format!("/{}", rest.replace(']', "").replace('.', "/")))),
        None => (key, None),
    }
}

/// Whether a setting that is wrong may hold a secret, perhaps because a level is missing.
fn may_be_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let is_level = matches!(last, "auth" | "relay" | "agnost") || last.starts_with("destinations");
    key.starts_with("auth.api_keys") || matches!(last, "org_id" | "endpoint") || is_level
}

/// The value of a setting. The library takes a dot for the end of a level, and names of labels may have dots.
fn value_of(sources: &Figment, key: &str) -> Option<Value> {
    match key.strip_prefix("ingest.default_labels.") {
        Some(label) => sources.find_value("ingest.default_labels").ok()?.as_dict()?.get(label).cloned(),
        None => sources.find_value(key).ok(),
    }
}

/// A value as it was written, or nearly.
fn found(sources: &Figment, key: &str) -> String {
    let (key, rest) = split_at_list(key);
    let value = value_of(sources, key).and_then(|value| serde_json::to_value(value).ok());
    let value = value.and_then(|value| rest.map_or(Some(value.clone()), |rest| value.pointer(&rest).cloned()));
    value.map_or("nothing".to_owned(), |value| value.to_string())
}

/// Where the value of a setting came from, as the library knows it.
pub fn origin<'s>(sources: &'s Figment, key: &str) -> Option<&'s Metadata> {
    sources.get_metadata(value_of(sources, split_at_list(key).0)?.tag())
}

/// Where a value came from.
pub fn place(metadata: &Metadata, key: &str) -> String {
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        Some(Source::Code(_)) if metadata.name.contains("Flags") => "a flag".to_owned(),
        Some(Source::Code(_)) => "default".to_owned(),
        _ if metadata.name.contains("environment") => {
            format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
        }
        _ => metadata.name.to_string(),
    }
}

/// Everything that is impossible, as sentences.
pub fn check(loaded: &Loaded) -> Vec<String> {
    let config = &loaded.config;
    let mut wrong = Vec::new();
    let mut require = |is_right: bool, key: &str, value: &dyn fmt::Display, expected: &str| {
        if !is_right {
            wrong.push(format!("{key}: expected {expected}, found {value} (in {})", loaded.source_of(key)));
        }
    };
    require((1..=256).contains(&config.shards), "shards", &config.shards, "a number from 1 to 256");
    let queue = &config.queue;
    require((1..=1_000_000).contains(&queue.events), "queue.events", &queue.events, "a number from 1 to 1000000");
    let bytes = queue.bytes.as_u64();
    require((64 << 10..4 << 30).contains(&bytes), "queue.bytes", &queue.bytes, "from 64KiB to less than 4GiB");
    let storage = &config.storage;
    let memory = storage.memory_bytes;
    require(memory.as_u64() >= 8 << 20, "storage.memory_bytes", &memory, "at least 8MiB");
    let limits = &config.limits;
    let (event, body, inflight) = (limits.event_bytes, limits.body_bytes, limits.inflight_bytes);
    require(event.as_u64() >= 1 << 10, "limits.event_bytes", &event, "at least 1KiB");
    let body_from = loaded.source_of("limits.body_bytes");
    let at_most = format!("at most limits.body_bytes, {body} (in {body_from})");
    require(event <= body, "limits.event_bytes", &event, &at_most);
    require(body.as_u64() <= 1 << 30, "limits.body_bytes", &body, "at most 1GiB");
    require(body <= inflight, "limits.body_bytes", &body, &format!("at most limits.inflight_bytes, {inflight}"));
    require(limits.batch_events > 0, "limits.batch_events", &limits.batch_events, "at least 1");
    require(limits.connections > 0, "limits.connections", &limits.connections, "at least 1");
    require(limits.otlp_records > 0, "limits.otlp_records", &limits.otlp_records, "at least 1");
    let times = [
        ("limits.header_timeout", limits.header_timeout),
        ("limits.body_timeout", limits.body_timeout),
        ("limits.idle_timeout", limits.idle_timeout),
    ];
    for (key, time) in times {
        require(!time.is_zero(), key, &humantime::format_duration(time), "more than 0s");
    }
    let grace = config.shutdown.grace;
    require(grace <= GRACE_MAX, "shutdown.grace", &humantime::format_duration(grace), "at most 1day");
    let level = &config.log.level;
    require(levels(level).is_some(), "log.level", level, "error, warn, info, debug or trace");
    for (key, time) in [
        ("log.checkpoint_interval", config.log.checkpoint_interval),
        ("log.announce_interval", config.log.announce_interval),
    ] {
        require(!time.is_zero(), key, &humantime::format_duration(time), "more than 0s");
    }
    let is_origin = config.log.origin.as_ref().is_none_or(|origin| LogOrigin::is_origin(origin));
    let origin = config.log.origin.as_deref().unwrap_or_default();
    require(is_origin, "log.origin", &format!("{origin:?}"), "a name without white space and +");
    let is_closed = config.auth.has_keys() || config.tls.client_ca_file.is_some() || config.auth.allow_anonymous;
    let otlp = config.ingest.otlp.listen.as_ref();
    let taking = config.listen.0.iter().map(|address| ("listen", address));
    for (key, address) in taking.chain(otlp.map(|address| ("ingest.otlp.listen", address))) {
        let wanted = "a loopback address, or auth.api_keys, or tls.client_ca_file, or auth.allow_anonymous: true";
        require(address.is_local() || is_closed, key, address, wanted);
    }
    require(!config.listen.0.is_empty(), "listen", &"nothing", "at least one address");
    let admin = Address::Tcp(config.admin.listen);
    for (index, address) in config.listen.0.iter().enumerate() {
        require(admin.is_free_beside(address), "admin.listen", &admin, "another address than listen");
        let is_new = config.listen.0[..index].iter().all(|other| address.is_free_beside(other));
        require(is_new, "listen", address, "each address once");
    }
    let is_taken = config.ingest.otlp.enabled || otlp.is_none();
    require(is_taken, "ingest.otlp.enabled", &false, "true, or no ingest.otlp.listen");
    if let Some(otlp) = otlp {
        let is_free = config.listen.0.iter().chain([&admin]).all(|other| otlp.is_free_beside(other));
        require(is_free, "ingest.otlp.listen", otlp, "another address than listen and admin.listen");
    }
    let IngestConfig { agnost, otlp, .. } = &config.ingest;
    for (key, agent_id) in [("ingest.agnost.agent_id", &agnost.agent_id), ("ingest.otlp.agent_id", &otlp.agent_id)] {
        let wanted = "1 to 256 bytes without control characters";
        require(is_agent_id(agent_id), key, &format!("{agent_id:?}"), wanted);
    }
    let labels = &config.ingest.default_labels;
    let (key, wanted) = ("ingest.default_labels", format!("at most {DEFAULT_LABELS_MAX} labels"));
    require(labels.len() <= DEFAULT_LABELS_MAX, key, &labels.len(), &wanted);
    let (len, most) = (DefaultLabels::new(labels).len() as u64, DEFAULT_LABELS_BYTES.min(event.as_u64() / 2));
    let wanted = format!("at most {most} bytes as JSON, and half of limits.event_bytes");
    require(len <= most, key, &format!("{len} bytes"), &wanted);
    for mistake in config.relay.check() {
        wrong.push(format!("{mistake} (in {})", loaded.source_of(&mistake.key)));
    }
    if let Err(error) = Keys::load(&config.auth) {
        wrong.push(format!("{error} (in {})", loaded.source_of(error.key())));
    }
    if let Err(error) = Tls::load(&config.tls) {
        wrong.push(format!("{error} (in {})", loaded.source_of(error.key)));
    }
    wrong
}
