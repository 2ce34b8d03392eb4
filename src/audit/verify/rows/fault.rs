//! A row that does not hold what the events say.

use std::fmt;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::ledger::store::Family;
use cairn_proof::hex;

/// A row that is missing, wrong or unexpected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowFault {
    /// The column family.
    pub family: Family,
    /// The key of the row.
    pub key: Vec<u8>,
    /// What is wrong.
    pub kind: FaultKind,
    /// How to repair the row.
    pub repair: Repair,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// There is no row with this key.
    Missing,
    /// The row has another value than the events give it.
    Wrong,
    /// The events give no row with this key.
    Unexpected,
}

/// How a row is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// It gets this value.
    Put(Vec<u8>),
    /// It is removed.
    Delete,
    /// The whole index is removed. The next start of the server builds it again.
    RebuildIndex,
    /// No event gives it: it keeps its value, which is accepted by a new check.
    Keep,
    /// It cannot be derived from the events.
    Impossible,
}

impl RowFault {
    /// A fault of the row with this key.
    pub fn new(family: Family, key: &[u8], kind: FaultKind, repair: Repair) -> RowFault {
        RowFault { family, key: key.to_vec(), kind, repair }
    }

    /// A row that must exist with this value: missing, or wrong if `is_stored`.
    pub fn expected(family: Family, key: &[u8], is_stored: bool, value: &[u8]) -> RowFault {
        let kind = if is_stored { FaultKind::Wrong } else { FaultKind::Missing };
        RowFault::new(family, key, kind, Repair::Put(value.to_vec()))
    }

    /// A row that must not exist.
    pub fn unexpected(family: Family, key: &[u8]) -> RowFault {
        RowFault::new(family, key, FaultKind::Unexpected, Repair::Delete)
    }

    /// The fault in the form of `cairn verify --json`.
    pub fn to_json(&self) -> Value {
        json!({"valid": false, "family": self.family.name(), "row": self.row(), "error": self.kind.to_string()})
    }

    /// The key as text: a UUID, a name, or hexadecimal digits.
    pub fn row(&self) -> String {
        match self.family {
            Family::ClientIds if self.key.len() == 16 => Uuid::from_slice(&self.key).unwrap_or_default().to_string(),
            Family::ClientIds | Family::Meta | Family::Relay | Family::Log => self.key.escape_ascii().to_string(),
            _ => hex::encode(&self.key),
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Missing => "missing",
            FaultKind::Wrong => "wrong",
            FaultKind::Unexpected => "unexpected",
        })
    }
}

impl fmt::Display for RowFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: row {} is {}", self.family.name(), self.row(), self.kind)
    }
}
