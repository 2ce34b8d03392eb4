//! The rows of `ingest.otlp.mapping`: those of the user, which come before the built-in ones.

use serde::{Deserialize, Serialize};

use super::compiled::{CompiledRow, Condition, From, Gift, Guard, Mapping};
use super::row::{Records, Source, Target, Test};
use crate::text::glob::Glob;
use crate::text::settings::Checks;

/// A row of `ingest.otlp.mapping`. `docs/otlp.md`, section "Your own rows", describes it.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct MappingRow {
    /// The field that the row fills.
    pub field: Target,
    /// An attribute of the record, or of the span event `span_event`. May contain `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribute: Option<String>,
    /// An attribute of the resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_attribute: Option<String>,
    /// The name of a span event: its attribute `attribute`, or whether there is such an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_event: Option<String>,
    /// A pattern for the name of the span, or the event name of the log record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A pattern for the name of the instrumentation scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// A member of the body of the log record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// The row applies if the value is one of these. May contain `*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub is: Vec<String>,
    /// What the field gets in place of the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The records that the row applies to: both if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<RowSignal>,
}

/// `ingest.otlp.mapping[].signal`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowSignal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
}

impl MappingRow {
    /// The records that the row applies to.
    pub fn records(&self) -> Records {
        match self.signal {
            None => Records::All,
            Some(RowSignal::Traces) => Records::Spans,
            Some(RowSignal::Logs) => Records::Logs,
        }
    }

    /// The source; a whole name or scope is a condition and a source at once.
    fn source(&self, mapping: &mut Mapping) -> From {
        match (&self.span_event, &self.attribute, &self.resource_attribute, &self.body) {
            (Some(event), Some(attribute), ..) => {
                From::EventAttribute(event.as_str().into(), attribute.as_str().into())
            }
            (Some(event), ..) => From::Event(event.as_str().into()),
            (_, Some(attribute), ..) => mapping.attribute(attribute),
            (.., Some(attribute), _) => From::Resource(mapping.key(attribute)),
            (.., Some(member)) => From::BodyMember(member.as_str().into()),
            _ if self.name.is_some() => From::Plain(Source::Name),
            _ => From::Plain(Source::Scope),
        }
    }

    /// The row, prepared for the lookup.
    pub fn compile(&self, mapping: &mut Mapping) -> CompiledRow {
        let has_own_source =
            [&self.attribute, &self.resource_attribute, &self.span_event, &self.body].into_iter().any(Option::is_some);
        let pattern = self.name.as_ref().or(self.scope.as_ref());
        let patterns: Vec<Glob> = match pattern {
            Some(pattern) if !has_own_source => vec![Glob::new(pattern)],
            _ => self.is.iter().map(|text| Glob::new(text)).collect(),
        };
        let is_wildcard = !has_own_source && pattern.is_some_and(|pattern| pattern.contains('*'));
        CompiledRow {
            from: self.source(mapping),
            condition: match patterns.is_empty() {
                true => Condition::Plain(Test::Present),
                false => Condition::OneOf(patterns),
            },
            guard: match (&self.name, &self.scope) {
                (Some(name), _) if has_own_source => Guard::Name(Glob::new(name)),
                (_, Some(scope)) if has_own_source || self.name.is_some() => Guard::Scope(Glob::new(scope)),
                _ => Guard::Always,
            },
            gift: match &self.value {
                Some(value) => Gift::Constant(value.as_str().into()),
                None if is_wildcard => Gift::Wildcard,
                None => Gift::Value,
            },
        }
    }

    /// Checks the row with this index.
    pub fn check(&self, index: usize, checks: &mut Checks) {
        const SOURCES: &str = "one of attribute, resource_attribute, span_event, name, scope and body";
        let key = format!("ingest.otlp.mapping.{index}");
        let texts = [&self.attribute, &self.resource_attribute, &self.span_event, &self.name, &self.scope, &self.body];
        let sources = [
            self.attribute.is_some() || self.span_event.is_some(),
            self.resource_attribute.is_some(),
            self.body.is_some(),
        ];
        let count = sources.into_iter().filter(|is_set| *is_set).count();
        let is_any_set = texts.iter().any(|text| text.is_some());
        checks.require(is_any_set, &key, SOURCES, "none");
        checks.require(count <= 1, &key, "only one of attribute, resource_attribute and body", format_args!("{count}"));
        let is_empty = texts.into_iter().flatten().any(String::is_empty);
        checks.require(!is_empty, &key, "names that are not empty", "an empty name");
        let is_log_only = self.body.is_some() && self.signal == Some(RowSignal::Traces);
        checks.require(!is_log_only, &key, "signal: logs for a member of the body", "traces");
        if matches!(self.field, Target::ActionType | Target::ActionStatus) {
            let listed = match self.field {
                Target::ActionType => "value: TOOL_CALL, TOOL_RESULT, LLM_CALL, LLM_RESPONSE, AGENT_TURN or CUSTOM",
                _ => "value: success, error or timeout",
            };
            let found = self.value.as_deref().unwrap_or("none");
            checks.require(is_listed(self.field, found), &key, listed, found);
        }
    }
}

/// Whether a text is one of the values of `action_type` or `action_status`.
fn is_listed(field: Target, text: &str) -> bool {
    use cairn_proof::chain::fields::{ACTION_STATUSES, ACTION_TYPES};
    match field {
        Target::ActionType => ACTION_TYPES.contains(&text),
        _ => ACTION_STATUSES.contains(&text),
    }
}
