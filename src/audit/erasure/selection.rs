//! Which events a request means: an event, a session, an agent, labels, or several of these together.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::http::ApiError;
use cairn_proof::chain::time;

/// The most labels of a selection. Each is compared with the labels of each event.
const LABELS_MAX: usize = 16;

/// Conditions that an event must all meet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// The event with this id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// The events of this session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The events of this agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The events with these labels, compared as text.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "texts")]
    pub labels: BTreeMap<String, String>,
    /// The events with these sequences of these agents, as ranges that include both ends: what another erasure erased.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub agents: BTreeMap<String, Vec<(u64, u64)>>,
    /// Those received at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Those received before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// A time in ms since 1970, written as RFC 3339 and rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub u64);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&String::from_utf8_lossy(&time::format_ms(self.0)))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = || serde::de::Error::custom("expected an RFC 3339 time");
        time::parse_ms_ceil(&text).map(Time).ok_or_else(expected)
    }
}

/// Labels are strings, numbers or booleans.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let labels = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
    let text = |(key, value): (String, serde_json::Value)| match value {
        serde_json::Value::String(text) => Ok((key, text)),
        serde_json::Value::Number(_) | serde_json::Value::Bool(_) => Ok((key, value.to_string())),
        _ => Err(serde::de::Error::custom(format!("labels.{key}: expected a string, number or boolean"))),
    };
    labels.into_iter().map(text).collect()
}

impl Selection {
    /// The names of the conditions, without their values, which may be what is to be erased.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("id", self.id.is_some()),
            ("session_id", self.session_id.is_some()),
            ("agent_id", self.agent_id.is_some()),
            ("labels", !self.labels.is_empty()),
            ("agents", !self.agents.is_empty()),
            ("since", self.since.is_some()),
            ("until", self.until.is_some()),
        ];
        all.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
    }

    /// Checks that it names events, and not only a time.
    ///
    /// # Errors
    /// 400 if it does not.
    pub fn check(&self) -> Result<(), ApiError> {
        if self.labels.len() > LABELS_MAX {
            let found = self.labels.len();
            return Err(ApiError::bad_request(format!("labels: expected at most {LABELS_MAX}, found {found}")));
        }
        if self.names().iter().all(|name| ["since", "until"].contains(name)) {
            return Err(ApiError::bad_request("expected at least one of id, session_id, agent_id, labels and agents"));
        }
        if !self.agents.is_empty() && self.names().iter().any(|name| !["agents", "since", "until"].contains(name)) {
            return Err(ApiError::bad_request("agents: expected no other condition than since and until beside it"));
        }
        Ok(())
    }
}
