//! Reads and verifies an evidence package, member by member, with memory for one event or proof at a time.
//!
//! The format is specified in `docs/verification.md`, "Evidence package": the members are in the order of [`MEMBERS`],
//! each at most once, and there are no others.

use std::io::{self, Read};

use serde::de::DeserializeOwned;

use super::check::PackageCheck;
use super::claims::{Claims, EventProof, Filter, HexHash, StrictObject};
use super::json_stream::{JsonStream, StreamError};
use super::retained::AnchorProof;
use super::verdict::Verdict;
use crate::chain::time;

/// The version of the format that is written.
///
/// Version 1.1 added the fields `redactions` and `salt` of events, erased events, and the member `recorder`.
pub const VERSION: &str = "1.1";

/// The version that is written if retention has dropped events before those of the package: it added the member `retention`.
pub const RETENTION_VERSION: &str = "1.2";

/// The first version of the format, which is read as well.
const FIRST_VERSION: &str = "1.0";

/// The members of a package, in the order of the format.
pub const MEMBERS: [&str; 13] = [
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
    "recorder",
    "retention",
];

/// Verifies an evidence package.
///
/// `keys` are the verifier keys that the auditor trusts; without any, the layer `checkpoint` never holds. `progress` is
/// called after each event and each proof.
///
/// # Errors
/// When the file cannot be read. Errors in its content are in the verdict.
pub fn verify(file: impl Read, keys: &[String], progress: impl FnMut()) -> io::Result<Verdict> {
    let json = JsonStream::new(file);
    let mut reader = PackageReader { json, keys, claims: Claims::default(), check: None, progress };
    let error = match reader.read() {
        Ok(()) => None,
        Err(StreamError::Invalid(why)) => Some(why),
        Err(StreamError::Io(error)) => return Err(error),
    };
    Ok(match (reader.check, error) {
        (Some(check), error) => check.finish(error),
        (None, error) => Verdict::unreadable(reader.claims.filter.agent_id, error.unwrap_or_default()),
    })
}

/// The first byte of a gzip file (RFC 1952).
const GZIP: u8 = 0x1f;
/// The members that are not optional.
const REQUIRED: [&str; 6] = ["version", "filter", "first_sequence", "anchor_prev_hash", "events", "merkle_proofs"];

/// The state of reading a package.
struct PackageReader<'k, R, P> {
    json: JsonStream<R>,
    keys: &'k [String],
    claims: Claims,
    /// Set when the member `events` begins; `claims` is moved into it.
    check: Option<PackageCheck>,
    progress: P,
}

