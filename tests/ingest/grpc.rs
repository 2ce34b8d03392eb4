//! OTLP over gRPC: the same events as over HTTP, the statuses that exporters act upon, and the health service. Rules: `docs/otlp.md`.

use std::io::Write;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use cairn::config::Config;
use cairn::ingest::MetricsExports;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ingest::otlp::{self, protobuf};
use crate::support::grpc::{Called, LOGS, METRICS, TRACES, call, call_with, client, framed};
use crate::support::harness::{TestServer, config, metric};
use crate::support::protobuf::{Message, export, span};

const CHECK: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
/// The status SERVING, as the message of a response.
const SERVING: [u8; 2] = [8, 1];
const NOT_SERVING: [u8; 2] = [8, 2];
/// The name of the type of the detail that says when to try again.
const RETRY_INFO: &[u8] = b"type.googleapis.com/google.rpc.RetryInfo";

fn is_retryable(called: &Called) -> bool {
    called.details.windows(RETRY_INFO.len()).any(|window| window == RETRY_INFO)
}

fn log_record(text: &str) -> Message {
    Message::default().fixed64(1, 1_771_324_200_250_000_001).message(5, Message::default().bytes(1, text))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_stores_what_the_same_export_over_http_stores() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let attributes = [("gen_ai.tool.name", json!("search")), ("n", json!(5)), ("list", json!(["a", 0.5]))];
    let sent = |number| export("svc", [span(number, "execute_tool search", &attributes), span(number + 100, "n", &[])]);
    let compressed = |encoding: &str, message: &[u8]| match encoding {
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(message).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(message).unwrap();
            encoder.finish().unwrap()
        }
        _ => zstd(message),
    };
    for (number, encoding) in (1..).zip(["", "gzip", "zstd", "deflate"]) {
        let message = sent(number);
        let called = match encoding {
            "" => call(&server.url, TRACES, &message).await,
            encoding => {
                let body = framed(true, &compressed(encoding, &message));
                call_with(&server.url, TRACES, &[("grpc-encoding", encoding)], body).await
            }
        };
        assert_eq!((called.code, called.body.len()), (0, 0), "{encoding}: {called:?}");
        assert_eq!(called.fields["content-type"], "application/grpc");
        assert_eq!(called.fields["grpc-accept-encoding"], "identity,gzip,zstd,deflate");
    }
    // A message may be sent as it is although an encoding is named.
    let plain = call_with(&server.url, TRACES, &[("grpc-encoding", "gzip")], framed(false, &sent(5))).await;
    assert_eq!(plain.code, 0, "{plain:?}");
    assert_eq!(call(&server.url, LOGS, &export("svc", [log_record("said")])).await.code, 0);
    let events = server.list("limit=100").await;
    assert_eq!(events.len(), 11);
    // The same over HTTP is a repetition: it has the same ids, and the same content.
    for number in 1..=5 {
        assert_eq!(protobuf(&server, otlp::TRACES, sent(number)).await.status, 200);
    }
    assert_eq!(protobuf(&server, otlp::LOGS, export("svc", [log_record("said")])).await.status, 200);
    assert_eq!(server.list("limit=100").await, events);
    // Partial success is the same message.
    let partial = export("svc", [span(9, "n", &[]), Message::default().bytes(5, "without ids")]);
    let called = call(&server.url, TRACES, &partial).await;
    let over_http = server.client.post(format!("{}{}", server.url, otlp::TRACES));
    let over_http = over_http.header("content-type", "application/x-protobuf").body(partial).send().await.unwrap();
    assert_eq!((called.code, &called.body[..]), (0, &over_http.bytes().await.unwrap()[..]));
    assert!(String::from_utf8_lossy(&called.body).contains("1 span was rejected, index 1"), "{called:?}");
    server.stop().await.unwrap();
}

fn zstd(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0; zstd_safe::compress_bound(message.len())];
    let length = zstd_safe::compress(&mut out[..], message, 1).unwrap();
    out.truncate(length);
    out
}

