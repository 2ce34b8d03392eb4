//! Offline verification of Cairn event chains, transparency logs and evidence packages.
//!
//! The crate implements the rules that `docs/verification.md` specifies:
//!
//! - [`chain`]: the fields of an event, its canonical bytes, its hash, and the chain of each agent;
//! - [`tree`]: the Merkle tree of the log (RFC 6962), its tiles, and its signed checkpoints (C2SP);
//! - [`evidence`]: the verification of an evidence package, and of a whole log by a monitor;
//! - [`files`]: keys, state files and copies of a log on disk. It is the only module that touches the file system.
//!
//! The crate contains no database, no network access, no async runtime and no clock. The Cairn server uses it to
//! validate and hash what it stores, so that the writer and the verifier share one implementation of each rule.
//!
//! The binary `cairn-verify` is the command-line interface of this crate; `docs/auditors.md` describes its use.
//!
//! # Verify a package
//!
//! ```
//! use cairn_proof::evidence::{self, Outcome};
//! use cairn_proof::files;
//!
//! // The key does not come with the package.
//! let keys = files::verifier_keys("testdata/log.vkey")?;
//! let verdict = evidence::verify(std::fs::File::open("testdata/package.json")?, &keys, || {})?;
//! println!("{verdict}");
//! assert_eq!(verdict.outcome(), Outcome::Valid);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Verify one link of a chain
//!
//! The hash of an event is SHA-256 over its canonical bytes followed by the previous hash as 64 hex digits. The
//! previous hash of the first event of a chain is 64 zeros.
//!
//! ```
//! use cairn_proof::chain::walk::Checker;
//! use cairn_proof::chain::{AgentKey, Hash, Link, Sequence, Walk, canonicalize};
//!
//! let content = r#"{"agent_id": "my-agent", "action_type": "CUSTOM"}"#;
//! let canonical = canonicalize(content)?;
//! let hash = Hash::of_event(&canonical, &Hash::GENESIS);
//! assert_eq!(hash.to_string(), "bc2608919aca4653993c39b0adae5e43b448737c4174abad3f28ede06208cd13");
//!
//! let link = Link {
//!     agent: AgentKey::of("my-agent"),
//!     sequence: Sequence(1),
//!     prev_hash: Hash::GENESIS,
//!     hash,
//!     canonical: Some(&canonical),
//! };
//! let mut walk = Walk::default();
//! walk.step(&link, &mut Checker::default())?;
//! assert_eq!(walk.sequence, Sequence(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Canonicalize a value
//!
//! ```
//! let canonical = cairn_proof::chain::canonicalize(r#"{ "b": 1.0, "a": "\u00e9" }"#)?;
//! assert_eq!(canonical, r#"{"a":"é","b":1}"#.as_bytes());
//! # Ok::<(), cairn_proof::chain::json::Error>(())
//! ```

#![deny(missing_docs)]

pub mod chain;
pub mod evidence;
pub mod files;
pub mod hex;
pub mod plural;
pub mod sanitize;
pub mod tree;
