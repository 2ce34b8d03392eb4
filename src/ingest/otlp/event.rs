//! What spans and log records have in common on their way to an event.

use std::borrow::Cow;

use buffa::DecodeError;
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use super::attributes::{Attributes, Known, SESSION};
use super::value::{Fault, IN_METADATA, Json, any_text, check_attributes, hex_of, is_mended};
use super::wire::Fields;
use cairn_proof::chain::json::{Canonicalizer, Parser};
use cairn_proof::chain::{Field, is_agent_id};

/// A trace id, in bytes.
const TRACE_ID_LEN: usize = 16;
/// A span id, in bytes.
const SPAN_ID_LEN: usize = 8;

/// What all spans or log records of one resource and one scope share.
pub struct Origin<'a> {
    /// The resource's attributes.
    pub resource: Attributes<'a>,
    /// The same as a JSON object.
    pub resource_json: Json,
    /// The scope as a JSON object.
    pub scope_json: Json,
}

impl<'a> Origin<'a> {
    /// Nobody's.
    pub fn new(most: usize) -> Origin<'a> {
        Origin { resource: Attributes::new(most), resource_json: Json::new(most), scope_json: Json::new(most) }
    }

    /// Checks that these are a `Resource` and an `InstrumentationScope`, down to their last values.
    pub fn check(resource: &[u8], scope: &[u8]) -> Result<(), DecodeError> {
        check_attributes(resource, 1, 0)?;
        check_attributes(scope, 3, 0)?;
        Fields::of(scope).try_for_each(|field| match field? {
            field if matches!(field.number(), 1 | 2) => field.bytes().map(drop),
            _ => Ok(()),
        })
    }

    /// Reads a `Resource`.
    pub fn read_resource(&mut self, resource: &'a [u8], most: usize) -> Result<(), Fault> {
        self.resource_json = Json::new(most);
        self.resource = Attributes::of(resource, 1, most)?;
        self.resource.write_rest(&mut self.resource_json)
    }

    /// Reads an `InstrumentationScope`.
    pub fn read_scope(&mut self, scope: &[u8], most: usize) -> Result<(), Fault> {
        self.scope_json = Json::new(most);
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
        json.attributes(scope, 3, IN_METADATA + 1)?;
        json.text_unless_empty("name", name);
        json.text_unless_empty("version", version);
        json.raw(b"}");
        Ok(())
    }

    /// The service that it is, if it was given a name: SDKs fill in `unknown_service` when it was not.
    pub fn service(&self) -> Option<Cow<'a, str>> {
        const NOT_SET: &str = "unknown_service";
        self.resource
            .text(Known::ServiceName)
            .filter(|name| *name != NOT_SET && !name.starts_with("unknown_service:") && is_agent_id(name))
    }

    /// Whether text of it that was no UTF-8 has been replaced.
    pub fn is_mended(&self) -> bool {
        self.resource_json.is_mended || self.scope_json.is_mended
    }
}

/// Writes the session: that of the attributes, else the trace.
pub fn write_session(json: &mut Json, attributes: &mut Attributes<'_>, trace_id: &[u8]) {
    match attributes.first_text(&SESSION, |_| true) {
        Some((known, session)) => {
            attributes.mark_used(known);
            json.field_unless_empty(Field::SessionId, session);
        }
        None if trace_id.iter().any(|byte| *byte != 0) => {
            json.field(Field::SessionId);
            json.hex(trace_id);
        }
        None => {}
    }
}