/// What is wrong, the method, the fields and the body of a call, and the code and a part of the message of its status.
type Case<'c> = (&'c str, &'c str, &'c [(&'c str, &'c str)], Vec<u8>, u32, &'c str);

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_call_has_the_status_that_exporters_act_upon() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.body_bytes = ByteSize::mib(1);
    config.limits.event_bytes = ByteSize::kib(64);
    config.auth.api_keys = vec!["sender ingest".to_owned(), "reader read".to_owned()];
    let server = TestServer::start(&config).await;
    let key = ("authorization", "Bearer sender");
    let valid = export("svc", [span(1, "n", &[])]);
    let large = vec![0; 2 << 20];
    let (valid, twice) = (framed(false, &valid), framed(false, &valid).repeat(2));
    let cases: [Case; 13] = [
        ("no key", TRACES, &[], valid.clone(), 16, "an%20API%20key%20is%20required"),
        ("an unknown key", TRACES, &[("authorization", "Bearer other")], valid.clone(), 16, "unknown"),
        ("another scope", TRACES, &[("authorization", "Bearer reader")], valid.clone(), 7, "ingest"),
        ("not OTLP", TRACES, &[key], framed(false, &[0xff; 9]), 3, ""),
        ("no message", LOGS, &[key], Vec::new(), 3, "found%20none"),
        ("two messages", TRACES, &[key], twice, 3, "expected%20one%20gRPC%20message"),
        ("a truncated message", TRACES, &[key], valid[..9].to_vec(), 3, "expected%20one%20gRPC%20message"),
        ("not gzip", TRACES, &[key, ("grpc-encoding", "gzip")], framed(true, b"abc"), 3, "gzip"),
        ("an unknown encoding", TRACES, &[key, ("grpc-encoding", "snappy")], valid.clone(), 12, "snappy"),
        ("too large", TRACES, &[key], framed(false, &large), 8, "limits.body_bytes"),
        ("too large, unpacked", TRACES, &[key, ("grpc-encoding", "zstd")], framed(true, &zstd(&large)), 8, "limits"),
        (
            "no such method",
            "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
            &[key],
            valid.clone(),
            12,
            "",
        ),
        ("no such service", "/google.Echo/Echo", &[key], valid.clone(), 12, "grpc.health.v1"),
    ];
    for (what, method, fields, body, code, message) in cases {
        let called = call_with(&server.url, method, fields, body).await;
        assert_eq!(called.code, code, "{what}: {called:?}");
        assert!(called.message.contains(message), "{what}: {called:?}");
        assert!(!is_retryable(&called), "{what}: the same request fails again");
        assert!(called.fields.contains_key("grpc-accept-encoding"), "{what}");
    }
    // Over HTTP/1.1 there are no trailers that clients read.
    let answer = server.client.post(format!("{}{TRACES}", server.url)).header("content-type", "application/grpc");
    let answer = answer.header("authorization", "Bearer sender").body(valid).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].to_str().unwrap()), (200, "12"));
    let stats = server.client.get(format!("{}/v1/stats", server.url)).header("authorization", "Bearer reader");
    let stats: Value = serde_json::from_str(&stats.send().await.unwrap().text().await.unwrap()).unwrap();
    assert_eq!(stats["total_events"], 0);
    let metrics =
        server.client.get(format!("{}/metrics", server.admin_url)).send().await.unwrap().text().await.unwrap();
    let refused = format!(r#"cairn_http_responses_total{{code="401",route="{TRACES}"}}"#);
    assert_eq!(metric(&metrics, &refused), Some(2.0), "{metrics}");
    server.stop().await.unwrap();
}

