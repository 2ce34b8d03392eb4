//! Who may call: `Authorization: Bearer KEY`.

use std::io;
use std::sync::Arc;

use ::metrics::Counter;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::config::AuthConfig;
use super::metrics;
use crate::http::Problem;

/// The keys that callers may use. Only their hashes are kept.
#[derive(Clone)]
pub struct Keys {
    hashes: Arc<[[u8; 32]]>,
    refused: Counter,
}

impl Keys {
    /// Reads the keys of the configuration and of the file that it names; `None` if there are none. Registers with the
    /// recorder that is in force.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(config: &AuthConfig) -> io::Result<Option<Keys>> {
        let mut keys: Vec<String> = config.api_keys.clone();
        if let Some(path) = &config.api_keys_file {
            let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            keys.extend(std::fs::read_to_string(path).map_err(named)?.lines().map(str::to_owned));
        }
        let hashes: Vec<[u8; 32]> = keys.iter().map(|key| key.trim()).filter(|key| !key.is_empty()).map(hash).collect();
        // A file without keys must not open the door.
        let wanted = !config.api_keys.is_empty() || config.api_keys_file.is_some();
        Ok(wanted.then(|| Keys { hashes: hashes.into(), refused: metrics::unauthorized() }))
    }

    /// Whether a request with these headers has one of them.
    ///
    /// # Errors
    /// 401 if it has not. It is counted.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = value.map(|value| value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")));
        let why = match key {
            Some(Some((_, key))) if self.allow(key.trim()) => return Ok(()),
            Some(Some(_)) => "this key is not known",
            Some(None) => "expected Authorization: Bearer KEY",
            None => "a key is needed: send Authorization: Bearer KEY",
        };
        self.refused.increment(1);
        Err(Problem::unauthorized(why))
    }

    /// Whether `key` is one of them. How long it takes says nothing about them: hashes are compared, all of them,
    /// in constant time.
    fn allow(&self, key: &str) -> bool {
        let offered = hash(key);
        let found = self.hashes.iter().fold(subtle::Choice::from(0), |found, known| found | known.ct_eq(&offered));
        found.into()
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Lets a request pass that has one of the keys.
pub async fn require_key(State(keys): State<Keys>, request: Request, next: Next) -> Response {
    match keys.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_key_file_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = AuthConfig { api_keys_file: Some(file.path().into()), ..AuthConfig::default() };
        let keys = Keys::load(&config).unwrap().unwrap();
        assert!(!keys.allow(""));
        std::fs::write(file.path(), "\n one \n\ntwo\n").unwrap();
        let keys = Keys::load(&config).unwrap().unwrap();
        assert!(keys.allow("one") && keys.allow("two") && !keys.allow("") && !keys.allow("on"));
        assert!(Keys::load(&AuthConfig::default()).unwrap().is_none());
    }
}