impl<R: Read, P: FnMut()> PackageReader<'_, R, P> {
    fn read(&mut self) -> Result<(), StreamError> {
        let mut remaining = &MEMBERS[..];
        if self.json.peek()? == Some(GZIP) {
            return Err(self.json.invalid("the file is compressed: decompress it first"));
        }
        self.json.require(b'{')?;
        let mut is_first = true;
        while !self.json.accept(b'}')? {
            if !is_first {
                self.json.require(b',')?;
            }
            is_first = false;
            let name: String = self.parse_value()?;
            self.json.require(b':')?;
            if !MEMBERS.contains(&&*name) {
                return Err(self.json.invalid(&format!("unknown member {name:?}")));
            }
            let Some(at) = remaining.iter().position(|member| *member == name) else {
                return Err(self.json.invalid(&format!("{name:?} is duplicate or out of order")));
            };
            let (skipped, after) = remaining.split_at(at);
            self.require_optional(skipped)?;
            remaining = &after[1..];
            self.member(&name)?;
        }
        self.require_optional(remaining)?;
        match self.json.peek()? {
            None => Ok(()),
            Some(_) => Err(self.json.invalid("unexpected data after the package")),
        }
    }

    /// Fails if one of the members that the file does not have is required.
    fn require_optional(&self, absent: &[&str]) -> Result<(), StreamError> {
        match absent.iter().find(|member| REQUIRED.contains(member)) {
            Some(member) => Err(self.json.invalid(&format!("{member:?} is missing or out of order"))),
            None => Ok(()),
        }
    }

    /// Reads a value and deserializes it.
    fn parse_value<T: DeserializeOwned>(&mut self) -> Result<T, StreamError> {
        let read = serde_json::from_str(self.json.value()?);
        read.map_err(|error| self.json.invalid(&error.to_string()))
    }

    /// Reads the value of a member. Errors name the member.
    fn member(&mut self, name: &str) -> Result<(), StreamError> {
        self.member_value(name).map_err(|error| match error {
            StreamError::Invalid(why) => StreamError::Invalid(format!("{name}: {why}")),
            io => io,
        })
    }

    fn member_value(&mut self, name: &str) -> Result<(), StreamError> {
        match name {
            "version" => {
                let version: String = self.parse_value()?;
                if ![FIRST_VERSION, VERSION, RETENTION_VERSION].contains(&version.as_str()) {
                    let why = format!(
                        "unsupported version {version:?}, expected {FIRST_VERSION:?}, {VERSION:?} or {RETENTION_VERSION:?}"
                    );
                    return Err(self.json.invalid(&why));
                }
                self.claims.is_first_version = version == FIRST_VERSION;
                self.claims.has_retention = version == RETENTION_VERSION;
            }
            "exported_at" => {
                let exported_at: Option<String> = self.parse_value()?;
                if exported_at.as_deref().is_some_and(|text| time::parse_ms(text).is_none()) {
                    return Err(self.json.invalid("expected an RFC 3339 time"));
                }
                self.claims.exported_at = exported_at;
            }
            "filter" => self.claims.filter = self.parse_value::<StrictObject<Filter>>()?.0,
            "merkle_root" => self.claims.merkle_root = self.parse_value::<Option<HexHash>>()?.map(|hex| hex.0),
            "tree_size" => self.claims.tree_size = self.parse_value()?,
            "checkpoint" => self.claims.checkpoint = self.parse_value()?,
            "log_key" => self.claims.log_key = self.parse_value()?,
            "first_sequence" => self.claims.first_sequence = self.parse_value()?,
            "anchor_prev_hash" => self.claims.anchor_prev_hash = self.parse_value::<HexHash>()?.0,
            "events" => {
                let mut check = PackageCheck::new(std::mem::take(&mut self.claims), self.keys);
                let read = self.for_each_element(|text| {
                    check.event(text);
                    Ok(())
                });
                self.check = Some(check);
                read?;
            }
            "recorder" => {
                let Some(mut check) = self.check.take() else { return Ok(()) };
                if check.is_first_version() {
                    self.check = Some(check);
                    return Err(self.json.invalid("version 1.0 does not have this member"));
                }
                check.begin_recorder();
                let read = self.for_each_element(|text| {
                    check.recorder_event(text);
                    Ok(())
                });
                self.check = Some(check);
                read?;
            }
            "retention" => {
                let proof: StrictObject<AnchorProof> = self.parse_value()?;
                let Some(check) = self.check.as_mut() else { return Ok(()) };
                if !check.set_retention(proof.0) {
                    return Err(self.json.invalid("only version 1.2 has this member"));
                }
            }
            _ => {
                let Some(mut check) = self.check.take() else { return Ok(()) };
                let read = self.for_each_element(|text| {
                    let proof: StrictObject<EventProof> = serde_json::from_str(text)?;
                    check.proof(&proof.0);
                    Ok(())
                });
                self.check = Some(check);
                read?;
            }
        }
        Ok(())
    }

    /// Reads an array, and calls `handle` with the text of each element.
    fn for_each_element(&mut self, mut handle: impl FnMut(&str) -> serde_json::Result<()>) -> Result<(), StreamError> {
        self.json.require(b'[')?;
        let mut count = 0u64;
        while self.json.has_element(count == 0)? {
            count += 1;
            if let Err(error) = handle(self.json.value()?) {
                return Err(self.json.invalid(&format!("element {count}: {error}")));
            }
            (self.progress)();
        }
        Ok(())
    }
}
