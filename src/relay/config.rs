//! The configuration section `relay`, specified in `docs/configuration.md`, section "Relay".

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Certificate, Url};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::text::settings::{Expectations, Expected, InvalidSetting};
use crate::text::units;

/// The configuration section `relay`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// The destinations.
    pub destinations: Vec<DestinationConfig>,
    /// One more destination, which can be set by environment variables alone.
    pub agnost: Option<DestinationConfig>,
}

impl RelayConfig {
    /// Every destination, with its key in the configuration.
    pub fn all(&self) -> impl Iterator<Item = (String, &DestinationConfig)> {
        let listed = self.destinations.iter().enumerate();
        let listed = listed.map(|(index, config)| (format!("relay.destinations[{index}]"), config));
        listed.chain(self.agnost.iter().map(|config| ("relay.agnost".to_owned(), config)))
    }

    /// Every destination, for changes.
    pub fn all_mut(&mut self) -> impl Iterator<Item = &mut DestinationConfig> {
        self.destinations.iter_mut().chain(&mut self.agnost)
    }

    /// The expected value of each setting. Those of `relay.agnost` apply to every destination.
    pub const EXPECTED: Expectations = &[
        ("relay", Expected::Section),
        ("relay.destinations", Expected::Text("a list of destinations")),
        ("relay.agnost", Expected::Section),
        ("relay.agnost.name", Expected::String),
        ("relay.agnost.type", Expected::Choice(&["agnost"])),
        ("relay.agnost.endpoint", Expected::String),
        ("relay.agnost.org_id", Expected::String),
        ("relay.agnost.org_id_file", Expected::Path),
        ("relay.agnost.concurrency", CONCURRENCY),
        ("relay.agnost.timeout", Expected::Duration),
        ("relay.agnost.retry", Expected::Section),
        ("relay.agnost.retry.initial", Expected::Duration),
        ("relay.agnost.retry.max", Expected::Duration),
        ("relay.agnost.from", Expected::Choice(&["start", "now"])),
        ("relay.agnost.filter", Expected::Section),
        ("relay.agnost.filter.agent_ids", Expected::Strings),
        ("relay.agnost.filter.action_types", Expected::Strings),
        ("relay.agnost.filter.labels", Expected::Text("names with string, number or boolean values")),
        ("relay.agnost.content", Expected::Choice(&["full", "metadata-only"])),
        ("relay.agnost.ca_file", Expected::Path),
    ];

    /// The settings of the section that cannot be used. Reads the files that they name.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut names = HashSet::new();
        let mut invalid = Vec::new();
        for (key, config) in self.all() {
            invalid.extend(config.check(&key));
            if !names.insert(&config.name) {
                let expected = "a name that no other destination has";
                invalid.push(InvalidSetting::new(format!("{key}.name"), expected, &config.name));
            }
        }
        invalid
    }
}

/// The settings of one destination.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationConfig {
    /// Its name in metrics, in the process log and in the rows on disk. A changed name makes a new destination.
    pub name: String,
    /// Its protocol.
    #[serde(rename = "type")]
    pub kind: DestinationType,
    /// Its base URL.
    pub endpoint: String,
    /// The organization at the upstream.
    pub org_id: Option<String>,
    /// A file that contains the organization.
    pub org_id_file: Option<PathBuf>,
    /// Most requests in flight.
    pub concurrency: usize,
    /// The time-out of a request.
    #[serde(with = "units::time")]
    pub timeout: Duration,
    /// The back-off after failures.
    pub retry: RetryConfig,
    /// Where a new destination starts reading.
    pub from: Start,
    /// Which events are sent.
    pub filter: FilterConfig,
    /// Which content of an event is sent.
    pub content: ContentConfig,
    /// Certificates (PEM) to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

impl Default for DestinationConfig {
    fn default() -> DestinationConfig {
        DestinationConfig {
            name: "agnost".to_owned(),
            kind: DestinationType::Agnost,
            endpoint: "https://api.agnost.ai".to_owned(),
            org_id: None,
            org_id_file: None,
            concurrency: 8,
            timeout: Duration::from_secs(5),
            retry: RetryConfig::default(),
            from: Start::Start,
            filter: FilterConfig::default(),
            content: ContentConfig::Full,
            ca_file: None,
        }
    }
}

/// The protocol of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DestinationType {
    /// Agnost AI's capture-event API.
    Agnost,
}

/// Where a new destination starts reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the first event of the ledger.
    Start,
    /// At the first event that is committed after its first start.
    Now,
}

/// Which content of an event is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentConfig {
    /// The whole event.
    Full,
    /// All fields but inputs and outputs.
    MetadataOnly,
}

/// `retry.*` of a destination: exponential back-off with full jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// The longest wait after the first failure; it doubles with each further failure in a row.
    #[serde(with = "units::time")]
    pub initial: Duration,
    /// The upper bound of that wait.
    #[serde(with = "units::time")]
    pub max: Duration,
}

