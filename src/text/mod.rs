//! Text that people write or read: settings, units, suggestions, and untrusted text.

mod did_you_mean;
pub mod glob;
pub mod settings;
pub mod units;

pub use cairn_proof::plural::plural;
pub use cairn_proof::sanitize::sanitize;
pub use did_you_mean::did_you_mean;
