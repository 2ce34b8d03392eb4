//! Answers and errors, all of them JSON.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;

/// How long a sender should wait before it tries again, in seconds.
const RETRY_AFTER_S: u32 = 1;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer whose body is JSON already.
pub fn json_response(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// An error, as it is answered: `{"error":"..."}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Who must act: 4xx the sender, 503 the operator or time, 500 the developer.
    pub status: StatusCode,
    /// What is wrong, and what was expected.
    pub message: Cow<'static, str>,
    /// How long to wait before the same request is sent again, in seconds, if that may help.
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { status, message: message.into(), retry_after_s: None }
    }

    /// 400: the request, or the event in it, is wrong.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: no key, or a wrong one.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: the key is known, and not good for this.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: there is no such thing.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 405: the path exists, but not for this method.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; see the Allow header")
    }

    /// 408: the body came too slowly.
    pub fn timeout(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// 409: the id belongs to another event.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// 413: too large, as sent or after inflating.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 415: a content type or encoding that is not taken.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// 429: more than this client may send. The same request may be sent again after `wait`.
    pub fn too_many(message: impl Into<Cow<'static, str>>, wait: Duration) -> ApiError {
        let seconds = u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
        let problem = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
        ApiError { retry_after_s: Some(seconds), ..problem }
    }

    /// 503: not now. The same request may be sent again.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> ApiError {
        let problem = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
        ApiError { retry_after_s: Some(RETRY_AFTER_S), ..problem }
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.retry_after_s.is_some()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let body = serde_json::json!({ "error": self.message }).to_string();
        let mut response = json_response(self.status, body);
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // For those who say it in another form.
        response.extensions_mut().insert(self);
        response
    }
}

/// Says that part of an answer may be tried again.
pub fn retry_after(response: &mut Response<Body>) {
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
}
