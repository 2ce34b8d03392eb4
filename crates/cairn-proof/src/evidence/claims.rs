//! The members of a package other than its events, as parsed. Nothing in them is verified yet.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use tlog_tiles::{Hash as Node, check_record};

use crate::chain::{Hash, link, time};

/// The maximum number of leaves of a tree. It bounds the arithmetic of proofs, which would overflow for some 64-bit
/// sizes.
pub const MAX_TREE_SIZE: u64 = 1 << 56;
/// The length of a proof in the greatest tree.
pub const MAX_SIBLINGS: usize = 56;

/// The members before `events`.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Whether the package has version 1.0, whose events have neither `redactions` nor `salt`.
    pub is_first_version: bool,
    /// Whether it has the version with the member `retention`.
    pub has_retention: bool,
    pub exported_at: Option<String>,
    pub filter: Filter,
    pub merkle_root: Option<Hash>,
    pub tree_size: Option<u64>,
    pub checkpoint: Option<String>,
    pub log_key: Option<String>,
    pub first_sequence: u64,
    pub anchor_prev_hash: Hash,
}

/// The member `filter`: which events were requested.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// The agent of all events.
    pub agent_id: String,
    /// Inclusive lower bound of `received_at`.
    pub since: Option<TimeMs>,
    /// Exclusive upper bound of `received_at`.
    pub until: Option<TimeMs>,
}

/// An element of `merkle_proofs`: a proof and the id of its event.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    pub event_id: String,
    pub proof: StrictObject<Proof>,
}

/// An inclusion proof (RFC 9162, section 2.1.3.2).
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pub leaf_hash: HexHash,
    pub leaf_index: u64,
    pub siblings: Vec<HexHash>,
    pub tree_size: u64,
}

impl Proof {
    /// Why it does not show that its leaf is in the tree of this size and root, after the leaf `last_leaf_index`, if it does not.
    pub fn error(&self, last_leaf_index: Option<u64>, size: u64, root: Node) -> Option<String> {
        if self.tree_size != size {
            return Some(format!("tree_size is {}, expected {size}", self.tree_size));
        }
        if last_leaf_index.is_some_and(|last| self.leaf_index <= last) {
            return Some("leaf_index is not greater than that of the event before".to_owned());
        }
        if self.siblings.len() > MAX_SIBLINGS {
            return Some(format!("more than {MAX_SIBLINGS} siblings"));
        }
        let siblings = self.siblings.iter().map(|hash| Node(hash.0.0)).collect();
        let checked = check_record(&siblings, size, root, self.leaf_index, Node(self.leaf_hash.0.0));
        checked.err().map(|_| "it does not lead to the root of the tree".to_owned())
    }
}

/// A struct that is deserialized from a JSON object only. By default serde also accepts an array of the values.
#[derive(Debug)]
pub struct StrictObject<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for StrictObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StrictObject<T>, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = StrictObject<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, members: M) -> Result<StrictObject<T>, M::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(StrictObject)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A hash, written as 64 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HexHash(pub Hash);

/// A time in milliseconds since 1970, written as RFC 3339.
#[derive(Debug, Clone, Copy)]
pub struct TimeMs(pub u64);

/// Parses a string without copying it.
struct StrVisitor<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for StrVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

impl<'de> serde::Deserialize<'de> for HexHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HexHash, D::Error> {
        deserializer.deserialize_str(StrVisitor(|text| {
            text.parse().map(HexHash).map_err(|error: link::ParseHashError| error.to_string())
        }))
    }
}

impl serde::Serialize for HexHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for TimeMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TimeMs, D::Error> {
        let parse = |text: &str| time::parse_ms(text).map(TimeMs).ok_or("expected an RFC 3339 time".to_owned());
        deserializer.deserialize_str(StrVisitor(parse))
    }
}