impl Default for RetryConfig {
    fn default() -> RetryConfig {
        RetryConfig { initial: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

/// `filter.*` of a destination. An empty filter selects all events.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilterConfig {
    /// Only events of these agents.
    pub agent_ids: Vec<String>,
    /// Only events of these types.
    pub action_types: Vec<String>,
    /// Only events that have all of these labels.
    pub labels: BTreeMap<String, LabelValue>,
}

/// The value of a label in a filter.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum LabelValue {
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(serde_json::Number),
    /// A string.
    Text(String),
}

impl LabelValue {
    /// The value as text, as labels are compared: a string as it is, any other value in canonical form.
    pub fn text(&self) -> String {
        match self {
            LabelValue::Bool(value) => value.to_string(),
            LabelValue::Number(value) => {
                let canonical = cairn_proof::chain::canonicalize(&value.to_string());
                canonical.map_or_else(|_| value.to_string(), |text| String::from_utf8_lossy(&text).into_owned())
            }
            LabelValue::Text(text) => text.clone(),
        }
    }
}

/// The permitted values of `concurrency`.
const CONCURRENCY: Expected = Expected::Number(1..=1024);
/// The expected form of a name.
const NAME: &str = "1 to 64 of a-z, A-Z, 0-9, dot, dash and underscore";
/// The expected form of an endpoint.
const ENDPOINT: &str = "an http or https URL without user, query and fragment, such as https://api.agnost.ai";

impl DestinationConfig {
    fn check(&self, key: &str) -> Vec<InvalidSetting> {
        let mut invalid = Vec::new();
        let mut require = |is_valid: bool, name: &str, expected: &dyn Display, found: &dyn Display| {
            if !is_valid {
                invalid.push(InvalidSetting::new(format!("{key}.{name}"), expected, found));
            }
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = (1..=64).contains(&self.name.len()) && self.name.chars().all(is_plain);
        require(is_name, "name", &NAME, &format!("{:?}", self.name));
        let concurrency = &CONCURRENCY;
        require(concurrency.allows(self.concurrency as u64), "concurrency", concurrency, &self.concurrency);
        let time = |time: Duration| humantime::format_duration(time).to_string();
        require(!self.timeout.is_zero(), "timeout", &"more than 0s", &time(self.timeout));
        let RetryConfig { initial, max } = self.retry;
        require(!initial.is_zero(), "retry.initial", &"more than 0s", &time(initial));
        require(max >= initial, "retry.max", &format!("at least retry.initial, {}", time(initial)), &time(max));
        invalid.extend(self.url(key).err());
        invalid.extend(self.org(key).err());
        invalid.extend(self.certificates(key).err());
        invalid
    }

    /// The base URL, without a slash at the end.
    ///
    /// # Errors
    /// When the URL cannot be used. The error does not contain the URL, because it may have a password.
    pub fn url(&self, key: &str) -> Result<Url, InvalidSetting> {
        let url = Url::parse(self.endpoint.trim_end_matches('/')).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        url.ok_or_else(|| InvalidSetting::new(format!("{key}.endpoint"), ENDPOINT, "a value that is not shown"))
    }

    /// The organization at the upstream, and the key of the setting that it was read from.
    ///
    /// # Errors
    /// When it is missing, set twice, or not a UUID.
    pub fn org(&self, key: &str) -> Result<(Uuid, String), InvalidSetting> {
        let (text, key) = match (&self.org_id, &self.org_id_file) {
            (Some(text), None) => (text.clone(), format!("{key}.org_id")),
            (None, Some(path)) => {
                let key = format!("{key}.org_id_file");
                let read = std::fs::read_to_string(path);
                (read.map_err(|error| cannot_read(&key, "a file with a UUID", path, &error))?, key)
            }
            (None, None) => {
                return Err(InvalidSetting::new(
                    format!("{key}.org_id"),
                    "a UUID, or org_id_file with the path of a file that contains one",
                    "nothing",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(InvalidSetting::new(format!("{key}.org_id"), "either org_id or org_id_file", "both"));
            }
        };
        // Only the hyphenated form: the library also accepts braces and more.
        let org = Some(text.trim()).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
        match org {
            Some(org) => Ok((org, key)),
            None if text.trim().is_empty() => Err(InvalidSetting::new(key, "a UUID with hyphens", "nothing")),
            // The value is not shown: it may be a secret that was set in the wrong place.
            None => Err(InvalidSetting::new(key, "a UUID with hyphens", "a value that is not shown")),
        }
    }

    /// The certificates of `ca_file`.
    ///
    /// # Errors
    /// When the file cannot be read, or contains no certificate.
    pub fn certificates(&self, key: &str) -> Result<Vec<Certificate>, InvalidSetting> {
        const EXPECTED: &str = "a file with certificates (PEM)";
        let Some(path) = &self.ca_file else { return Ok(Vec::new()) };
        let key = format!("{key}.ca_file");
        let pem = std::fs::read(path).map_err(|error| cannot_read(&key, EXPECTED, path, &error))?;
        let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if found.is_empty() {
            return Err(InvalidSetting::new(
                key,
                EXPECTED,
                format!("{}: the file contains no certificate", path.display()),
            ));
        }
        Ok(found)
    }
}

fn cannot_read(key: &str, expected: &str, path: &std::path::Path, error: &io::Error) -> InvalidSetting {
    InvalidSetting::new(key.to_owned(), expected, format!("{}: {error}", path.display()))
}
