//! The record: one event as it is stored in `events`.
//!
//! | bytes | content |
//! |---|---|
//! | 1 | format: 1 for an event, 2 for the [stub](super::stub) of an erased one |
//! | 16 | agent key |
//! | 8 | sequence |
//! | 32 | previous hash |
//! | 32 | hash |
//! | 4 | length of the warnings, 0 if there are none |
//! | ... | warnings: a JSON array of strings, then the first 4 bytes of its SHA-256 |
//! | ... | canonical bytes of the content, or of the stub |
//!
//! No hash of the chain covers the warnings. The 4 bytes after them detect damage, not tampering.
//!
//! Ingest builds the whole record once, in one allocation, with spare capacity at its end for the answer. The shard
//! fills in the values that only it knows, and the same bytes are hashed, stored and sent as the answer. See
//! `docs/adr/0002-the-shard-completes-canonical-bytes.md`.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::keys::{Position, server_id};
use super::terms::{self, LastLabels, Term, Terms};
use cairn_proof::chain::fields::{FieldType, SALT_LEN, UUID_LEN};
use cairn_proof::chain::{AgentKey, Content, DefaultLabels, Field, Hash, Link, Placeholders, Sequence, scan, time};

const FORMAT: u8 = 1;
/// The format of a stub.
pub(super) const ERASED: u8 = 2;
const AGENT: usize = 1;
const SEQUENCE: usize = AGENT + 16;
const PREV_HASH: usize = SEQUENCE + 8;
const HASH: usize = PREV_HASH + 32;
pub(super) const WARNINGS_LEN: usize = HASH + 32;
pub(super) const WARNINGS: usize = WARNINGS_LEN + 4;
const WARNINGS_CHECK: usize = 4;

/// The most bytes that an answer has in addition to the content, without warnings: every number at its greatest length.
const ANSWER_OVERHEAD: usize = r#","hash":"","prev_hash":"","sequence":18446744073709551615}"#.len() + 2 * 64;

/// A record that waits for its shard: complete except for the values that only the shard knows.
pub struct Draft {
    bytes: Vec<u8>,
    canonical_at: usize,
    placeholders: Placeholders,
    terms: Terms,
    added_labels: u16,
    /// The agent of the event.
    pub agent: AgentKey,
    /// The id that the client sent; `None` if the server assigns one.
    pub client_id: Option<Uuid>,
}

/// The values that the shard adds to a draft, except for the hashes.
pub struct Stamp {
    /// The time of receipt, in the format of RFC 3339.
    pub received_at: [u8; time::LEN],
    /// The id time in ms since 1970: see [`server_id`].
    pub id_ms: u64,
    /// The first position of that id time in the shard.
    pub first_of_ms: Position,
    /// The position at which the event will be stored.
    pub position: Position,
    /// Random bits for an id that the server assigns.
    pub random: u64,
    /// The salt of the event, if it gets one: without it and the content, nobody can test guesses of the content against
    /// the hash.
    pub salt: [u8; 16],
    /// The sequence of the event.
    pub sequence: Sequence,
}

impl Draft {
    /// Builds the record of an event.
    pub fn new(content: &Content<'_>) -> Draft {
        Draft::with(content, &[], terms::of_content(content))
    }

    /// Builds the record of an event with further warnings.
    pub fn with_warnings(content: &Content<'_>, more_warnings: &[String]) -> Draft {
        Draft::with(content, more_warnings, terms::of_content(content))
    }

    /// Builds the record of an event of many.
    pub fn next(content: &Content<'_>, more_warnings: &[String], last: &mut LastLabels) -> Draft {
        Draft::with(content, more_warnings, terms::of_next(content, last))
    }

