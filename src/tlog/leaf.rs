//! A leaf: one event, as the tree has it.

use std::io::Write;

use tlog_tiles::{Hash, record_hash};

use crate::chain::Field;
use crate::ledger::record::RecordRef;

/// The leaf's data: `canonical({"agent_id":..., "hash":..., "sequence":...})`.
pub fn data(record: RecordRef<'_>) -> Vec<u8> {
    let mut data = Vec::with_capacity(192);
    data.extend_from_slice(br#"{"agent_id":"#);
    // Canonical already.
    data.extend_from_slice(record.value(Field::AgentId).unwrap_or(b"\"\""));
    data.extend_from_slice(br#","hash":""#);
    data.extend_from_slice(&record.hash().hex());
    // Writing to a Vec cannot fail.
    let _ = write!(data, r#"","sequence":{}}}"#, record.sequence());
    data
}

/// The leaf's hash: SHA-256 of a zero byte and the data (RFC 6962, section 2.1).
pub fn hash(record: RecordRef<'_>) -> Hash {
    record_hash(&data(record))
}