async fn with(change: impl FnOnce(&mut Config), test: impl AsyncFnOnce(&TestServer)) {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    change(&mut config);
    let server = TestServer::start(&config).await;
    test(&server).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exporters_are_told_when_to_try_again() {
    let sent = export("svc", [span(1, "n", &[]), span(2, "n", &[])]);
    let full = |config: &mut Config| config.storage.min_free_bytes = ByteSize::pib(1000);
    with(full, async |server| {
        let called = call(&server.url, TRACES, &sent).await;
        assert!(called.code == 14 && is_retryable(&called), "{called:?}");
        assert_eq!(call(&server.url, CHECK, b"").await.body, NOT_SERVING);
    })
    .await;
    let slow = |config: &mut Config| config.limits.events_per_second = NonZeroU32::new(1);
    with(slow, async |server| {
        assert_eq!(call(&server.url, TRACES, &sent).await.code, 0);
        let called = call(&server.url, TRACES, &sent).await;
        assert!(called.code == 8 && is_retryable(&called), "{called:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_acknowledged_or_refused() {
    with(
        |_| {},
        async |server| {
            let called = call(&server.url, METRICS, b"any bytes").await;
            assert_eq!((called.code, called.body.len()), (0, 0), "{called:?}");
        },
    )
    .await;
    let refuse = |config: &mut Config| config.ingest.otlp.metrics = MetricsExports::Refuse;
    with(refuse, async |server| {
        let called = call(&server.url, METRICS, b"").await;
        assert!(called.code == 12 && !is_retryable(&called), "{called:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_service_needs_no_key_and_does_not_delay_a_shutdown() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.auth.api_keys = vec!["sender ingest".to_owned()];
    let server = TestServer::start(&config).await;
    let service = |name: &str| Message::default().bytes(1, name).0;
    for name in ["", "opentelemetry.proto.collector.trace.v1.TraceService"] {
        let called = call(&server.url, CHECK, &service(name)).await;
        assert_eq!((called.code, &called.body[..]), (0, &SERVING[..]), "{name}: {called:?}");
    }
    assert_eq!(call(&server.url, CHECK, &service("other")).await.code, 5, "NOT_FOUND");
    assert_eq!(call(&server.url, "/grpc.health.v1.Health/Other", b"").await.code, 12);
    assert_eq!(call(&server.url, CHECK, &vec![0; 100 << 10]).await.code, 11, "a name is short");
    let watch = client().post(format!("{}{WATCH}", server.url)).header("content-type", "application/grpc");
    let watch = watch.body(framed(false, b"")).send().await.unwrap();
    let mut body: reqwest::Body = axum::http::Response::from(watch).into_body();
    let next = async |body: &mut reqwest::Body| body.frame().await.unwrap().unwrap();
    assert_eq!(next(&mut body).await.into_data().unwrap()[..], framed(false, &SERVING));
    let told = tokio::spawn(async move {
        let change = next(&mut body).await.into_data().unwrap();
        (change, next(&mut body).await.into_trailers().unwrap())
    });
    let started = Instant::now();
    server.stop().await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let (change, trailers) = told.await.unwrap();
    assert_eq!((&change[..], &trailers["grpc-status"]), (&framed(false, &NOT_SERVING)[..], &"0".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_ports_serve_both_protocols() {
    with(
        |config| config.ingest.otlp.standard_ports = true,
        async |server| {
            for (number, port) in (1..).zip([4317, 4318]) {
                let url = format!("http://localhost:{port}");
                assert_eq!(call(&url, TRACES, &export("svc", [span(number, "n", &[])])).await.code, 0);
                let answer = server.client.post(format!("{url}{}", otlp::TRACES));
                let answer = answer
                    .header("content-type", "application/x-protobuf")
                    .body(export("svc", [span(number, "n", &[])]));
                assert_eq!(answer.send().await.unwrap().status(), 200);
                assert_eq!(call(&url, CHECK, b"").await.body, SERVING);
                assert_eq!(
                    server.client.get(format!("{url}/v1/stats")).send().await.unwrap().status(),
                    404,
                    "only OTLP"
                );
            }
            assert_eq!(server.list("limit=9").await.len(), 2);
        },
    )
    .await;
}
