//! Verifies what Cairn recorded, with nothing but what the sender handed over and a key that the auditor trusts.
//!
//! The crate holds the rules: what an event is ([`chain`]), how events are linked and hashed ([`chain::link`]), how the log's Merkle
//! tree is built and signed ([`tree`]), and how an evidence package and a whole log are checked ([`evidence`]). It contains no database,
//! no network, no async runtime and no clock. Only [`files`] touches the file system. The server uses the same code for
//! what it writes, so both sides follow one set of rules; `docs/verification.md` is the specification.
//!
//! # Verify a package
//!
//! ```no_run
//! use cairn_proof::evidence::{self, Outcome};
//!
//! let keys = vec!["my/log+1a2b3c4d+AQ...".to_owned()];
//! let verdict = evidence::verify(std::fs::File::open("evidence.json")?, &keys, || {})?;
//! println!("{verdict}");
//! assert_eq!(verdict.outcome(), Outcome::Valid);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Verify one event by hand
//!
//! The hash of an event is SHA-256 over its canonical bytes, followed by the previous hash as 64 hex digits. The first event of a chain
//! follows 64 zeros.
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
//!     canonical: &canonical,
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
pub mod sanitize;
pub mod tree;
