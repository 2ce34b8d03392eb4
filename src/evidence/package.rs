//! The file, member by member. An event and a proof are read at a time, however long the file is.
//!
//! The members stand in the order of [`MEMBERS`], each once, and there are no others.

use std::fmt;
use std::io::{self, Read};
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::VERSION;
use super::check::Check;
use super::stream::{JsonStream, Stop};
use super::verdict::Verdict;
use crate::chain::{Hash, time};

/// The members, in their order.
pub const MEMBERS: [&str; 11] = [
    "version",
    "exported_at",
    "filter",
    "merkle_root",
    "tree_size",
    "checkpoint",
    "log_key",
    "first_sequence",
    "anchor_prev_hash",
    "events",
    "merkle_proofs",
];

/// What a package says of itself, before its events.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the names are those of the members")]
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
pub struct ProofOf {
    /// The event's id.
    pub event_id: String,
    /// The proof.
    pub proof: Object<Proof>,
}

/// That a leaf is in a tree.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the names are those of the members")]
pub struct Proof {
    pub leaf_hash: Hex,
    pub leaf_index: u64,
    pub siblings: Vec<Hex>,
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
pub struct Hex(pub Hash);

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

impl<'de> serde::Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        deserializer.deserialize_str(Text(|text| {
            text.parse().map(Hex).map_err(|error: crate::chain::link::NotAHash| error.to_string())
        }))
    }
}

impl<'de> serde::Deserialize<'de> for Ms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ms, D::Error> {
        deserializer.deserialize_str(Text(|text| time::parse_ms(text).map(Ms).ok_or("expected a time".to_owned())))
    }
}

/// Verifies a package. `keys` are the verifier keys that the auditor trusts; `progress` is told of every event and proof.
///
/// # Errors
/// When the file cannot be read. Whatever is wrong with what is in it is in the verdict.
pub fn verify(file: impl Read, keys: &[String], progress: impl FnMut()) -> io::Result<Verdict> {
    let json = JsonStream::new(file);
    let mut reading = Reading { json, keys, claims: Claims::default(), check: None, progress };
    let wrong = match reading.read() {
        Ok(()) => None,
        Err(Stop::Wrong(why)) => Some(why),
        Err(Stop::Io(error)) => return Err(error),
    };
    Ok(match (reading.check, wrong) {
        (Some(check), wrong) => check.finish(wrong),
        (None, wrong) => Verdict::unreadable(reading.claims.filter.agent_id, wrong.unwrap_or_default()),
    })
}

/// What a file begins with that gzip made (RFC 1952).
const GZIP: u8 = 0x1f;
/// Without these there is nothing to check.
const NEEDED: [&str; 6] = ["version", "filter", "first_sequence", "anchor_prev_hash", "events", "merkle_proofs"];

/// What was read so far.
struct Reading<'k, R, P> {
    json: JsonStream<R>,
    keys: &'k [String],
    claims: Claims,
    /// From the events on.
    check: Option<Check>,
    progress: P,
}

impl<R: Read, P: FnMut()> Reading<'_, R, P> {
    fn read(&mut self) -> Result<(), Stop> {
        let mut left = &MEMBERS[..];
        if self.json.peek()? == Some(GZIP) {
            return Err(self.json.wrong("it is compressed: unpack it first"));
        }
        self.json.require(b'{')?;
        let mut is_first = true;
        while !self.json.accept(b'}')? {
            if !is_first {
                self.json.require(b',')?;
            }
            is_first = false;
            let name: String = self.next()?;
            self.json.require(b':')?;
            if !MEMBERS.contains(&&*name) {
                return Err(self.json.wrong(&format!("unknown member {name:?}")));
            }
            let Some(at) = left.iter().position(|member| *member == name) else {
                return Err(self.json.wrong(&format!("{name:?} is there twice, or not in its place")));
            };
            let (passed_over, after) = left.split_at(at);
            self.missing(passed_over)?;
            left = &after[1..];
            self.member(&name)?;
        }
        self.missing(left)?;
        match self.json.peek()? {
            None => Ok(()),
            Some(_) => Err(self.json.wrong("there is something behind the package")),
        }
    }

    fn missing(&self, members: &[&str]) -> Result<(), Stop> {
        match members.iter().find(|member| NEEDED.contains(member)) {
            Some(member) => Err(self.json.wrong(&format!("{member:?} is missing, or not in its place"))),
            None => Ok(()),
        }
    }

    /// Reads a value of a known form.
    fn next<T: DeserializeOwned>(&mut self) -> Result<T, Stop> {
        let read = serde_json::from_str(self.json.value()?);
        read.map_err(|error| self.json.wrong(&error.to_string()))
    }

    /// Reads a member. The order is right.
    fn member(&mut self, name: &str) -> Result<(), Stop> {
        let wrong = |stop| match stop {
            Stop::Wrong(why) => Stop::Wrong(format!("{name}: {why}")),
            io => io,
        };
        self.member_value(name).map_err(wrong)
    }

    fn member_value(&mut self, name: &str) -> Result<(), Stop> {
        match name {
            "version" => {
                let version: String = self.next()?;
                if version != VERSION {
                    return Err(self.json.wrong(&format!("{version:?} is not known to this program, {VERSION:?} is")));
                }
            }
            "exported_at" => {
                let told: Option<String> = self.next()?;
                if told.as_deref().is_some_and(|told| time::parse_ms(told).is_none()) {
                    return Err(self.json.wrong("expected a time"));
                }
                self.claims.exported_at = told;
            }
            "filter" => self.claims.filter = self.next::<Object<Filter>>()?.0,
            "merkle_root" => self.claims.merkle_root = self.next::<Option<Hex>>()?.map(|hex| hex.0),
            "tree_size" => self.claims.tree_size = self.next()?,
            "checkpoint" => self.claims.checkpoint = self.next()?,
            "log_key" => self.claims.log_key = self.next()?,
            "first_sequence" => self.claims.first_sequence = self.next()?,
            "anchor_prev_hash" => self.claims.anchor_prev_hash = self.next::<Hex>()?.0,
            "events" => {
                let mut check = Check::new(std::mem::take(&mut self.claims), self.keys);
                let read = self.elements(|text| {
                    check.event(text);
                    Ok(())
                });
                self.check = Some(check);
                read?;
            }
            _ => {
                let Some(mut check) = self.check.take() else { return Ok(()) };
                let read = self.elements(|text| {
                    let proof: Object<ProofOf> = serde_json::from_str(text)?;
                    check.proof(&proof.0);
                    Ok(())
                });
                self.check = Some(check);
                read?;
            }
        }
        Ok(())
    }

    /// Reads an array, element by element.
    fn elements(&mut self, mut take: impl FnMut(&str) -> serde_json::Result<()>) -> Result<(), Stop> {
        self.json.require(b'[')?;
        let mut count = 0u64;
        while self.json.has_element(count == 0)? {
            count += 1;
            if let Err(error) = take(self.json.value()?) {
                return Err(self.json.wrong(&format!("element {count}: {error}")));
            }
            (self.progress)();
        }
        Ok(())
    }
}
