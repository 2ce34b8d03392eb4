//! The responses of OTLP/HTTP and OTLP/gRPC, in the encoding of the request.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, Version, header};
use axum::middleware::Next;
use buffa::types::{put_int32_field, put_int64_field, put_len_delimited_header, put_string_field};
use serde_json::json;

use super::request::Signal;
use crate::http::{ApiError, grpc};

/// What became of the items of a request that are not simply stored.
#[derive(Debug, Default)]
pub struct Remarks {
    /// The items that can never be events.
    rejected: Counted,
    /// The items that are stored with a warning.
    warned: Counted,
    /// A remark about the request as a whole.
    request: String,
}

/// A number of items, and what there is to say about the first one.
#[derive(Debug, Default)]
struct Counted {
    count: u64,
    first: String,
}

impl Counted {
    fn add(&mut self, index: usize, reason: &str) {
        if self.count == 0 {
            self.first = format!("index {index}: {reason}");
        }
        self.count += 1;
    }
}

impl Remarks {
    /// A remark about the request as a whole.
    pub fn of_request(message: String) -> Remarks {
        Remarks { request: message, ..Remarks::default() }
    }

    /// Adds an item that was rejected.
    pub fn reject(&mut self, index: usize, reason: &str) {
        self.rejected.add(index, reason);
    }

    /// Adds an item that is stored with a warning.
    pub fn warn(&mut self, index: usize, warning: &str) {
        self.warned.add(index, warning);
    }

    /// The number of rejected items.
    pub fn rejected(&self) -> u64 {
        self.rejected.count
    }

    /// The message for the sender; empty if there is nothing to say.
    pub fn message(&self, signal: Signal) -> String {
        let item = signal.item();
        let sentence = |counted: &Counted, what: &str| match counted.count {
            0 => None,
            1 => Some(format!("1 {item} was {what}, {}", counted.first)),
            count => Some(format!("{count} {item}s were {what}, the first one at {}", counted.first)),
        };
        let request = Some(self.request.clone()).filter(|message| !message.is_empty());
        let sentences =
            [sentence(&self.rejected, "rejected"), sentence(&self.warned, "stored with a warning"), request];
        sentences.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// The encoding of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-protobuf`
    Protobuf,
    /// `application/json`
    Json,
    /// Protobuf, as a message of gRPC.
    Grpc,
}

impl Encoding {
    /// The encoding that the `Content-Type` names.
    ///
    /// # Errors
    /// 415 if it is another one, or missing.
    pub fn of(headers: &HeaderMap) -> Result<Encoding, ApiError> {
        let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = sent.split(';').next().unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case("application/x-protobuf") {
            return Ok(Encoding::Protobuf);
        }
        if essence.eq_ignore_ascii_case("application/json") {
            return Ok(Encoding::Json);
        }
        if grpc::is_grpc(headers) {
            return Ok(Encoding::Grpc);
        }
        let found = if sent.is_empty() { "none" } else { sent };
        let message = format!("Content-Type: expected application/x-protobuf or application/json, found {found}");
        Err(ApiError::unsupported(message))
    }

    /// A response with a body in this encoding.
    fn response(self, body: Vec<u8>) -> Response<Body> {
        let content_type = HeaderValue::from_static(match self {
            Encoding::Grpc => return grpc::success(&body),
            Encoding::Protobuf => "application/x-protobuf",
            Encoding::Json => "application/json",
        });
        let mut response = Response::new(Body::from(body));
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response
    }
}

/// 200 and an `ExportTraceServiceResponse` or `ExportLogsServiceResponse`.
pub fn success(encoding: Encoding, signal: Signal, remarks: &Remarks) -> Response<Body> {
    // In OTLP, a message without rejected items is a warning.
    let (count, message) = (remarks.rejected(), remarks.message(signal));
    let name = match signal {
        Signal::Traces => "rejectedSpans",
        Signal::Logs => "rejectedLogRecords",
    };
    let body = match encoding {
        _ if message.is_empty() => return empty(encoding),
        // In ProtoJSON, 64-bit integers are strings.
        Encoding::Json => {
            json!({ "partialSuccess": { name: count.to_string(), "errorMessage": message } }).to_string().into()
        }
        Encoding::Protobuf | Encoding::Grpc => {
            let mut partial = Vec::new();
            put_int64_field(1, i64::try_from(count).unwrap_or(i64::MAX), &mut partial);
            put_string_field(2, &message, &mut partial);
            let mut body = Vec::new();
            put_len_delimited_header(1, partial.len() as u64, &mut body);
            body.extend_from_slice(&partial);
            body
        }
    };
    encoding.response(body)
}

/// 200 and an empty response message.
pub fn empty(encoding: Encoding) -> Response<Body> {
    encoding.response(if encoding == Encoding::Json { b"{}".to_vec() } else { Vec::new() })
}

/// Middleware that writes errors as the exporters expect them: as the status of a call of gRPC, or as a `google.rpc.Status` in the
/// encoding of the request, in JSON if the request has neither encoding.
pub async fn with_status(request: Request, next: Next) -> Response<Body> {
    let encoding = Encoding::of(request.headers()).unwrap_or(Encoding::Json);
    if encoding == Encoding::Grpc && request.version() != Version::HTTP_2 {
        return grpc::failure(ApiError::unsupported("gRPC needs HTTP/2"));
    }
    let response = next.run(request).await;
    let Some(error) = response.extensions().get::<ApiError>().cloned() else { return response };
    let code = rpc_code(error.status);
    let body = match encoding {
        Encoding::Json => json!({ "code": code, "message": error.message }).to_string().into(),
        Encoding::Protobuf => {
            let mut body = Vec::new();
            put_int32_field(1, code, &mut body);
            put_string_field(2, &error.message, &mut body);
            body
        }
        Encoding::Grpc => {
            let mut failed = grpc::failure(error);
            failed.extensions_mut().extend(response.into_parts().0.extensions);
            return failed;
        }
    };
    let (mut parts, (with_type, body)) = (response.into_parts().0, encoding.response(body).into_parts());
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.extend(with_type.headers);
    Response::from_parts(parts, body)
}

/// The `google.rpc.Code` for an HTTP status.
fn rpc_code(status: StatusCode) -> i32 {
    match status {
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::TOO_MANY_REQUESTS => 8,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => 12,
        StatusCode::PAYLOAD_TOO_LARGE => 11,
        StatusCode::REQUEST_TIMEOUT => 4,
        StatusCode::SERVICE_UNAVAILABLE => 14,
        StatusCode::INTERNAL_SERVER_ERROR => 13,
        _ => 3,
    }
}
