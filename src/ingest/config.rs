//! The settings of the way in.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::http::Address;
use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};
use crate::text::units;
use cairn_proof::chain::{DEFAULT_LABELS_MAX, DefaultLabels, is_agent_id};

/// The most that default labels add to each event, in bytes.
const DEFAULT_LABELS_BYTES: u64 = 1024;
/// What an agent id has to be.
const AGENT_ID: &str = "1 to 256 bytes without control characters";

/// `limits.*`
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// The longest event, in canonical bytes.
    #[serde(with = "units::size")]
    pub event_bytes: ByteSize,
    /// The longest body, as sent and after inflating.
    #[serde(with = "units::size")]
    pub body_bytes: ByteSize,
    /// The most events of one batch.
    pub batch_events: usize,
    /// The most spans or log records of one request.
    pub otlp_records: usize,
    /// The most memory that bodies, inflated bodies and answers of all connections take together.
    #[serde(with = "units::size")]
    pub inflight_bytes: ByteSize,
    /// How many events each client may bring in a second, in the long run; as many as it likes if there is none.
    pub events_per_second: Option<NonZeroU32>,
    /// How many connections there may be at once.
    pub connections: usize,
    /// How long the head of a request may take.
    #[serde(with = "units::time")]
    pub header_timeout: Duration,
    /// How long a body may take, and how long a peer may refuse to take an answer.
    #[serde(with = "units::time")]
    pub body_timeout: Duration,
    /// How long a connection may stay open between requests.
    #[serde(with = "units::time")]
    pub idle_timeout: Duration,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            event_bytes: ByteSize::mib(1),
            body_bytes: ByteSize::mib(20),
            batch_events: 10_000,
            otlp_records: 200_000,
            inflight_bytes: ByteSize::mib(64),
            events_per_second: None,
            connections: 2_000,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

impl LimitsConfig {
    /// What each setting has to be.
    pub const EXPECTED: Expectations = &[
        ("limits", Expected::Section),
        ("limits.event_bytes", Expected::Size),
        ("limits.body_bytes", Expected::Size),
        ("limits.batch_events", Expected::Number(1..=u64::MAX)),
        ("limits.otlp_records", Expected::Number(1..=u64::MAX)),
        ("limits.inflight_bytes", Expected::Size),
        ("limits.events_per_second", Expected::Text("a number from 1 to 4294967295, or null")),
        ("limits.connections", Expected::Number(1..=u64::MAX)),
        ("limits.header_timeout", Expected::Duration),
        ("limits.body_timeout", Expected::Duration),
        ("limits.idle_timeout", Expected::Duration),
    ];

    /// The settings that cannot be used.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let (event, body, inflight) = (self.event_bytes, self.body_bytes, self.inflight_bytes);
        checks.require(event.as_u64() >= 1 << 10, "limits.event_bytes", "at least 1KiB", event);
        let at_most_body = format!("at most limits.body_bytes, {body}");
        checks.require(event <= body, "limits.event_bytes", at_most_body, event);
        checks.require(body.as_u64() <= 1 << 30, "limits.body_bytes", "at most 1GiB", body);
        let at_most_inflight = format!("at most limits.inflight_bytes, {inflight}");
        checks.require(body <= inflight, "limits.body_bytes", at_most_inflight, body);
        for (key, number) in [
            ("limits.batch_events", self.batch_events),
            ("limits.connections", self.connections),
            ("limits.otlp_records", self.otlp_records),
        ] {
            checks.number(LimitsConfig::EXPECTED, key, number as u64);
        }
        checks.positive("limits.header_timeout", self.header_timeout);
        checks.positive("limits.body_timeout", self.body_timeout);
        checks.positive("limits.idle_timeout", self.idle_timeout);
        checks.finish()
    }
}

/// `ingest.*`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// Labels that every event gets unless it has its own.
    pub default_labels: BTreeMap<String, String>,
    /// The Agnost API.
    pub agnost: AgnostConfig,
    /// OTLP/HTTP.
    pub otlp: OtlpConfig,
}

impl IngestConfig {
    /// What each setting has to be.
    pub const EXPECTED: Expectations = &[
        ("ingest", Expected::Section),
        ("ingest.default_labels", Expected::Text("names with texts")),
        ("ingest.default_labels.*", Expected::Text("a text, in quotes if it looks like something else")),
        ("ingest.agnost", Expected::Section),
        ("ingest.agnost.enabled", Expected::Bool),
        ("ingest.agnost.agent_id", Expected::Text("a text")),
        ("ingest.otlp", Expected::Section),
        ("ingest.otlp.enabled", Expected::Bool),
        ("ingest.otlp.listen", Address::EXPECTED),
        ("ingest.otlp.agent_id", Expected::Text("a text")),
        ("ingest.otlp.select", Expected::Text("all or agent")),
    ];

    /// The settings that cannot be used, with the limits that events have.
    pub fn check(&self, limits: &LimitsConfig) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let is_answered = self.otlp.enabled || self.otlp.listen.is_none();
        checks.require(is_answered, "ingest.otlp.enabled", "true, or no ingest.otlp.listen", false);
        for (key, agent_id) in
            [("ingest.agnost.agent_id", &self.agnost.agent_id), ("ingest.otlp.agent_id", &self.otlp.agent_id)]
        {
            checks.require(is_agent_id(agent_id), key, AGENT_ID, format_args!("{agent_id:?}"));
        }
        let (key, labels) = ("ingest.default_labels", &self.default_labels);
        let at_most = format!("at most {DEFAULT_LABELS_MAX} labels");
        checks.require(labels.len() <= DEFAULT_LABELS_MAX, key, at_most, labels.len());
        let len = DefaultLabels::new(labels).len() as u64;
        let most = DEFAULT_LABELS_BYTES.min(limits.event_bytes.as_u64() / 2);
        let at_most = format!("at most {most} bytes as JSON, and half of limits.event_bytes");
        checks.require(len <= most, key, at_most, format_args!("{len} bytes"));
        checks.finish()
    }
}

/// `ingest.agnost.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AgnostConfig {
    /// Whether its calls are answered.
    pub enabled: bool,
    /// Whose events they are, if the request does not say.
    pub agent_id: String,
}

impl Default for AgnostConfig {
    fn default() -> AgnostConfig {
        AgnostConfig { enabled: true, agent_id: "agnost".to_owned() }
    }
}

/// `ingest.otlp.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Whether its calls are answered.
    pub enabled: bool,
    /// A second address where they are, usually with the port 4318, which exporters call if nobody tells them another.
    pub listen: Option<Address>,
    /// Whose events they are, if neither the span nor its resource says.
    pub agent_id: String,
    /// Which spans become events.
    pub select: Select,
}

/// `ingest.otlp.select`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// Every span.
    All,
    /// Those that an agent's instrumentation wrote.
    Agent,
}

impl Default for OtlpConfig {
    fn default() -> OtlpConfig {
        OtlpConfig { enabled: true, listen: None, agent_id: "unknown-agent".to_owned(), select: Select::All }
    }
}
