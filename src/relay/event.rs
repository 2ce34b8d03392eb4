//! A committed event as destinations read it, and the filter of a destination.

use std::collections::HashSet;

use super::config::FilterConfig;
use crate::ledger::format::record::RecordRef;
use cairn_proof::chain::{AgentKey, Field, scan};

/// A committed event with its fields, found in one pass over the canonical bytes.
pub struct RelayEvent<'a> {
    /// The stored record.
    pub record: RecordRef<'a>,
    values: [Option<&'a [u8]>; Field::ALL.len()],
}

impl<'a> RelayEvent<'a> {
    /// Finds the fields.
    pub fn new(record: RecordRef<'a>) -> RelayEvent<'a> {
        let mut values = [None; Field::ALL.len()];
        for (name, value) in scan::members(record.canonical()) {
            if let Some(field) = Field::from_name(name) {
                values[field as usize] = Some(value);
            }
        }
        RelayEvent { record, values }
    }

    /// The canonical value of a field.
    pub fn value(&self, field: Field) -> Option<&'a [u8]> {
        self.values[field as usize]
    }

    /// The text of a field that is a string.
    pub fn text(&self, field: Field) -> Option<std::borrow::Cow<'a, str>> {
        self.value(field).and_then(scan::text)
    }

    /// Identifies the session of the event within the ledger: the canonical JSON of `[agent_id, session_id]`, or of
    /// `[agent_id]`.
    pub fn session_name(&self) -> Vec<u8> {
        let mut name = vec![b'['];
        name.extend_from_slice(self.value(Field::AgentId).unwrap_or_default());
        if let Some(session) = self.value(Field::SessionId) {
            name.push(b',');
            name.extend_from_slice(session);
        }
        name.push(b']');
        name
    }

    /// The canonical value of a label.
    pub fn label(&self, name: &str) -> Option<&'a [u8]> {
        self.value(Field::Labels).and_then(|labels| member(labels, name))
    }

    /// The canonical value of a member of the metadata.
    pub fn metadata(&self, name: &str) -> Option<&'a [u8]> {
        self.value(Field::Metadata).and_then(|metadata| member(metadata, name))
    }
}

/// The value of a member. Its name in the object may have escapes.
fn member<'a>(object: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let is_match = |key: &[u8]| {
        key == name.as_bytes()
            || key.contains(&b'\\')
                && std::str::from_utf8(key).ok().and_then(scan::unescape).is_some_and(|key| key == name)
    };
    scan::members(object).find_map(|(key, value)| is_match(key).then_some(value))
}

/// The `capture_method` of the server's own events, which no client can set.
const RECORDED: &[u8] = br#""recorder""#;

/// The filter of a destination.
pub struct EventFilter {
    agents: HashSet<AgentKey>,
    action_types: HashSet<String>,
    labels: Vec<(String, String)>,
}

impl EventFilter {
    /// The configured filter.
    pub fn new(config: &FilterConfig) -> EventFilter {
        EventFilter {
            agents: config.agent_ids.iter().map(|id| AgentKey::of(id)).collect(),
            action_types: config.action_types.iter().cloned().collect(),
            labels: config.labels.iter().map(|(name, value)| (name.clone(), value.text())).collect(),
        }
    }

    /// Whether the event is sent to the destination.
    pub fn passes(&self, event: &RelayEvent<'_>) -> bool {
        let has_type = || event.text(Field::ActionType).is_some_and(|found| self.action_types.contains(&*found));
        let has_label = |(name, text): &(String, String)| {
            event.label(name).and_then(scan::text_or_literal).is_some_and(|found| found == *text)
        };
        let has_agent = match self.agents.is_empty() {
            // What the server records of itself is not the work of an agent: it is relayed only on request.
            true => event.value(Field::CaptureMethod) != Some(RECORDED),
            false => self.agents.contains(&event.record.agent()),
        };
        has_agent && (self.action_types.is_empty() || has_type()) && self.labels.iter().all(has_label)
    }
}
