//! Authentication and rate limits: API keys with scopes, and a limit of events per second for each client.
//!
//! The rules are specified in `docs/security.md`, section "Who may call". Transport security is in [`crate::http`].

mod config;
mod guard;
mod keys;
mod rate_limit;

pub use config::AuthConfig;
pub use guard::{Client, Guard, RequiredScopes, identify, require};
pub use keys::{KeyError, Keys, Scopes, check, fingerprint, hash_keys, plain_key, scopes_of};
pub use rate_limit::RateLimiter;
