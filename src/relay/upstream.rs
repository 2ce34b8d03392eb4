//! HTTP requests to an upstream, and the classification of their responses.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, StatusCode, redirect, retry};

use super::config::DestinationConfig;
use super::destination::{Outcome, Reason, SendFuture, SendResult};
use crate::http::ErrorChain;
use crate::text::settings::InvalidSetting;

/// Most bytes of a response body that are read; the rest is dropped with its connection.
const ANSWER_BYTES: usize = 4096;
/// The longest wait that an upstream can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60 * 60);

/// An upstream that is reached over HTTP.
pub struct Upstream {
    client: Client,
    endpoint: String,
    /// The secrets that are replaced in responses, because an upstream may repeat them.
    secrets: Arc<[String]>,
}

impl Upstream {
    /// The upstream of a destination. `headers` are sent with every request; `secrets` are replaced in responses.
    ///
    /// Connections are kept alive and use HTTP/2 where TLS negotiates it. Proxies are those of the usual environment
    /// variables.
    ///
    /// # Errors
    /// When the endpoint or the certificates cannot be used.
    pub fn new(
        config: &DestinationConfig,
        key: &str,
        mut headers: HeaderMap,
        secrets: Vec<String>,
    ) -> Result<Upstream, InvalidSetting> {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        let endpoint = config.url(key)?.as_str().trim_end_matches('/').to_owned();
        let client = Client::builder()
            .user_agent(concat!("cairn/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .timeout(config.timeout)
            .pool_max_idle_per_host(config.concurrency)
            .redirect(redirect::Policy::none())
            // Retries are decided in one place, the consumer.
            .retry(retry::never())
            .tls_certs_merge(config.certificates(key)?)
            .build();
        let unusable = |error: reqwest::Error| {
            InvalidSetting::new(format!("{key}.ca_file"), "valid certificates", ErrorChain(&error))
        };
        Ok(Upstream { client: client.map_err(unusable)?, endpoint, secrets: secrets.into() })
    }

    /// The base URL.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Posts a JSON body.
    pub fn post(&self, path: &str, body: Vec<u8>) -> SendFuture {
        self.send(self.client.post(format!("{}{path}", self.endpoint)).body(body), Arc::clone(&self.secrets))
    }

    /// Posts a body with further headers.
    pub fn post_with(&self, headers: HeaderMap, body: Vec<u8>) -> SendFuture {
        self.send(self.client.post(&self.endpoint).headers(headers).body(body), Arc::clone(&self.secrets))
    }

    /// Posts a JSON body for another organization: `header` is sent with the value `secret`, which is replaced in the
    /// response.
    pub fn post_as(&self, header: &'static str, secret: &str, path: &str, body: Vec<u8>) -> SendFuture {
        let request = self.client.post(format!("{}{path}", self.endpoint)).header(header, secret).body(body);
        self.send(request, Arc::new([secret.to_owned()]))
    }

    fn send(&self, request: RequestBuilder, secrets: Arc<[String]>) -> SendFuture {
        Box::pin(async move {
            let started = Instant::now();
            let (outcome, status) = match request.send().await {
                Ok(response) => {
                    let status = response.status();
                    (classify(response, &secrets).await, Some(status.as_u16()))
                }
                Err(error) => (transport_failure(&error), None),
            };
            SendResult { outcome, status, duration: started.elapsed() }
        })
    }
}

fn transport_failure(error: &reqwest::Error) -> Outcome {
    let reason = match error {
        error if error.is_timeout() => Reason::Timeout,
        error if error.is_connect() => Reason::Connect,
        _ => Reason::Broken,
    };
    Outcome::Failed { reason, message: ErrorChain(error).to_string(), retry_after: None }
}

/// Classifies a response: 2xx is an acknowledgement; 4xx is permanent except 401, 403, 408 and 429.
async fn classify(response: Response, secrets: &[String]) -> Outcome {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let answer = match read_start(response).await {
        Ok(answer) => secrets.iter().fold(answer, |answer, secret| answer.replace(secret, "[REDACTED]")),
        // The status alone acknowledges the event, even if the body cannot be read.
        Err(_) if status.is_success() => String::new(),
        Err(error) => return transport_failure(&error),
    };
    let reason = match status {
        status if status.is_success() => return Outcome::Delivered,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Reason::Unauthorized,
        StatusCode::REQUEST_TIMEOUT => Reason::RequestTimeout,
        StatusCode::TOO_MANY_REQUESTS => Reason::RateLimited,
        status if status.is_client_error() => return Outcome::Refused { status: status.as_u16(), answer },
        status if status.is_redirection() => Reason::Redirect,
        _ => Reason::ServerError,
    };
    Outcome::Failed { reason, message: format!("{status}: {answer}"), retry_after }
}

async fn read_start(mut response: Response) -> reqwest::Result<String> {
    let mut start = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        start.extend_from_slice(&chunk);
        if start.len() > ANSWER_BYTES {
            start.truncate(ANSWER_BYTES);
            break;
        }
    }
    Ok(String::from_utf8_lossy(&start).into_owned())
}

/// The value of `Retry-After` (RFC 9110, section 10.2.3), as seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        // A date that has passed asks for no wait.
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let cases = [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ];
        for (text, expected) in cases {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
