//! The stub: what remains of an event whose content was erased.
//!
//! Its hash stays the link of the chain and the leaf of the log, and cannot be computed any more. So a stub is valid only if the
//! chain of the recorder has the erasure that it names. The rules are specified in `docs/verification.md`, "Erased events".

use serde::{Deserialize, Serialize};

use super::link::{AgentKey, Sequence};
use super::time;

/// The members of a stub, next to its hash, previous hash and sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stub {
    /// The agent of the event.
    pub agent_id: String,
    /// The erasure that removed the content.
    pub erased: ErasedBy,
    /// The id of the event. No hash covers it any more.
    pub id: String,
    /// When the event was received. No hash covers it any more.
    pub received_at: String,
}

/// The event of a recorder that recorded an erasure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErasedBy {
    /// When the erasure was recorded (RFC 3339).
    pub at: String,
    /// The agent id of the recorder.
    pub recorder: String,
    /// The sequence of the record in the chain of the recorder.
    pub sequence: u64,
}

impl ErasedBy {
    /// The sequence of the record in the chain of the recorder.
    pub fn record(&self) -> Sequence {
        Sequence(self.sequence)
    }
}

impl Stub {
    /// The canonical bytes.
    pub fn write(&self) -> Vec<u8> {
        // The members are declared in canonical order, and a struct of strings and a number can always be serialized.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Parses the canonical bytes of a stub of `agent`.
    ///
    /// # Errors
    /// When they are not that. The text states why.
    pub fn parse(canonical: &[u8], agent: AgentKey) -> Result<Stub, String> {
        let stub: Stub = serde_json::from_slice(canonical).map_err(|error| error.to_string())?;
        if stub.write() != canonical {
            return Err("not in canonical form".to_owned());
        }
        if AgentKey::of(&stub.agent_id) != agent {
            return Err(format!("it belongs to agent {:?}", stub.agent_id));
        }
        if let Some(text) = [&stub.received_at, &stub.erased.at].into_iter().find(|text| time::parse_ms(text).is_none())
        {
            return Err(format!("expected an RFC 3339 time, found {text:?}"));
        }
        Ok(stub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stub_is_read_as_it_was_written_and_anything_else_is_not_one() {
        let erased = ErasedBy { at: "2026-02-17T10:30:00.000Z".into(), recorder: "cairn/x".into(), sequence: 7 };
        let (id, received_at) = ("0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f".into(), "2026-02-17T10:00:00.000Z".into());
        let stub = Stub { agent_id: "a \"é\"".into(), erased, id, received_at };
        let (written, agent) = (stub.write(), AgentKey::of(&stub.agent_id));
        assert_eq!(crate::chain::canonicalize(std::str::from_utf8(&written).unwrap()).unwrap(), written);
        assert_eq!(Stub::parse(&written, agent), Ok(stub.clone()));
        assert!(Stub::parse(&written, AgentKey::of("b")).is_err());
        let text = String::from_utf8(written).unwrap();
        for (from, to) in [
            ("\"sequence\":7", "\"sequence\": 7"),
            ("{\"agent_id", "{\"action_input\":1,\"agent_id"),
            (":00:00.000Z", ""),
        ] {
            assert!(Stub::parse(text.replacen(from, to, 1).as_bytes(), agent).is_err(), "{to}");
        }
    }
}
