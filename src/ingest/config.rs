//! The settings `limits.*` and `ingest.*`, their defaults and their checks. `docs/configuration.md` describes them.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::otlp::MappingRow;
use crate::http::Address;
use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};
use crate::text::units;
use cairn_proof::chain::{DEFAULT_LABELS_MAX, DefaultLabels, is_agent_id};

/// The maximum length that default labels may add to each event, in bytes.
const DEFAULT_LABELS_BYTES: u64 = 1024;
/// The ports that are registered for OTLP over gRPC and over HTTP.
const STANDARD_PORTS: [u16; 2] = [4317, 4318];
/// The requirement for an agent id, for messages.
const AGENT_ID: &str = "1 to 256 bytes without control characters";

/// `limits.*`
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// The maximum length of an event, in canonical bytes.
    #[serde(with = "units::size")]
    pub event_bytes: ByteSize,
    /// The maximum length of a body, both as sent and after decompression.
    #[serde(with = "units::size")]
    pub body_bytes: ByteSize,
    /// The maximum number of events in a batch.
    pub batch_events: usize,
    /// The maximum number of spans or log records in an OTLP request.
    pub otlp_records: usize,
    /// The maximum memory of the whole process.
    #[serde(with = "units::size")]
    pub memory: ByteSize,
    /// The maximum memory of the requests of all connections together that bring events: their bodies, decompressed, and what
    /// is made of them.
    #[serde(with = "units::size")]
    pub inflight_bytes: ByteSize,
    /// The maximum memory of the responses of all connections together.
    #[serde(with = "units::size")]
    pub response_bytes: ByteSize,
    /// The maximum sustained rate of each client, in events per second; unlimited if absent.
    pub events_per_second: Option<NonZeroU32>,
    /// The maximum number of open connections.
    pub connections: usize,
    /// The maximum number of requests over HTTP/2 at once, of all connections.
    pub requests: usize,
    /// The maximum time to receive the head of a request.
    #[serde(with = "units::time")]
    pub header_timeout: Duration,
    /// The maximum time to receive a body, and the maximum time that a peer may stall while a response is sent.
    #[serde(with = "units::time")]
    pub body_timeout: Duration,
    /// The maximum time of a read, including that until it starts.
    #[serde(with = "units::time")]
    pub read_timeout: Duration,
    /// The maximum time that a connection stays open between requests.
    #[serde(with = "units::time")]
    pub idle_timeout: Duration,
    /// The time after which a connection is closed in order; never if it is 0.
    #[serde(with = "units::time")]
    pub connection_age: Duration,
    /// The interval at which a peer over HTTP/2 is asked for a sign of life; never if it is 0.
    #[serde(with = "units::time")]
    pub keepalive_interval: Duration,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            event_bytes: ByteSize::mib(1),
            body_bytes: ByteSize::mib(20),
            batch_events: 10_000,
            otlp_records: 200_000,
            memory: ByteSize::mib(192),
            inflight_bytes: ByteSize::mib(45),
            response_bytes: ByteSize::mib(11),
            events_per_second: None,
            connections: 1_000,
            requests: 256,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            connection_age: Duration::ZERO,
            keepalive_interval: Duration::ZERO,
        }
    }
}

impl LimitsConfig {
    /// The valid values of each setting.
    pub const EXPECTED: Expectations = &[
        ("limits", Expected::Section),
        ("limits.event_bytes", Expected::Size),
        ("limits.body_bytes", Expected::Size),
        ("limits.batch_events", Expected::Number(1..=u64::MAX)),
        ("limits.otlp_records", Expected::Number(1..=u64::MAX)),
        ("limits.memory", Expected::Size),
        ("limits.inflight_bytes", Expected::Size),
        ("limits.response_bytes", Expected::Size),
        ("limits.events_per_second", Expected::Text("a number from 1 to 4294967295, or null")),
        ("limits.connections", Expected::Number(1..=u64::MAX)),
        ("limits.requests", Expected::Number(1..=100_000)),
        ("limits.header_timeout", Expected::Duration),
        ("limits.body_timeout", Expected::Duration),
        ("limits.read_timeout", Expected::Duration),
        ("limits.idle_timeout", Expected::Duration),
        ("limits.connection_age", Expected::Duration),
        ("limits.keepalive_interval", Expected::Duration),
    ];

    /// Returns the settings with invalid values.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let (event, body, inflight) = (self.event_bytes, self.body_bytes, self.inflight_bytes);
        checks.require(event.as_u64() >= 1 << 10, "limits.event_bytes", "at least 1KiB", event);
        checks.at_most("limits.event_bytes", event, "limits.body_bytes", body);
        checks.require(body.as_u64() <= 1 << 30, "limits.body_bytes", "at most 1GiB", body);
        checks.at_most("limits.body_bytes", body, "limits.inflight_bytes", inflight);
        for (key, number) in [
            ("limits.batch_events", self.batch_events),
            ("limits.connections", self.connections),
            ("limits.requests", self.requests),
            ("limits.otlp_records", self.otlp_records),
        ] {
            checks.number(LimitsConfig::EXPECTED, key, number as u64);
        }
        checks.positive("limits.header_timeout", self.header_timeout);
        checks.positive("limits.body_timeout", self.body_timeout);
        checks.positive("limits.read_timeout", self.read_timeout);
        checks.positive("limits.idle_timeout", self.idle_timeout);
        checks.finish()
    }
}

