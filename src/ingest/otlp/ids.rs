//! Trace ids and span ids, and the ids of events derived from them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use uuid::{Builder, Uuid};

use cairn_proof::hex;

/// The namespace of the ids of spans: UUIDv5 over the hex trace id followed by the hex span id.
const NAMESPACE: Uuid = Uuid::from_u128(0x156d8089_5891_4f39_828a_95600e6f5574);

/// The first byte of an id that is a text, not bytes: the converter from JSON puts it before texts that are no hex.
pub const TEXT_MARK: u8 = 0;

/// A trace id.
pub type TraceId<'a> = Id<'a, 16>;
/// A span id.
pub type SpanId<'a> = Id<'a, 8>;

/// A trace id (16 bytes) or a span id (8 bytes). Senders also write ids in ways that the protocol does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Id<'a, const N: usize> {
    /// The bytes: sent as such, or as hex digits with or without `0x`, or as base64 with padding.
    Bytes([u8; N]),
    /// Anything else.
    Other(&'a [u8]),
}

impl<'a, const N: usize> Id<'a, N> {
    /// Reads an id; `None` if it is missing or all zero.
    pub fn of(sent: &'a [u8]) -> Option<Id<'a, N>> {
        if let Ok(bytes) = sent.try_into() {
            return Some(Id::Bytes(bytes)).filter(|_| bytes != [0; N]);
        }
        let text = sent.strip_prefix(&[TEXT_MARK]).unwrap_or(sent);
        match decode::<N>(text) {
            Some(bytes) => Some(Id::Bytes(bytes)).filter(|_| bytes != [0; N]),
            None => text.iter().any(|byte| !matches!(byte, 0 | b'0')).then_some(Id::Other(text)),
        }
    }

    /// Whether the protocol allows the id.
    pub fn is_valid(&self) -> bool {
        matches!(self, Id::Bytes(_))
    }

    /// Appends the id as text: hex digits in lower case, or the text that was sent.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Id::Bytes(bytes) => hex::push(bytes, out),
            Id::Other(sent) => match std::str::from_utf8(sent) {
                Ok(text) if !text.chars().any(char::is_control) => out.extend_from_slice(sent),
                _ => hex::push(sent, out),
            },
        }
    }
}

impl<const N: usize> fmt::Display for Id<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Vec::with_capacity(2 * N);
        self.write(&mut text);
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

/// Decodes the forms of an id that cannot be mistaken for another one.
fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digits = text.strip_prefix(b"0x").or_else(|| text.strip_prefix(b"0X")).unwrap_or(text);
    let bytes = if digits.len() == 2 * N {
        hex::parse_mixed(digits)?
    } else if text.len() == N.div_ceil(3) * 4 {
        STANDARD.decode(text).ok()?
    } else {
        return None;
    };
    bytes.try_into().ok()
}

/// A trace id and a span id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanKey<'a> {
    /// The trace id.
    pub trace: TraceId<'a>,
    /// The span id.
    pub span: SpanId<'a>,
}

impl<'a> SpanKey<'a> {
    /// `None` if one of the ids is missing or all zero.
    pub fn of(trace: &'a [u8], span: &'a [u8]) -> Option<SpanKey<'a>> {
        Some(SpanKey { trace: Id::of(trace)?, span: Id::of(span)? })
    }

    /// The id of the event of the span.
    pub fn event_id(&self) -> Uuid {
        let mut name = Vec::with_capacity(48);
        self.trace.write(&mut name);
        if !self.trace.is_valid() || !self.span.is_valid() {
            name.push(b':');
        }
        self.span.write(&mut name);
        uuid_v5(&NAMESPACE, &name)
    }
}

/// The UUIDv5 of a name (RFC 9562, section 5.5). The result is that of [`Uuid::new_v5`], computed with the processor's
/// instructions for SHA-1: ids from `Uuid::new_v5` took a fortieth of a span's CPU time.
pub fn uuid_v5(namespace: &Uuid, name: &[u8]) -> Uuid {
    let digest = Sha1::new().chain_update(namespace).chain_update(name).finalize();
    let mut bytes = uuid::Bytes::default();
    bytes.copy_from_slice(&digest[..size_of::<uuid::Bytes>()]);
    Builder::from_sha1_bytes(bytes).into_uuid()
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

    #[test]
    fn an_id_is_decoded_in_every_form_that_cannot_be_mistaken_and_kept_as_text_in_others() {
        let bytes: [u8; 8] = [0xde, 0x9e, 0x16, 0xe2, 0x39, 0x8d, 0x78, 0x76];
        let valid: SpanId<'_> = Id::Bytes(bytes);
        for sent in [&bytes[..], b"de9e16e2398d7876", b"DE9E16E2398D7876", b"0xde9e16e2398d7876", b"3p4W4jmNeHY="] {
            assert_eq!(SpanId::of(sent), Some(valid), "{sent:?}");
        }
        for (sent, text) in [
            (&b"span-1"[..], "span-1"),
            (b"\0span-001", "span-001"),
            (b"12345", "12345"),
            (b"\x01\x02\xff", "0102ff"),
            (b"de9e16e2398d787", "de9e16e2398d787"),
        ] {
            let id = SpanId::of(sent).unwrap();
            assert!(!id.is_valid() && id.to_string() == text, "{sent:?} {id}");
        }
        for missing in [&b""[..], &[0; 8], b"0000000000000000", b"0x0000000000000000", &[0; 5], b"000"] {
            assert_eq!(SpanId::of(missing), None, "{missing:?}");
        }
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let key = SpanKey { trace: Id::of(trace.as_bytes()).unwrap(), span: valid };
        let expected = uuid_v5(&NAMESPACE, format!("{trace}de9e16e2398d7876").as_bytes());
        assert_eq!(key.event_id(), expected);
    }
}
