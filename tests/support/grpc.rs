//! A client for unary calls of gRPC. It shares no code with the server under test.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http_body_util::BodyExt;

/// The services of OTLP.
pub const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
pub const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
pub const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

/// What a call has answered.
#[derive(Debug)]
pub struct Called {
    /// The code of the status.
    pub code: u32,
    /// The message of the status, percent-encoded.
    pub message: String,
    /// The details of the status: a `google.rpc.Status`.
    pub details: Vec<u8>,
    /// The message of the response, without its prefix.
    pub body: Vec<u8>,
    /// The headers and trailers.
    pub fields: HashMap<String, String>,
}

/// A message with its prefix.
pub fn framed(is_compressed: bool, message: &[u8]) -> Vec<u8> {
    [&[u8::from(is_compressed)], &(message.len() as u32).to_be_bytes()[..], message].concat()
}

/// A client that speaks HTTP/2 only.
pub fn client() -> reqwest::Client {
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

/// Calls a method with these bytes as the body.
pub async fn call_with(url: &str, method: &str, fields: &[(&str, &str)], body: Vec<u8>) -> Called {
    let mut request = client().post(format!("{url}{method}")).header("content-type", "application/grpc");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = request.header("te", "trailers").body(body).send().await.unwrap();
    assert_eq!(response.status(), 200, "{method}");
    let response: axum::http::Response<reqwest::Body> = response.into();
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let mut fields = HashMap::new();
    for (name, value) in head.headers.iter().chain(&trailers) {
        fields.insert(name.as_str().to_owned(), value.to_str().unwrap().to_owned());
    }
    let body: Bytes = collected.to_bytes();
    if !body.is_empty() {
        assert_eq!(body[..5], framed(false, &body[5..])[..5], "one message");
        assert!(trailers.contains_key("grpc-status"), "the status is in the trailers");
    }
    let details = fields.get("grpc-status-details-bin").map(|text| text.trim_end_matches('=').to_owned());
    Called {
        code: fields["grpc-status"].parse().unwrap(),
        message: fields.get("grpc-message").cloned().unwrap_or_default(),
        details: details.map(|text| STANDARD_NO_PAD.decode(text).unwrap()).unwrap_or_default(),
        body: body.get(5..).unwrap_or_default().to_vec(),
        fields,
    }
}

/// Calls a method with this message.
pub async fn call(url: &str, method: &str, message: &[u8]) -> Called {
    call_with(url, method, &[], framed(false, message)).await
}
