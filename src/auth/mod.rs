//! Authentication: keys with their scopes, and a rate limit for each client.

mod config;
mod guard;
mod keys;
mod rate_limit;

pub use config::AuthConfig;
pub use guard::{Client, Guard, Need, identify, require};
pub use keys::{KeyError, Keys, Scopes, check, hash_keys, plain};
pub use rate_limit::RateLimiter;
