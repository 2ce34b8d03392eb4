//! Checks the API key of each request and determines the client that sent it.
//!
//! [`Guard`] owns the current keys. Which scope a route needs is decided in `serve`.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use metrics::{Counter, counter, describe_counter};

use super::keys::{Keys, Scopes};
use crate::http::{ApiError, Peer};

/// The client that the rate limit counts events for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// All requests with this API key, identified by the first 8 bytes of its SHA-256.
    Key(u64),
    /// All requests from this peer, when no API keys are configured.
    Peer(Peer),
}

/// Rejects requests without a valid API key, if API keys are configured.
pub struct Guard {
    keys: ArcSwapOption<Keys>,
    rejected: Counter,
}

impl Guard {
    /// A guard with these keys; `None` accepts every request. Registers its metrics with the current recorder.
    pub fn new(keys: Option<Keys>) -> Arc<Guard> {
        describe_counter!(
            "cairn_unauthorized_requests_total",
            "Requests rejected because their API key is missing, unknown or lacks the required scope."
        );
        let rejected = counter!("cairn_unauthorized_requests_total");
        let guard = Guard { keys: ArcSwapOption::empty(), rejected };
        guard.set_keys(keys);
        Arc::new(guard)
    }

    /// Replaces the keys, from the next request on.
    pub fn set_keys(&self, keys: Option<Keys>) {
        if keys.as_ref().is_some_and(Keys::is_empty) {
            tracing::warn!("no API keys found in auth.api_keys_file: all requests will be rejected");
        }
        self.keys.store(keys.map(Arc::new));
    }

    /// The fingerprints of the keys; `None` if no keys are configured.
    pub fn fingerprints(&self) -> Option<Vec<String>> {
        self.keys.load().as_deref().map(Keys::fingerprints)
    }

    /// Whether keys are configured, so that a request needs one.
    pub fn has_keys(&self) -> bool {
        self.keys.load().is_some()
    }

    /// Returns the client of a request that is permitted.
    ///
    /// # Errors
    /// 401 if the request has no key or an unknown key, 403 if its key lacks a needed scope. Both are counted.
    pub fn check(&self, headers: &HeaderMap, peer: Peer, needed: Scopes) -> Result<Client, ApiError> {
        self.identify(headers, peer).and_then(|caller| self.allow(caller, needed))
    }

    fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, ApiError> {
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Ok(Caller { client: Client::Peer(peer), scopes: Scopes::ALL }) };
        find(keys, headers).inspect_err(|_| self.rejected.increment(1))
    }

    fn allow(&self, caller: Caller, needed: Scopes) -> Result<Client, ApiError> {
        if caller.scopes.contains(needed) {
            return Ok(caller.client);
        }
        self.rejected.increment(1);
        if let Client::Peer(_) = caller.client {
            let needed = needed.names();
            return Err(ApiError::unauthorized(format!(
                "this request needs an API key with the scope {needed} (auth.api_keys)"
            )));
        }
        let (has, needed) = (caller.scopes.names(), needed.names());
        Err(ApiError::forbidden(format!("this key permits {has}, but this request needs {needed}")))
    }
}

/// An identified caller and its scopes.
#[derive(Debug, Clone, Copy)]
struct Caller {
    client: Client,
    scopes: Scopes,
}

fn find(keys: &Keys, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let value =
        value.ok_or_else(|| ApiError::unauthorized("an API key is required: send Authorization: Bearer KEY"))?;
    let found = match value.split_once(' ').map(|(scheme, key)| (scheme.to_ascii_lowercase(), key.trim())) {
        Some((scheme, key)) if scheme == "bearer" && !key.is_empty() => keys.find(key),
        Some((scheme, pair)) if scheme == "basic" => find_basic(keys, pair),
        _ => return Err(ApiError::unauthorized("expected Authorization: Bearer KEY")),
    };
    let (scopes, number) = found.ok_or_else(|| ApiError::unauthorized("unknown API key"))?;
    Ok(Caller { client: Client::Key(number), scopes })
}

/// The key of HTTP Basic credentials, which the SDKs of Langfuse send: the pair `public:secret`, or the secret alone.
fn find_basic(keys: &Keys, pair: &str) -> Option<(Scopes, u64)> {
    let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
    let (_, secret) = pair.split_once(':')?;
    keys.find(&pair).or_else(|| if secret.is_empty() { None } else { keys.find(secret) })
}

/// Middleware that rejects requests without a known key, whatever they request, and attaches the caller for
/// [`require`].
pub async fn identify(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    // The connection attaches the peer to every request.
    let peer = request.extensions().get().copied().unwrap_or(Peer::Local);
    match guard.identify(request.headers(), peer) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// The state of the middleware [`require`]: the scopes that a group of routes needs.
#[derive(Clone)]
pub struct RequiredScopes {
    /// Checks the scopes and counts rejected requests.
    pub guard: Arc<Guard>,
    /// The scopes that the key must have.
    pub scopes: Scopes,
}

/// Middleware that rejects requests whose [identified](identify) caller lacks the needed scopes, and attaches the
/// [`Client`].
pub async fn require(State(required): State<RequiredScopes>, mut request: Request, next: Next) -> Response {
    let unidentified = || ApiError::unauthorized("an API key is required: send Authorization: Bearer KEY");
    let caller = request.extensions().get::<Caller>().copied().ok_or_else(unidentified);
    match caller.and_then(|caller| required.guard.allow(caller, required.scopes)) {
        Ok(client) => {
            request.extensions_mut().insert(client);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}
