//! The settings of the way in.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::http::Address;
use crate::units;

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
