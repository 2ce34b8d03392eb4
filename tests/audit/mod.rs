//! Reading and verifying: queries, chains, packages, and independent implementations of the rules.

pub mod export;
pub mod oracle;
pub mod packages;
pub mod packages_in_part;
pub mod query;
pub mod vectors;
pub mod verify;
