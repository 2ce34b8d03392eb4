//! The file, member by member. An event and a proof are read at a time, however long the file is.
//!
//! The members stand in the order of [`MEMBERS`], each once, and there are no others.

use std::io::{self, Read};

use serde::de::DeserializeOwned;

use super::check::Check;
use super::claims::{Claims, EventProof, Filter, HexHash, Object};
use super::json_stream::{JsonStream, Stop};
use super::verdict::Verdict;
use crate::chain::time;

/// The version of the format.
pub const VERSION: &str = "1.0";

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
            "merkle_root" => self.claims.merkle_root = self.next::<Option<HexHash>>()?.map(|hex| hex.0),
            "tree_size" => self.claims.tree_size = self.next()?,
            "checkpoint" => self.claims.checkpoint = self.next()?,
            "log_key" => self.claims.log_key = self.next()?,
            "first_sequence" => self.claims.first_sequence = self.next()?,
            "anchor_prev_hash" => self.claims.anchor_prev_hash = self.next::<HexHash>()?.0,
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
                    let proof: Object<EventProof> = serde_json::from_str(text)?;
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
