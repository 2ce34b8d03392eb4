//! The record of an erased event: it keeps its header, and has a [`Stub`] in the place of its content, and no warnings.

use super::record::{ERASED, Record, RecordRef, WARNINGS, WARNINGS_LEN};
use cairn_proof::chain::{ErasedBy, Field, Stub, scan};

/// The record without its content. `None` if it has no id, agent or time of receipt: it is damaged.
pub fn erased(record: RecordRef<'_>, by: &ErasedBy) -> Option<Record> {
    let text = |field| record.value(field).and_then(scan::text).map(|text| text.into_owned());
    let (agent_id, id) = (text(Field::AgentId)?, text(Field::Id)?);
    let stub = Stub { agent_id, erased: by.clone(), id, received_at: text(Field::ReceivedAt)? };
    let mut bytes = record.bytes()[..WARNINGS_LEN].to_vec();
    bytes[0] = ERASED;
    // No warnings: they may quote the content.
    bytes.resize(WARNINGS, 0);
    bytes.extend_from_slice(&stub.write());
    Some(Record::of(bytes, WARNINGS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::format::keys::Position;
    use crate::ledger::format::record::{Draft, Stamp};
    use cairn_proof::chain::{AgentKey, EventReader, EventSource, Hash, Sequence};

    #[test]
    fn a_stub_keeps_what_identifies_the_event_and_nothing_else() {
        let mut reader = EventReader::default();
        let event = r#"{"agent_id":"a","action_output":"canary","labels":{"canary":1},"action_type":"canary","duration":"canary"}"#;
        let source = EventSource::HTTP_API.with_salt(true);
        let (content, _) = reader.read(event, 0, source, usize::MAX).unwrap();
        let stamp = Stamp {
            received_at: *b"2026-02-17T10:30:00.500Z",
            id_ms: 1,
            first_of_ms: Position(0),
            position: Position(0),
            random: 3,
            salt: [9; 16],
            sequence: Sequence(7),
        };
        let mut record = Draft::new(&content).stamp(&stamp);
        let hash = record.seal(&Hash([5; 32]));
        let by = ErasedBy { at: "2026-02-18T00:00:00.000Z".into(), recorder: "cairn/x".into(), sequence: 12 };
        let stub = erased(record.as_ref(), &by).unwrap();
        let parsed = RecordRef::parse(stub.as_ref().bytes()).unwrap();
        assert!(parsed.is_erased() && !record.as_ref().is_erased());
        assert_eq!((parsed.hash(), parsed.prev_hash(), parsed.sequence()), (hash, Hash([5; 32]), Sequence(7)));
        assert_eq!((parsed.agent(), parsed.received_ms()), (AgentKey::of("a"), record.as_ref().received_ms()));
        assert_eq!(parsed.value(Field::Id), record.as_ref().value(Field::Id));
        assert_eq!((parsed.warnings(), parsed.link().canonical), (None, None));
        let kept = String::from_utf8_lossy(parsed.bytes()).into_owned();
        assert!(!kept.contains("canary") && !kept.contains("CQkJCQ"), "{kept}");
        assert_eq!(Stub::parse(parsed.canonical(), AgentKey::of("a")).unwrap().erased, by);
        let mut answer = Vec::new();
        parsed.write_answer(&mut answer);
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&answer).unwrap()["erased"]["sequence"], 12);
    }
}
