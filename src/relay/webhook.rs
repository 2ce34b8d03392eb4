//! The destination type `webhook`: posts batches of events as JSON lines. With a secret, each request is signed as Standard Webhooks
//! 1.0 specifies. Documented in `docs/relay.md`, section "Webhooks".

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cairn_proof::hex;
use hmac::{Hmac, KeyInit, Mac};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};

use super::batches::{json_lines, lane};
use super::destination::{BatchLimits, Destination, SendFuture, SessionKey};
use super::event::RelayEvent;
use super::upstream::Upstream;
use crate::runtime::now_ms;

/// The number of bytes of the hash of the body that identify a request.
const ID_BYTES: usize = 16;

/// A destination: one webhook.
pub struct Webhook {
    /// The key of the signatures; `None` if requests are not signed.
    pub key: Option<Vec<u8>>,
    /// How much a request holds.
    pub batch: BatchLimits,
    /// Sends the requests.
    pub upstream: Upstream,
}

impl Destination for Webhook {
    fn session(&self, event: &RelayEvent<'_>) -> SessionKey {
        lane(event)
    }

    fn batch(&self) -> BatchLimits {
        self.batch
    }

    fn send(&self, events: &[RelayEvent<'_>]) -> SendFuture {
        let body = json_lines(events);
        self.upstream.post_with(headers(self.key.as_deref(), now_ms() / 1000, &body), body)
    }
}

/// The headers of a request: its id, which is that of its body, so that a repeated request has the same one; when it was sent, in
/// seconds since 1970; and the signature of all three.
fn headers(key: Option<&[u8]>, seconds: u64, body: &[u8]) -> HeaderMap {
    let id = format!("msg_{}", hex::encode(&Sha256::digest(body)[..ID_BYTES]));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    let mut add = |name, value: &str| headers.extend(HeaderValue::try_from(value).ok().map(|value| (name, value)));
    let name = reqwest::header::HeaderName::from_static;
    add(name("webhook-id"), &id);
    add(name("webhook-timestamp"), &seconds.to_string());
    // A key of HMAC may have any length.
    if let Some(mut mac) = key.and_then(|key| Hmac::<Sha256>::new_from_slice(key).ok()) {
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        add(name("webhook-signature"), &format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_id_the_time_and_the_body() {
        // The expected values are from the modules hashlib and hmac of Python.
        let sent = headers(Some(&[7; 32]), 1_771_324_200, b"{\"a\":1}\n");
        assert_eq!(sent["webhook-id"], "msg_e346432021b04179518d9614f3560ccd");
        assert_eq!(sent["webhook-timestamp"], "1771324200");
        assert_eq!(sent["webhook-signature"], "v1,fu8vckP8xRUDb1swnouxA7h/ADJx0W9LWUg40F0aBT8=");
        assert!(!headers(None, 0, b"").contains_key("webhook-signature"));
    }
}