    fn with(content: &Content<'_>, more_warnings: &[String], terms: Terms) -> Draft {
        let has_no_warnings = content.warnings.is_empty() && more_warnings.is_empty();
        let warnings =
            if has_no_warnings { Vec::new() } else { warnings_section(content.warnings.iter().chain(more_warnings)) };
        let canonical_at = WARNINGS + warnings.len();
        let overhead = ANSWER_OVERHEAD + WARNINGS_KEY.len() + warnings.len();
        let mut bytes = Vec::with_capacity(canonical_at + content.canonical_len() + overhead);
        bytes.resize(WARNINGS, 0);
        bytes[0] = FORMAT;
        bytes[AGENT..SEQUENCE].copy_from_slice(&content.agent.0);
        // A request body is shorter than 4 GiB, and so are its warnings.
        bytes[WARNINGS_LEN..WARNINGS].copy_from_slice(&(warnings.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&warnings);
        let placeholders = content.write(&mut bytes);
        let (agent, client_id, added_labels) = (content.agent, content.client_id, content.added_labels);
        Draft { bytes, canonical_at, placeholders, terms, added_labels, agent, client_id }
    }

    /// The canonical bytes of the content, with zeros in the place of values that only the shard knows.
    pub fn canonical(&self) -> &[u8] {
        &self.bytes[self.canonical_at..]
    }

    /// The memory that the draft holds, in bytes.
    pub fn memory_bytes(&self) -> usize {
        let terms = if self.terms.spilled() { self.terms.capacity() * size_of::<Term>() } else { 0 };
        self.bytes.capacity() + terms + size_of::<Draft>()
    }

    /// The terms of the event. Moves them out: a second call returns none.
    pub fn take_terms(&mut self) -> Terms {
        std::mem::take(&mut self.terms)
    }

    /// The id of the agent.
    pub fn agent_id(&self) -> Box<str> {
        let canonical = &self.bytes[self.canonical_at..];
        let id = scan::member(canonical, Field::AgentId.name()).and_then(scan::text);
        id.unwrap_or_default().into()
    }

    /// Fills the placeholders and returns the record, which is complete except for its hashes: see [`Record::seal`].
    pub fn stamp(mut self, stamp: &Stamp) -> Record {
        let canonical = &mut self.bytes[self.canonical_at..];
        if let Some(at) = self.placeholders.id {
            let id = server_id::make(stamp.id_ms, stamp.first_of_ms, stamp.position, stamp.random);
            id.hyphenated().encode_lower(&mut canonical[at..at + UUID_LEN]);
        }
        for at in [Some(self.placeholders.received_at), self.placeholders.timestamp].into_iter().flatten() {
            canonical[at..at + time::LEN].copy_from_slice(&stamp.received_at);
        }
        if let Some(at) = self.placeholders.salt {
            // 16 bytes fill the placeholder, so this cannot fail.
            let _ = BASE64_URL_SAFE_NO_PAD.encode_slice(stamp.salt, &mut canonical[at..at + SALT_LEN]);
        }
        self.bytes[SEQUENCE..PREV_HASH].copy_from_slice(&stamp.sequence.0.to_be_bytes());
        Record { bytes: self.bytes, canonical_at: self.canonical_at }
    }

    /// Whether this is the same event as `stored`: the agent and the content are equal, except for what the server
    /// filled in, `default_labels` included. An erased event is known by its id alone. See
    /// `docs/adr/0007-client-ids-are-claimed-then-looked-up.md`.
    pub fn is_same_event(&self, stored: RecordRef<'_>, default_labels: &DefaultLabels) -> bool {
        if stored.is_erased() {
            return self.agent == stored.agent();
        }
        let client_fields = |canonical| {
            scan::members(canonical).filter(|(key, _)| match Field::from_name(key) {
                // The caller found `stored` by this id; only the letter case may differ.
                Some(Field::Id) => false,
                Some(Field::Timestamp) => self.placeholders.timestamp.is_none(),
                Some(Field::Labels) => false,
                Some(field) => field.field_type() != FieldType::ServerSet,
                None => true,
            })
        };
        let (sent, stored) = (&self.bytes[self.canonical_at..], stored.canonical());
        let labels = |canonical| scan::member(canonical, Field::Labels.name());
        client_fields(sent).eq(client_fields(stored))
            && default_labels.same_labels(self.added_labels, labels(sent), labels(stored))
    }
}

const WARNINGS_KEY: &str = r#","validation_warnings":"#;

fn warnings_section<'w>(warnings: impl Iterator<Item = &'w String>) -> Vec<u8> {
    let mut section = vec![b'['];
    for (index, warning) in warnings.enumerate() {
        section.extend_from_slice(if index == 0 { b"" } else { b"," });
        cairn_proof::chain::string::write_string(warning, &mut section);
    }
    section.push(b']');
    let check = Sha256::digest(&section);
    section.extend_from_slice(&check[..WARNINGS_CHECK]);
    section
}