/// The labels of an event.
pub fn write_labels(json: &mut Json, origin: &Origin<'_>, attributes: &mut Attributes<'_>) -> Result<(), Fault> {
    // In the order of their names.
    const OF_THE_RESOURCE: [Known; 2] = [Known::DeploymentEnvironment, Known::ServiceName];
    const LABELS: [Known; 5] = [
        Known::DeploymentEnvironment,
        Known::GenAiOperation,
        Known::GenAiProvider,
        Known::GenAiRequestModel,
        Known::ServiceName,
    ];
    let mut is_first = true;
    for label in LABELS {
        let is_of_resource = OF_THE_RESOURCE.contains(&label);
        let value = if is_of_resource { origin.resource.any(label) } else { attributes.any(label) };
        let Some(value) = value.filter(|value| is_scalar(value)) else { continue };
        if is_first {
            json.field(Field::Labels);
            json.raw(b"{");
            is_first = false;
        }
        json.key(label.key());
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

/// Writes one of these attributes, the first that is there, as `action_input` or `action_output`: a string that is a
/// JSON object or array as that, any other value as it is.
pub fn write_content(
    json: &mut Json,
    field: Field,
    attributes: &mut Attributes<'_>,
    of: &[Known],
    memory: &mut Canonicalizer,
) -> Result<(), Fault> {
    let Some((known, any)) = attributes.first(of) else { return Ok(()) };
    attributes.mark_used(known);
    json.field(field);
    match any_text(any) {
        Some(text) if write_parsed(json, &text, memory) => json.is_mended |= is_mended(&text),
        Some(text) => json.text(text),
        None => json.any(any, 1)?,
    }
    Ok(())
}

/// Writes a text that is a JSON object or array, unless an event could not hold it.
fn write_parsed(json: &mut Json, text: &str, memory: &mut Canonicalizer) -> bool {
    if !matches!(text.trim_start_matches([' ', '\t', '\n', '\r']).as_bytes().first(), Some(b'{' | b'[')) {
        return false;
    }
    let start = json.bytes.len();
    let mut parser = Parser::new(text, 0, memory, usize::MAX);
    // The event itself is level 1.
    parser.deepen(1);
    let is_json = parser.value(&mut json.bytes).is_ok() && parser.end().is_ok();
    if !is_json {
        json.bytes.truncate(start);
    }
    is_json
}

/// The UUIDv5 of a name (RFC 9562, section 5.5). The same as [`Uuid::new_v5`], with the processor's instructions for SHA-1:
/// those ids took a fortieth of a span's CPU time.
pub fn uuid_v5(namespace: &Uuid, name: &[u8]) -> Uuid {
    let digest = Sha1::new().chain_update(namespace).chain_update(name).finalize();
    let mut bytes = uuid::Bytes::default();
    bytes.copy_from_slice(&digest[..size_of::<uuid::Bytes>()]);
    Builder::from_sha1_bytes(bytes).into_uuid()
}

/// A trace id and a span id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanKey {
    /// Of the trace.
    pub trace: [u8; TRACE_ID_LEN],
    /// Of the span.
    pub span: [u8; SPAN_ID_LEN],
}

impl SpanKey {
    /// `None` if one of them is no id: of another length, or zero.
    pub fn of(trace: &[u8], span: &[u8]) -> Option<SpanKey> {
        let key = SpanKey { trace: trace.try_into().ok()?, span: span.try_into().ok()? };
        (key.trace != [0; TRACE_ID_LEN] && key.span != [0; SPAN_ID_LEN]).then_some(key)
    }

    /// Both in hex, one behind the other.
    pub fn hex(&self) -> [u8; 2 * (TRACE_ID_LEN + SPAN_ID_LEN)] {
        let mut hex = [0; 2 * (TRACE_ID_LEN + SPAN_ID_LEN)];
        for (place, byte) in hex.as_chunks_mut().0.iter_mut().zip(self.trace.iter().chain(&self.span)) {
            *place = hex_of(*byte);
        }
        hex
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_rfc() {
        // RFC 9562, appendix A.4.
        let expected = "2ed6657d-e927-568b-95e1-2665a8aea6a2";
        assert_eq!(uuid_v5(&Uuid::NAMESPACE_DNS, b"www.example.com").to_string(), expected);
        for name in [&b""[..], &[7; 39], &[7; 40], &[7; 3000]] {
            assert_eq!(uuid_v5(&Uuid::NAMESPACE_URL, name), Uuid::new_v5(&Uuid::NAMESPACE_URL, name));
        }
    }
}
