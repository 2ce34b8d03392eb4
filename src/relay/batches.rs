//! What destinations that send events together have in common.

use sha2::{Digest, Sha256};

use super::destination::SessionKey;
use super::event::RelayEvent;

/// The number of lanes. It is part of the rows on disk: the events of a session stay in the lane that they wait in.
const LANES: u8 = 16;

/// The lane of an event: one of a few sessions, each with the events of many. So requests are full, and the order within a
/// session of the ledger is kept.
pub fn lane(event: &RelayEvent<'_>) -> SessionKey {
    let mut key = [0; 16];
    key[0] = Sha256::digest(event.session_name())[0] % LANES;
    SessionKey(key)
}

/// The events as JSON lines, each as `GET /v1/events` shows it.
pub fn json_lines(events: &[RelayEvent<'_>]) -> Vec<u8> {
    let length = events.iter().map(|event| event.record.max_answer_len() + 1).sum();
    let mut lines = Vec::with_capacity(length);
    for event in events {
        event.record.write_answer(&mut lines);
        lines.push(b'\n');
    }
    lines
}
