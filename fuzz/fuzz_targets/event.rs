//! Events: every accepted event can be laid out and sealed, and then verifies.
#![no_main]

use cairn::ledger::format::keys::Position;
use cairn::ledger::format::record::{Draft, Stamp};
use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{EventReader, EventSource, Hash, Sequence, Walk, canonicalize, event};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 16;

fuzz_target!(|text: &str| {
    assert!(event::skip(text, 0) <= text.len());
    let mut reader = EventReader::default();
    let Ok((content, end)) = reader.read(text, 0, EventSource::HTTP_API.with_salt(true), LIMIT) else { return };
    assert!(text.is_char_boundary(end));
    let mut bytes = Vec::new();
    content.write(&mut bytes);
    assert!(bytes.len() <= LIMIT && bytes.len() == content.canonical_len());
    let canonical = canonicalize(std::str::from_utf8(&bytes).expect("UTF-8")).expect("JSON");
    assert_eq!(canonical, bytes);
    let draft = Draft::new(&content);
    let mut record = draft.stamp(&Stamp {
        received_at: *b"2026-02-17T10:30:00.500Z",
        id_ms: 1_771_324_200_500,
        first_of_ms: Position(0),
        position: Position(1),
        random: 7,
        salt: [7; 16],
        sequence: Sequence(1),
    });
    record.seal(&Hash::GENESIS);
    let verified = Walk::default().step(&record.as_ref().link(), &mut Checker::default());
    verified.expect("a sealed event verifies");
});
