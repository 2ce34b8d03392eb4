//! The file, member by member. An event and a proof are read at a time, however long the file is.
//!
//! The members stand in the order of [`MEMBERS`], each once, and there are no others.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::VERSION;
use super::check::Check;
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

/// The longest an event or a proof may be. Nothing that Cairn takes is longer.
const ITEM_BYTES: usize = 64 << 20;

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
    pub proof: Proof,
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
pub fn verify(file: impl Read, keys: &[String], mut progress: impl FnMut()) -> io::Result<Verdict> {
    let budget = Rc::new(Cell::new(ITEM_BYTES));
    let file = Budgeted { file, budget: Rc::clone(&budget) };
    let mut reading = Reading { keys, claims: Claims::default(), check: None, budget, progress: &mut progress };
    let mut json = serde_json::Deserializer::from_reader(file);
    let read = (&mut reading).deserialize(&mut json).and_then(|()| json.end());
    let wrong = match read {
        Ok(()) => None,
        Err(error) if error.is_io() => {
            let error = io::Error::from(error);
            match error.kind() {
                io::ErrorKind::FileTooLarge => Some(error.to_string()),
                _ => return Err(error),
            }
        }
        Err(error) => Some(error.to_string()),
    };
    Ok(match (reading.check, wrong) {
        (Some(check), wrong) => check.finish(wrong),
        (None, wrong) => Verdict::unreadable(reading.claims.filter.agent_id, wrong.unwrap_or_default()),
    })
}

/// A file of which one item at a time is held in memory, and none that is too long.
struct Budgeted<R> {
    file: R,
    budget: Rc<Cell<usize>>,
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.budget.get();
        if left == 0 && !into.is_empty() {
            let message = format!("an event or a proof is longer than {} MiB", ITEM_BYTES >> 20);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        let count = into.len().min(left);
        let read = self.file.read(&mut into[..count])?;
        self.budget.set(left - read);
        Ok(read)
    }
}

/// What was read so far.
struct Reading<'r> {
    keys: &'r [String],
    claims: Claims,
    /// From the events on.
    check: Option<Check>,
    budget: Rc<Cell<usize>>,
    progress: &'r mut dyn FnMut(),
}

impl Reading<'_> {
    fn next_item(&mut self) {
        self.budget.set(ITEM_BYTES);
        (self.progress)();
    }

    /// Reads a member. The order is right.
    fn member<'de, M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<(), M::Error> {
        let claims = &mut self.claims;
        match name {
            "version" => {
                let version: String = map.next_value()?;
                if version != VERSION {
                    let message = format!("version: {version:?} is not known to this program, {VERSION:?} is");
                    return Err(M::Error::custom(message));
                }
            }
            "exported_at" => claims.exported_at = map.next_value()?,
            "filter" => claims.filter = map.next_value()?,
            "merkle_root" => claims.merkle_root = map.next_value::<Option<Hex>>()?.map(|hex| hex.0),
            "tree_size" => claims.tree_size = map.next_value()?,
            "checkpoint" => claims.checkpoint = map.next_value()?,
            "log_key" => claims.log_key = map.next_value()?,
            "first_sequence" => claims.first_sequence = map.next_value()?,
            "anchor_prev_hash" => claims.anchor_prev_hash = map.next_value::<Hex>()?.0,
            "events" => {
                self.check = Some(Check::new(std::mem::take(claims), self.keys));
                map.next_value_seed(Events(self))?;
            }
            _ => map.next_value_seed(Proofs(self))?,
        }
        Ok(())
    }
}

/// Without these there is nothing to check.
const NEEDED: [&str; 6] = ["version", "filter", "first_sequence", "anchor_prev_hash", "events", "merkle_proofs"];

impl<'de> DeserializeSeed<'de> for &mut Reading<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Reading<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an evidence package")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut left = &MEMBERS[..];
        while let Some(name) = map.next_key::<String>()? {
            if !MEMBERS.contains(&&*name) {
                return Err(M::Error::custom(format!("unknown member {name:?}")));
            }
            let Some(at) = left.iter().position(|member| *member == name) else {
                return Err(M::Error::custom(format!("{name:?} is there twice, or not in its place")));
            };
            let (passed_over, after) = left.split_at(at);
            missing(passed_over)?;
            left = &after[1..];
            self.member(&name, &mut map)?;
        }
        missing(left)
    }
}

fn missing<E: serde::de::Error>(members: &[&str]) -> Result<(), E> {
    match members.iter().find(|member| NEEDED.contains(member)) {
        Some(member) => Err(E::custom(format!("{member:?} is missing, or not in its place"))),
        None => Ok(()),
    }
}

struct Events<'a, 'r>(&'a mut Reading<'r>);

impl<'de> DeserializeSeed<'de> for Events<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut events: S) -> Result<(), S::Error> {
        self.0.next_item();
        while let Some(event) = events.next_element::<Box<RawValue>>()? {
            if let Some(check) = &mut self.0.check {
                check.event(event.get());
            }
            self.0.next_item();
        }
        Ok(())
    }
}

struct Proofs<'a, 'r>(&'a mut Reading<'r>);

impl<'de> DeserializeSeed<'de> for Proofs<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Proofs<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of proofs")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut proofs: S) -> Result<(), S::Error> {
        self.0.next_item();
        while let Some(proof) = proofs.next_element::<ProofOf>()? {
            if let Some(check) = &mut self.0.check {
                check.proof(&proof);
            }
            self.0.next_item();
        }
        Ok(())
    }
}
