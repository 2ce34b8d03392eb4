//! What a package says of itself and of its proofs, as it is read.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::chain::{Hash, link, time};

/// What a package says of itself, before its events.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    pub exported_at: Option<String>,
    pub filter: Filter,
    pub merkle_root: Option<Hash>,
    pub tree_size: Option<u64>,
    pub checkpoint: Option<String>,
    pub log_key: Option<String>,
    pub first_sequence: u64,
    pub anchor_prev_hash: Hash,
}

/// Which events the sender says that they are.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Of this agent.
    pub agent_id: String,
    /// Received then or later.
    pub since: Option<Ms>,
    /// Received before.
    pub until: Option<Ms>,
}

/// A proof, and of which event it is.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    /// The event's id.
    pub event_id: String,
    /// The proof.
    pub proof: Object<Proof>,
}

/// That a leaf is in a tree.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    pub leaf_hash: HexHash,
    pub leaf_index: u64,
    pub siblings: Vec<HexHash>,
    pub tree_size: u64,
}

/// What is written as an object. Without this an array of the values would do as well.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, members: M) -> Result<Object<T>, M::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Object)
            }
        }
        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// A hash, as 64 hex digits.
#[derive(Debug, Clone, Copy)]
pub struct HexHash(pub Hash);

/// A time in ms since 1970, as RFC 3339.
#[derive(Debug, Clone, Copy)]
pub struct Ms(pub u64);

/// Reads a text without copying it.
struct Text<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Text<T> {
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
        deserializer
            .deserialize_str(Text(|text| text.parse().map(HexHash).map_err(|error: link::NotAHash| error.to_string())))
    }
}

impl<'de> serde::Deserialize<'de> for Ms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ms, D::Error> {
        deserializer.deserialize_str(Text(|text| time::parse_ms(text).map(Ms).ok_or("expected a time".to_owned())))
    }
}