/// A record that owns its bytes.
#[derive(Clone)]
pub struct Record {
    bytes: Vec<u8>,
    canonical_at: usize,
}

impl Record {
    /// Copies a borrowed record, with spare capacity for the answer.
    pub fn copy(record: RecordRef<'_>) -> Record {
        let mut bytes = Vec::with_capacity(record.bytes.len() + record.answer_overhead());
        bytes.extend_from_slice(record.bytes);
        Record { bytes, canonical_at: record.canonical_at }
    }

    /// Sets the previous hash and the event's own hash, which is returned.
    pub fn seal(&mut self, prev_hash: &Hash) -> Hash {
        let hash = Hash::of_event(self.as_ref().canonical(), prev_hash);
        self.bytes[PREV_HASH..HASH].copy_from_slice(&prev_hash.0);
        self.bytes[HASH..WARNINGS_LEN].copy_from_slice(&hash.0);
        hash
    }

    /// A record with these bytes, whose canonical bytes begin at `canonical_at`.
    pub(super) fn of(bytes: Vec<u8>, canonical_at: usize) -> Record {
        Record { bytes, canonical_at }
    }

    /// Borrows the record.
    pub fn as_ref(&self) -> RecordRef<'_> {
        RecordRef { bytes: &self.bytes, canonical_at: self.canonical_at }
    }

    /// Turns the record into the answer that shows the stored event, in the same allocation.
    pub fn into_answer(mut self) -> RecordAnswer {
        let chain_fields = self.as_ref().chain_fields();
        let warnings = self.as_ref().warnings().map(<[u8]>::to_vec);
        self.bytes.pop();
        chain_fields.write(warnings.as_deref(), &mut self.bytes);
        RecordAnswer { bytes: self.bytes, at: self.canonical_at }
    }
}

/// An answer. Its bytes follow the header of the record that it was made from.
pub struct RecordAnswer {
    bytes: Vec<u8>,
    at: usize,
}

impl AsRef<[u8]> for RecordAnswer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

/// A borrowed record.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    bytes: &'a [u8],
    canonical_at: usize,
}

impl<'a> RecordRef<'a> {
    /// Parses a record.
    ///
    /// # Errors
    /// When the record is malformed or its warnings are damaged. The message says which.
    pub fn parse(bytes: &'a [u8]) -> Result<RecordRef<'a>, &'static str> {
        let (header, rest) = bytes.split_first_chunk::<WARNINGS>().ok_or("the record is truncated")?;
        if ![FORMAT, ERASED].contains(&header[0]) {
            return Err("unknown record format");
        }
        let len = u32::from_be_bytes([header[89], header[90], header[91], header[92]]) as usize;
        let section = rest.get(..len).ok_or("the warnings of the record are truncated")?;
        let record = RecordRef { bytes, canonical_at: WARNINGS + len };
        match section.split_last_chunk::<WARNINGS_CHECK>() {
            Some((warnings, check)) if Sha256::digest(warnings)[..WARNINGS_CHECK] != check[..] => {
                Err("the warnings are damaged")
            }
            None if len > 0 => Err("the warnings are damaged"),
            _ => Ok(record),
        }
    }

    /// The agent key in a record that cannot be parsed.
    pub fn agent_of_damaged(bytes: &[u8]) -> Option<AgentKey> {
        bytes.get(AGENT..SEQUENCE)?.try_into().ok().map(AgentKey)
    }

