//! Reading and verification: queries, verification of a ledger, evidence packages, and the rules against independent
//! implementations.

pub mod backup;
pub mod earlier_versions;
pub mod export;
pub mod oracle;
pub mod packages;
pub mod partial_packages;
pub mod query;
pub mod readers;
pub mod rows;
pub mod vectors;
pub mod verify;
