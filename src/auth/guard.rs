//! The door: which key a call needs, and whose call it is.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, counter, describe_counter};

use super::keys::{Keys, Scopes};
use crate::http::{ApiError, Peer};

/// Whose call it is, as far as rates are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Client {
    /// Whoever has this key.
    Key(u64),
    /// Whoever calls from there.
    Peer(Peer),
}

/// Lets calls in that have a key, if keys are in force.
pub struct Guard {
    keys: ArcSwapOption<Keys>,
    refused: Counter,
}

impl Guard {
    /// With these keys. Registers with the recorder that is in force.
    pub fn new(keys: Option<Keys>) -> Arc<Guard> {
        describe_counter!("cairn_unauthorized_requests_total", "Requests without a key that is known and may do it.");
        let refused = counter!("cairn_unauthorized_requests_total");
        let guard = Guard { keys: ArcSwapOption::empty(), refused };
        guard.change(keys);
        Arc::new(guard)
    }

    /// These keys, from the next call on.
    pub fn change(&self, keys: Option<Keys>) {
        if keys.as_ref().is_some_and(Keys::is_empty) {
            tracing::warn!("there is no key in auth.api_keys_file: nobody may call");
        }
        self.keys.store(keys.map(Arc::new));
    }

    /// Whose call it is, if it may be made.
    ///
    /// # Errors
    /// 401 if it has no key that is known, 403 if that may not do what is needed. Both are counted.
    pub fn check(&self, headers: &HeaderMap, peer: Peer, needed: Scopes) -> Result<Client, ApiError> {
        self.identify(headers, peer).and_then(|caller| self.allow(caller, needed))
    }

    fn identify(&self, headers: &HeaderMap, peer: Peer) -> Result<Caller, ApiError> {
        let keys = self.keys.load();
        let Some(keys) = keys.as_deref() else { return Ok(Caller { client: Client::Peer(peer), scopes: Scopes::ALL }) };
        find(keys, headers).inspect_err(|_| self.refused.increment(1))
    }

    fn allow(&self, caller: Caller, needed: Scopes) -> Result<Client, ApiError> {
        if caller.scopes.cover(needed) {
            return Ok(caller.client);
        }
        self.refused.increment(1);
        let (has, needed) = (caller.scopes.names(), needed.names());
        Err(ApiError::forbidden(format!("this key may do {has}, and the call needs {needed}")))
    }
}

/// Who calls, and what they may do.
#[derive(Debug, Clone, Copy)]
struct Caller {
    client: Client,
    scopes: Scopes,
}

fn find(keys: &Keys, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let value = value.ok_or_else(|| ApiError::unauthorized("a key is needed: send Authorization: Bearer KEY"))?;
    let key =
        value.split_once(' ').filter(|(scheme, key)| scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty());
    let (_, key) = key.ok_or_else(|| ApiError::unauthorized("expected Authorization: Bearer KEY"))?;
    let (scopes, number) = keys.find(key.trim()).ok_or_else(|| ApiError::unauthorized("this key is not known"))?;
    Ok(Caller { client: Client::Key(number), scopes })
}

/// Lets a call pass whose key is known, whatever it calls.
pub async fn identify(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    // Every connection says who is there.
    let peer = request.extensions().get().copied().unwrap_or(Peer::Local);
    match guard.identify(request.headers(), peer) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

/// What some calls need.
#[derive(Clone)]
pub struct Need {
    /// Who lets them in.
    pub guard: Arc<Guard>,
    /// What their key has to be good for.
    pub scopes: Scopes,
}

/// Lets a call pass that was [identified](identify) and may be made, and says whose it is.
pub async fn require(State(need): State<Need>, mut request: Request, next: Next) -> Response {
    let nobody = || ApiError::unauthorized("a key is needed: send Authorization: Bearer KEY");
    let caller = request.extensions().get::<Caller>().copied().ok_or_else(nobody);
    match caller.and_then(|caller| need.guard.allow(caller, need.scopes)) {
        Ok(client) => {
            request.extensions_mut().insert(client);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}
