//! The configuration section `relay`, specified in `docs/configuration.md`, section "Relay".

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::text::settings::{Expectations, Expected};
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
        ("relay.agnost.type", Expected::Choice(&["agnost", "webhook", "file"])),
        ("relay.agnost.endpoint", Expected::String),
        ("relay.agnost.org_id", Expected::String),
        ("relay.agnost.org_id_file", Expected::Path),
        ("relay.agnost.secret", Expected::String),
        ("relay.agnost.secret_file", Expected::Path),
        ("relay.agnost.headers", Expected::Text("names with texts")),
        ("relay.agnost.path", Expected::Path),
        ("relay.agnost.rotate", Expected::Section),
        ("relay.agnost.rotate.bytes", Expected::Size),
        ("relay.agnost.rotate.files", ROTATED_FILES),
        ("relay.agnost.batch", Expected::Section),
        ("relay.agnost.batch.events", BATCH_EVENTS),
        ("relay.agnost.batch.bytes", Expected::Size),
        ("relay.agnost.batch.wait", Expected::Duration),
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
    /// Its URL: that of the API at Agnost, or where a webhook is.
    pub endpoint: Option<String>,
    /// The organization at the upstream.
    pub org_id: Option<String>,
    /// A file that contains the organization.
    pub org_id_file: Option<PathBuf>,
    /// The key of the signatures of a webhook.
    pub secret: Option<String>,
    /// A file that contains it.
    pub secret_file: Option<PathBuf>,
    /// Headers that a webhook needs.
    pub headers: BTreeMap<String, String>,
    /// The file that events are appended to; `-` is standard output.
    pub path: Option<PathBuf>,
    /// When another file begins.
    pub rotate: RotateConfig,
    /// How many events are sent together.
    pub batch: BatchConfig,
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
            endpoint: None,
            org_id: None,
            org_id_file: None,
            secret: None,
            secret_file: None,
            headers: BTreeMap::new(),
            path: None,
            rotate: RotateConfig::default(),
            batch: BatchConfig::default(),
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
    /// Batches of events as JSON lines over HTTP, signed.
    Webhook,
    /// Events as JSON lines in a file or on standard output.
    File,
}

impl std::fmt::Display for DestinationType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DestinationType::Agnost => "agnost",
            DestinationType::Webhook => "webhook",
            DestinationType::File => "file",
        })
    }
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

/// `batch.*` of a destination: how many events are sent together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BatchConfig {
    /// The most events of a request.
    pub events: usize,
    /// The most bytes of their canonical forms. An event that alone is longer is sent alone.
    #[serde(with = "units::size")]
    pub bytes: ByteSize,
    /// How long to wait for more events.
    #[serde(with = "units::time")]
    pub wait: Duration,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig { events: 512, bytes: ByteSize::mib(1), wait: Duration::from_millis(200) }
    }
}

/// `rotate.*` of a destination of type `file`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RotateConfig {
    /// The length at which another file begins; never if it is 0.
    #[serde(with = "units::size")]
    pub bytes: ByteSize,
    /// The number of full files that are kept.
    pub files: usize,
}

impl Default for RotateConfig {
    fn default() -> RotateConfig {
        RotateConfig { bytes: ByteSize::mib(100), files: 5 }
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
pub const CONCURRENCY: Expected = Expected::Number(1..=1024);
/// The permitted values of `batch.events`.
pub const BATCH_EVENTS: Expected = Expected::Number(1..=10_000);
/// The permitted values of `rotate.files`.
pub const ROTATED_FILES: Expected = Expected::Number(1..=1000);