/// `ingest.*`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct IngestConfig {
    /// Labels that every event gets unless it has a label of the same name.
    pub default_labels: BTreeMap<String, String>,
    /// The Agnost API.
    pub agnost: AgnostConfig,
    /// OTLP/HTTP and OTLP/gRPC.
    pub otlp: OtlpConfig,
}

impl IngestConfig {
    /// The valid values of each setting.
    pub const EXPECTED: Expectations = &[
        ("ingest", Expected::Section),
        ("ingest.default_labels", Expected::Text("a mapping of names to strings")),
        ("ingest.default_labels.*", Expected::Text("a string, in quotes if it looks like another type")),
        ("ingest.agnost", Expected::Section),
        ("ingest.agnost.enabled", Expected::Bool),
        ("ingest.agnost.agent_id", Expected::String),
        ("ingest.otlp", Expected::Section),
        ("ingest.otlp.enabled", Expected::Bool),
        ("ingest.otlp.listen", Address::EXPECTED),
        ("ingest.otlp.standard_ports", Expected::Bool),
        ("ingest.otlp.agent_id", Expected::String),
        ("ingest.otlp.select", Expected::Choice(&["all", "agent"])),
        ("ingest.otlp.metrics", Expected::Choice(&["discard", "refuse"])),
        ("ingest.otlp.mapping", Expected::Text("a list of rows, see docs/otlp.md")),
        ("ingest.otlp.mapping.*", Expected::Text("a row with the keys of docs/otlp.md")),
    ];

    /// Returns the settings with invalid values. `limits` bounds the default labels.
    pub fn check(&self, limits: &LimitsConfig) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        let is_served = self.otlp.enabled || self.otlp.listen.is_none();
        checks.require(is_served, "ingest.otlp.enabled", "true, or no ingest.otlp.listen", false);
        let is_served = self.otlp.enabled || !self.otlp.standard_ports;
        checks.require(is_served, "ingest.otlp.enabled", "true, or no ingest.otlp.standard_ports", false);
        for (key, agent_id) in
            [("ingest.agnost.agent_id", &self.agnost.agent_id), ("ingest.otlp.agent_id", &self.otlp.agent_id)]
        {
            checks.require(is_agent_id(agent_id), key, AGENT_ID, format_args!("{agent_id:?}"));
        }
        for (index, row) in self.otlp.mapping.iter().enumerate() {
            row.check(index, &mut checks);
        }
        let (key, labels) = ("ingest.default_labels", &self.default_labels);
        let at_most = format!("at most {DEFAULT_LABELS_MAX} labels");
        checks.require(labels.len() <= DEFAULT_LABELS_MAX, key, at_most, labels.len());
        let len = DefaultLabels::new(labels).len() as u64;
        let max_len = DEFAULT_LABELS_BYTES.min(limits.event_bytes.as_u64() / 2);
        let at_most = format!("at most {max_len} bytes as JSON, and half of limits.event_bytes");
        checks.require(len <= max_len, key, at_most, format_args!("{len} bytes"));
        checks.finish()
    }
}

/// `ingest.agnost.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AgnostConfig {
    /// Whether the calls are served.
    pub enabled: bool,
    /// The agent of the events of a request without the header `x-cairn-agent-id`.
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
    /// Whether the calls are served.
    pub enabled: bool,
    /// A second address that serves only these calls, usually with port 4318, to which exporters send by default.
    pub listen: Option<Address>,
    /// Whether the ports 4317 and 4318 of the loopback interface serve only these calls: exporters send there by default.
    pub standard_ports: bool,
    /// The agent of events for which neither the span or log record nor its resource names one.
    pub agent_id: String,
    /// Which spans become events.
    pub select: Select,
    /// What becomes of exports of metrics, which are no events.
    pub metrics: MetricsExports,
    /// Rows of the mapping before the built-in ones.
    pub mapping: Vec<MappingRow>,
}

/// `ingest.otlp.select`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Select {
    /// Every span.
    All,
    /// Only spans with an attribute of an agent's instrumentation.
    Agent,
}

/// `ingest.otlp.metrics`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricsExports {
    /// They are acknowledged, counted and dropped.
    Discard,
    /// They are refused with 404.
    Refuse,
}

impl OtlpConfig {
    /// The addresses that serve only these calls, each with its setting.
    pub fn addresses(&self) -> impl Iterator<Item = (&'static str, Address)> + '_ {
        let standard = STANDARD_PORTS.into_iter().filter(|_| self.standard_ports);
        let standard = standard.map(|port| ("ingest.otlp.standard_ports", Address::Localhost(port)));
        self.listen
            .iter()
            .map(|address| ("ingest.otlp.listen", address.clone()))
            .chain(standard)
            .filter(|_| self.enabled)
    }
}

impl Default for OtlpConfig {
    fn default() -> OtlpConfig {
        OtlpConfig {
            enabled: true,
            listen: None,
            standard_ports: false,
            agent_id: "unknown-agent".to_owned(),
            select: Select::All,
            metrics: MetricsExports::Discard,
            mapping: Vec::new(),
        }
    }
}
