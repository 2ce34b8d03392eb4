//! The parts of the mapping that spans and log records share: resource and scope, session, labels, content, ids.

use std::borrow::Cow;

use buffa::DecodeError;
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use super::attributes::{Attributes, KnownKey, SESSION};
use super::value::{Fault, Json, METADATA_MEMBER_LEVEL, any_text, check_attributes, has_replacements, hex_of};
use super::wire::Fields;
use cairn_proof::chain::json::{Parser, ParserScratch};
use cairn_proof::chain::{Field, is_agent_id};

/// The length of a trace id, in bytes.
const TRACE_ID_LEN: usize = 16;
/// The length of a span id, in bytes.
const SPAN_ID_LEN: usize = 8;

/// The resource and the scope that a span or log record shares with others.
pub struct ResourceScope<'a> {
    /// The attributes of the resource.
    pub resource: Attributes<'a>,
    /// The attributes of the resource, as a JSON object.
    pub resource_json: Json,
    /// The scope, as a JSON object.
    pub scope_json: Json,
}

impl<'a> ResourceScope<'a> {
    /// An empty resource and scope. `max_attributes` bounds each list of attributes.
    pub fn new(max_attributes: usize) -> ResourceScope<'a> {
        ResourceScope {
            resource: Attributes::new(max_attributes),
            resource_json: Json::new(max_attributes),
            scope_json: Json::new(max_attributes),
        }
    }

    /// Checks that the bytes are a well-formed `Resource` and `InstrumentationScope`, including all nested values.
    pub fn check(resource: &[u8], scope: &[u8]) -> Result<(), DecodeError> {
        check_attributes(resource, 1, 0)?;
        check_attributes(scope, 3, 0)?;
        Fields::of(scope).try_for_each(|field| match field? {
            field if matches!(field.number(), 1 | 2) => field.bytes().map(drop),
            _ => Ok(()),
        })
    }

    /// Decodes a `Resource`.
    pub fn read_resource(&mut self, resource: &'a [u8], max_attributes: usize) -> Result<(), Fault> {
        self.resource_json = Json::new(max_attributes);
        self.resource = Attributes::of(resource, 1, max_attributes)?;
        self.resource.write_unused(&mut self.resource_json)
    }

    /// Decodes an `InstrumentationScope`.
    pub fn read_scope(&mut self, scope: &[u8], max_attributes: usize) -> Result<(), Fault> {
        self.scope_json = Json::new(max_attributes);
        let (mut name, mut version) = (Cow::Borrowed(""), Cow::Borrowed(""));
        for field in Fields::of(scope) {
            let field = field?;
            match field.number() {
                1 => name = field.text()?,
                2 => version = field.text()?,
                _ => {}
            }
        }
        let json = &mut self.scope_json;
        json.raw(b"{");
        json.attributes(scope, 3, METADATA_MEMBER_LEVEL + 1)?;
        json.text_unless_empty("name", name);
        json.text_unless_empty("version", version);
        json.raw(b"}");
        Ok(())
    }

    /// The `service.name`, if it is a valid agent id and not `unknown_service`, the default of the SDKs.
    pub fn service(&self) -> Option<Cow<'a, str>> {
        const NOT_SET: &str = "unknown_service";
        self.resource
            .text(KnownKey::ServiceName)
            .filter(|name| *name != NOT_SET && !name.starts_with("unknown_service:") && is_agent_id(name))
    }

    /// Whether any of its text was not UTF-8 and was replaced.
    pub fn has_replacements(&self) -> bool {
        self.resource_json.has_replacements || self.scope_json.has_replacements
    }
}

/// Writes `session_id`: from the attributes, else the trace id.
pub fn write_session(json: &mut Json, attributes: &mut Attributes<'_>, trace_id: &[u8]) {
    match attributes.first_text(&SESSION) {
        Some((key, session)) => {
            attributes.mark_used(key);
            json.field_unless_empty(Field::SessionId, session);
        }
        None if trace_id.iter().any(|byte| *byte != 0) => {
            json.field(Field::SessionId);
            json.hex(trace_id);
        }
        None => {}
    }
}

