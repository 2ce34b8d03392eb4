//! Responses and errors in JSON. Errors are specified in `docs/http-api.md`, section "Errors".

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;

/// The `Retry-After` of a 503 response, in seconds.
const RETRY_AFTER_S: u32 = 1;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A response whose body is already JSON.
pub fn json_response(status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

/// Marks a response whose refusal is already in the process log: the front does not log it a second time.
#[derive(Debug, Clone, Copy)]
pub struct Logged;

/// An error response: `{"error":"..."}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// The status, which shows who must act: 4xx the sender, 503 the operator or nobody, 500 the developer.
    pub status: StatusCode,
    /// What is wrong and what was expected.
    pub message: Cow<'static, str>,
    /// After how many seconds the same request may succeed; `None` if it must not be repeated.
    pub retry_after_s: Option<u32>,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { status, message: message.into(), retry_after_s: None }
    }

    /// 400: the request, or an event in it, is invalid.
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, message)
    }

    /// 401: no API key, or an unknown one.
    pub fn unauthorized(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, message)
    }

    /// 403: the API key does not permit this request.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, message)
    }

    /// 404: the requested item does not exist.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, message)
    }

    /// 405: the path does not support the method.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not support this method; see the Allow header")
    }

    /// 408: the body arrived too slowly.
    pub fn timeout(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::REQUEST_TIMEOUT, message)
    }

    /// 409: the id belongs to a different event.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, message)
    }

    /// 413: too large, as sent or after decompression.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    /// 415: the content type or content encoding is not supported.
    pub fn unsupported(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// 431: the head of the request is too large.
    pub fn header_too_large(message: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message)
    }

    /// 429: the client exceeds its rate limit. The same request may be sent again after `wait`.
    pub fn too_many(message: impl Into<Cow<'static, str>>, wait: Duration) -> ApiError {
        let seconds = u32::try_from(wait.as_secs().saturating_add(1)).unwrap_or(u32::MAX);
        let error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, message);
        ApiError { retry_after_s: Some(seconds), ..error }
    }

    /// 503: the request cannot be served now and may be sent again.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> ApiError {
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
        ApiError { retry_after_s: Some(RETRY_AFTER_S), ..error }
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
        if self.status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd, deflate"));
        }
        // OTLP converts the error to a form of its own, and the front counts and logs it.
        response.extensions_mut().insert(self);
        response
    }
}

/// Sets `Retry-After`, because part of the request may be sent again.
pub fn set_retry_after(response: &mut Response<Body>) {
    response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
}
