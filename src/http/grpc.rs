//! gRPC over HTTP/2, as far as unary calls need it: the prefix of a message, and the status in the trailers.
//!
//! The source of the rules is the protocol specification of gRPC, "gRPC over HTTP2". A message is read by the code that reads other
//! bodies, so that it has the same bounds in bytes, time and memory.

use std::future::ready;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::response::ApiError;

/// The header that names the encoding of compressed messages.
pub const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// The header that lists the encodings that the server understands.
const ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// The trailer with the code of the status.
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// The encodings of bodies.
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity,gzip,zstd,deflate");
/// The length of the prefix of a message: whether it is compressed, and its length as u32.
const PREFIX: usize = 5;

/// Whether a request is a gRPC call with protobuf messages.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let sent = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let essence = sent.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    essence.eq_ignore_ascii_case(b"application/grpc") || essence.eq_ignore_ascii_case(b"application/grpc+proto")
}

/// The only message of a body, and whether it is compressed.
///
/// # Errors
/// 400 if the body is not exactly one message.
pub fn message(mut body: Bytes) -> Result<(Bytes, bool), ApiError> {
    let Some((compressed, length)) =
        body.first_chunk::<PREFIX>().map(|[compressed, length @ ..]| (*compressed, *length))
    else {
        return Err(ApiError::bad_request("expected one gRPC message, found none"));
    };
    let message = body.split_off(PREFIX);
    let length = u32::from_be_bytes(length);
    if usize::try_from(length) != Ok(message.len()) {
        let found = message.len();
        return Err(ApiError::bad_request(format!("expected one gRPC message of {length} bytes, found {found} bytes")));
    }
    match compressed {
        0 | 1 => Ok((message, compressed == 1)),
        flag => Err(ApiError::bad_request(format!("the flag of a gRPC message: expected 0 or 1, found {flag}"))),
    }
}

/// The response of a call that succeeded.
pub fn success(message: &[u8]) -> Response<Body> {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    // A response is a few hundred bytes long.
    body.put_u32(message.len() as u32);
    body.put_slice(message);
    let trailers = HeaderMap::from_iter([(STATUS, HeaderValue::from_static("0"))]);
    let body = Full::new(body.freeze()).with_trailers(ready(Some(Ok(trailers))));
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(ACCEPT_ENCODING, ENCODINGS);
    response
}

/// The response of a call that failed. The front counts and logs it by the status of `error`.
pub fn failure(error: ApiError) -> Response<Body> {
    let retry_after = error.retry_after_s.map(|seconds| Duration::from_secs(seconds.into()));
    let (code, message) = (code(error.status), error.message.clone());
    let status = match retry_after {
        None => Status::new(code, message),
        delay => Status::with_error_details(code, message, ErrorDetails::with_retry_info(delay)),
    };
    let mut response = status.into_http::<Body>();
    response.headers_mut().insert(ACCEPT_ENCODING, ENCODINGS);
    response.extensions_mut().insert(error);
    response
}

/// The code for a status. What exporters send again by the rules of OTLP is only sent again if that can succeed.
fn code(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Code::Unimplemented
        }
        // Exporters send it again only if it says when.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            Code::ResourceExhausted
        }
        StatusCode::REQUEST_TIMEOUT => Code::DeadlineExceeded,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::INTERNAL_SERVER_ERROR => Code::Internal,
        _ => Code::InvalidArgument,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_exactly_one_message() {
        let body = |bytes: &'static [u8]| message(Bytes::from_static(bytes)).map_err(|error| error.status.as_u16());
        assert_eq!(body(b"\0\0\0\0\0"), Ok((Bytes::new(), false)));
        assert_eq!(body(b"\x01\0\0\0\x02ab"), Ok((Bytes::from_static(b"ab"), true)));
        for wrong in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x02abc",
            b"\0\0\0\0\0\0\0\0\0\0",
            b"\x02\0\0\0\0",
            b"\0\xff\xff\xff\xff",
        ] {
            assert_eq!(body(wrong), Err(400), "{wrong:?}");
        }
    }

    #[test]
    fn a_call_is_known_by_its_content_type() {
        let is_grpc = |sent: &str| is_grpc(&HeaderMap::from_iter([(header::CONTENT_TYPE, sent.parse().unwrap())]));
        for sent in ["application/grpc", "Application/gRPC+proto", "application/grpc; charset=utf-8"] {
            assert!(is_grpc(sent), "{sent}");
        }
        for sent in ["application/grpc+json", "application/grpc-web", "application/x-protobuf", ""] {
            assert!(!is_grpc(sent), "{sent}");
        }
    }
}