/// Writes `labels`.
pub fn write_labels(json: &mut Json, shared: &ResourceScope<'_>, attributes: &mut Attributes<'_>) -> Result<(), Fault> {
    const RESOURCE_LABELS: [KnownKey; 2] = [KnownKey::DeploymentEnvironment, KnownKey::ServiceName];
    // In the order of their names.
    const LABELS: [KnownKey; 5] = [
        KnownKey::DeploymentEnvironment,
        KnownKey::GenAiOperation,
        KnownKey::GenAiProvider,
        KnownKey::GenAiRequestModel,
        KnownKey::ServiceName,
    ];
    let mut is_first = true;
    for label in LABELS {
        let is_of_resource = RESOURCE_LABELS.contains(&label);
        let value = if is_of_resource { shared.resource.any(label) } else { attributes.any(label) };
        let Some(value) = value.filter(|value| is_scalar(value)) else { continue };
        if is_first {
            json.field(Field::Labels);
            json.raw(b"{");
            is_first = false;
        }
        json.key(label.name());
        json.any(value, 2)?;
        if !is_of_resource {
            attributes.mark_used(label);
        }
    }
    if !is_first {
        json.raw(b"}");
    }
    Ok(())
}

/// Whether an `AnyValue` is a string, a boolean or a number.
fn is_scalar(any: &[u8]) -> bool {
    matches!(Fields::of(any).last(), Some(Ok(field)) if (1..=4).contains(&field.number()))
}

/// Writes the first of the attributes `keys` that is present as `action_input` or `action_output`. A string that
/// contains a JSON object or array is written as that object or array, any other value unchanged.
pub fn write_content(
    json: &mut Json,
    field: Field,
    attributes: &mut Attributes<'_>,
    keys: &[KnownKey],
    scratch: &mut ParserScratch,
) -> Result<(), Fault> {
    let Some((key, any)) = attributes.first(keys) else { return Ok(()) };
    attributes.mark_used(key);
    json.field(field);
    match any_text(any) {
        Some(text) if write_parsed(json, &text, scratch) => json.has_replacements |= has_replacements(&text),
        Some(text) => json.text(text),
        None => json.any(any, 1)?,
    }
    Ok(())
}

/// Writes a text as the JSON object or array that it contains. Returns whether it did: false if the text is anything
/// else, or JSON that an event cannot contain.
fn write_parsed(json: &mut Json, text: &str, scratch: &mut ParserScratch) -> bool {
    if !matches!(text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes().first(), Some(b'{' | b'[')) {
        return false;
    }
    let start = json.bytes.len();
    let mut parser = Parser::new(text, 0, scratch, usize::MAX);
    // The event itself is level 1.
    parser.deepen(1);
    let is_json = parser.value(&mut json.bytes).is_ok() && parser.end().is_ok();
    if !is_json {
        json.bytes.truncate(start);
    }
    is_json
}

/// The UUIDv5 of a name (RFC 9562, section 5.5). The result is that of [`Uuid::new_v5`], computed with the processor's
/// instructions for SHA-1: ids from `Uuid::new_v5` took a fortieth of a span's CPU time.
pub fn uuid_v5(namespace: &Uuid, name: &[u8]) -> Uuid {
    let digest = Sha1::new().chain_update(namespace).chain_update(name).finalize();
    let mut bytes = uuid::Bytes::default();
    bytes.copy_from_slice(&digest[..size_of::<uuid::Bytes>()]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

/// A trace id and a span id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanKey {
    /// The trace id.
    pub trace: [u8; TRACE_ID_LEN],
    /// The span id.
    pub span: [u8; SPAN_ID_LEN],
}

impl SpanKey {
    /// `None` if one of the ids is invalid: it has another length, or is all zero.
    pub fn of(trace: &[u8], span: &[u8]) -> Option<SpanKey> {
        let key = SpanKey { trace: trace.try_into().ok()?, span: span.try_into().ok()? };
        (key.trace != [0; TRACE_ID_LEN] && key.span != [0; SPAN_ID_LEN]).then_some(key)
    }

    /// The trace id followed by the span id, in hex.
    pub fn hex(&self) -> [u8; 2 * (TRACE_ID_LEN + SPAN_ID_LEN)] {
        let mut hex = [0; 2 * (TRACE_ID_LEN + SPAN_ID_LEN)];
        for (digits, byte) in hex.as_chunks_mut().0.iter_mut().zip(self.trace.iter().chain(&self.span)) {
            *digits = hex_of(*byte);
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_v5_is_computed_as_in_rfc_9562() {
        // RFC 9562, appendix A.4.
        let expected = "2ed6657d-e927-568b-95e1-2665a8aea6a2";
        assert_eq!(uuid_v5(&Uuid::NAMESPACE_DNS, b"www.example.com").to_string(), expected);
        for name in [&b""[..], &[7; 39], &[7; 40], &[7; 3000]] {
            assert_eq!(uuid_v5(&Uuid::NAMESPACE_URL, name), Uuid::new_v5(&Uuid::NAMESPACE_URL, name));
        }
    }
}