    /// The bytes of the whole record.
    pub fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Whether the content was erased: the record is a stub.
    pub fn is_erased(self) -> bool {
        self.bytes[0] == ERASED
    }

    /// The canonical bytes of the content, or of the stub.
    pub fn canonical(self) -> &'a [u8] {
        &self.bytes[self.canonical_at..]
    }

    /// The canonical value of a field of the content.
    pub fn value(self, field: Field) -> Option<&'a [u8]> {
        scan::member(self.canonical(), field.name())
    }

    /// The link of the event in its chain.
    pub fn link(self) -> Link<'a> {
        Link {
            agent: self.agent(),
            sequence: self.sequence(),
            prev_hash: self.prev_hash(),
            hash: self.hash(),
            canonical: (!self.is_erased()).then(|| self.canonical()),
        }
    }

    /// The agent of the event.
    pub fn agent(self) -> AgentKey {
        AgentKey(self.array(AGENT).unwrap_or_default())
    }

    /// The sequence of the event.
    pub fn sequence(self) -> Sequence {
        Sequence(self.array(SEQUENCE).map_or(0, u64::from_be_bytes))
    }

    /// The previous hash.
    pub fn prev_hash(self) -> Hash {
        self.array(PREV_HASH).map_or(Hash::GENESIS, Hash)
    }

    /// The hash.
    pub fn hash(self) -> Hash {
        self.array(HASH).map_or(Hash::GENESIS, Hash)
    }

    /// The time of receipt in ms since 1970; `None` if the content has none.
    pub fn received_ms(self) -> Option<u64> {
        self.value(Field::ReceivedAt).and_then(scan::text).and_then(|text| time::parse_ms(&text))
    }

    /// The warnings, a JSON array; `None` if there are none.
    pub fn warnings(self) -> Option<&'a [u8]> {
        let end = self.canonical_at.checked_sub(WARNINGS_CHECK).filter(|&end| end > WARNINGS)?;
        Some(&self.bytes[WARNINGS..end])
    }

    /// Appends the answer that shows the stored event.
    pub fn write_answer(self, out: &mut Vec<u8>) {
        let canonical = self.canonical();
        out.reserve(self.max_answer_len());
        out.extend_from_slice(&canonical[..canonical.len().saturating_sub(1)]);
        self.chain_fields().write(self.warnings(), out);
    }

    fn chain_fields(self) -> ChainFields {
        ChainFields { hash: self.hash(), prev_hash: self.prev_hash(), sequence: self.sequence() }
    }

    /// The maximum number of bytes that [`write_answer`](Self::write_answer) appends.
    pub fn max_answer_len(self) -> usize {
        self.canonical().len() + self.answer_overhead()
    }

    fn answer_overhead(self) -> usize {
        ANSWER_OVERHEAD + self.warnings().map_or(0, |warnings| WARNINGS_KEY.len() + warnings.len())
    }

    /// `N` bytes of the header, which `parse` has found to be complete.
    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.bytes.get(at..at + N)?.try_into().ok()
    }
}

/// The fields of an answer that are not part of the content, except for warnings.
struct ChainFields {
    hash: Hash,
    prev_hash: Hash,
    sequence: Sequence,
}

impl ChainFields {
    /// Appends the fields to the content, whose closing brace the caller has left out.
    fn write(&self, warnings: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#","hash":""#);
        out.extend_from_slice(&self.hash.hex());
        out.extend_from_slice(br#"","prev_hash":""#);
        out.extend_from_slice(&self.prev_hash.hex());
        out.extend_from_slice(br#"","sequence":"#);
        out.extend_from_slice(itoa::Buffer::new().format(self.sequence.0).as_bytes());
        if let Some(warnings) = warnings {
            out.extend_from_slice(WARNINGS_KEY.as_bytes());
            out.extend_from_slice(warnings);
        }
        out.push(b'}');
    }
}
