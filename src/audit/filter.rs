//! The filter of a list: which events match its parameters.

use super::erasure::selection::Selection;
use crate::http::{ApiError, QueryParams};
use crate::ledger::format::record::RecordRef;
use crate::ledger::format::terms::Term;
use cairn_proof::chain::{AgentKey, Field, scan, time};

/// Conditions that an event must all meet.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only events of this agent.
    pub agent: Option<AgentKey>,
    /// Only events with these texts in these fields.
    fields: Vec<(Field, String)>,
    /// Only events with these labels, compared as text.
    labels: Vec<(String, String)>,
    /// Only events received at this time or later, in ms since 1970.
    pub since_ms: Option<u64>,
    /// Only events received before this time, in ms since 1970.
    pub until_ms: Option<u64>,
    /// Only events with a `timestamp` at this time or later, in ns since 1970.
    timestamp_since: Option<i128>,
    /// Only events with a `timestamp` before this time, in ns since 1970.
    timestamp_until: Option<i128>,
}

/// The most labels of a filter. Each is compared with the labels of each event.
const LABELS_MAX: usize = 16;

const TIME: &str = "an RFC 3339 time such as 2026-02-17T10:30:00Z (a + in it is written %2B)";

/// Takes `since` (inclusive) and `until` (exclusive), which select by time of receipt. In ms since 1970.
///
/// # Errors
/// 400 for a value that is not a time.
pub fn take_received_range(params: &mut QueryParams) -> Result<(Option<u64>, Option<u64>), ApiError> {
    Ok((params.take_as("since", TIME, time::parse_ms_ceil)?, params.take_as("until", TIME, time::parse_ms_ceil)?))
}

impl Filter {
    /// Takes the parameters that select events.
    ///
    /// # Errors
    /// 400 for a value that is not valid.
    pub fn take(params: &mut QueryParams) -> Result<Filter, ApiError> {
        let mut filter = Filter { agent: params.take("agent_id")?.map(|id| AgentKey::of(&id)), ..Filter::default() };
        for field in [Field::SessionId, Field::ActionType, Field::ActionStatus] {
            filter.fields.extend(params.take(field.name())?.map(|text| (field, text)));
        }
        filter.labels = params.take_prefixed("label.");
        if filter.labels.len() > LABELS_MAX {
            let found = filter.labels.len();
            return Err(ApiError::bad_request(format!(
                "label.KEY: expected at most {LABELS_MAX} labels, found {found}"
            )));
        }
        (filter.since_ms, filter.until_ms) = take_received_range(params)?;
        filter.timestamp_since = params.take_as("timestamp_since", TIME, time::parse)?;
        filter.timestamp_until = params.take_as("timestamp_until", TIME, time::parse)?;
        Ok(filter)
    }

    /// The filter of a selection: an agent, a session, labels, and a range of times of receipt.
    pub fn of(selection: &Selection) -> Filter {
        Filter {
            agent: selection.agent_id.as_deref().map(AgentKey::of),
            fields: selection.session_id.iter().map(|id| (Field::SessionId, id.clone())).collect(),
            labels: selection.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            since_ms: selection.since.map(|since| since.0),
            until_ms: selection.until.map(|until| until.0),
            ..Filter::default()
        }
    }

    /// The indexed term that probably has the fewest events; `None` if the filter has no term.
    pub fn rarest_term(&self) -> Option<Term> {
        let session = self.fields.iter().find(|(field, _)| *field == Field::SessionId);
        let label = self.labels.first().map(|(key, value)| Term::label(key, value));
        let field = |(field, text): &(Field, String)| Term::field(*field, text);
        // The last field is the status, if given: a status other than success is rarer than most types.
        session.map(field).or(label).or_else(|| self.fields.last().map(field))
    }

    /// Whether an event matches the filter.
    pub fn matches(&self, record: RecordRef<'_>) -> bool {
        if self.agent.is_some_and(|agent| agent != record.agent()) {
            return false;
        }
        let has_text =
            |value: Option<&[u8]>, text: &str| value.and_then(scan::text_or_literal).is_some_and(|found| found == text);
        if !self.fields.iter().all(|(field, text)| has_text(record.value(*field), text)) {
            return false;
        }
        if !self.labels.is_empty() {
            let labels = record.value(Field::Labels).unwrap_or_default();
            let mut found = 0;
            for (key, value) in scan::members(labels) {
                for (_, text) in self.labels.iter().filter(|(wanted, _)| is_key(key, wanted)) {
                    if !has_text(Some(value), text) {
                        return false;
                    }
                    found += 1;
                }
            }
            if found < self.labels.len() {
                return false;
            }
        }
        if self.timestamp_since.is_none() && self.timestamp_until.is_none() {
            return true;
        }
        let timestamp = record.value(Field::Timestamp).and_then(scan::text).and_then(|text| time::parse(&text));
        timestamp.is_some_and(|timestamp| {
            self.timestamp_since.is_none_or(|since| timestamp >= since)
                && self.timestamp_until.is_none_or(|until| timestamp < until)
        })
    }
}

fn is_key(canonical: &[u8], wanted: &str) -> bool {
    std::str::from_utf8(canonical).ok().and_then(scan::unescape).is_some_and(|key| key == wanted)
}
