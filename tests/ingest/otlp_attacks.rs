//! Invalid and hostile OTLP exports: clear answers, bounded memory, and no export that is stored in part.

use std::io::Write;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ingest::otlp::{LOGS, TRACES, protobuf};
use crate::support::harness::{Answer, Process, TestServer, config, metric};
use crate::support::protobuf::{Message, any, export, id, span};

/// An attribute value with this many nested maps.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!("end"), |value, _| json!({ "m": value }))
}

fn nested_json(levels: usize) -> String {
    let open = r#"{"kvlistValue":{"values":[{"key":"m","value":"#.repeat(levels);
    format!(r#"{open}{{"stringValue":"end"}}{}"#, "}]}}".repeat(levels))
}

/// The partial success of an answer in protobuf: the number of rejected items, and the message.
fn rejected(answer: &Answer) -> (u64, &str) {
    assert_eq!(answer.status, 200, "{}", answer.text);
    let bytes = answer.text.as_bytes();
    if bytes.is_empty() {
        return (0, "");
    }
    // partial_success { rejected: varint, error_message: string }: one byte each for tags, lengths and the number.
    let count = bytes[bytes.iter().position(|byte| *byte == 8).unwrap() + 1];
    let message = answer.text.split_once('\u{12}').unwrap().1;
    (u64::from(count), message)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_cannot_be_an_event_is_rejected_and_the_others_are_stored() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let text = |length: usize| [("k", json!("x".repeat(length)))];
    let cases = [
        ("a deep map", span(2, "n", &[("k", nested(130))]), "nested deeper"),
        ("a deeper map", span(2, "n", &[("k", nested(5000))]), "nested deeper"),
        ("no trace id", Message::default().bytes(2, id(2, 8)), "trace id"),
        ("no span id", Message::default().bytes(1, id(1, 16)), "span id"),
        ("a zero trace id", Message::default().bytes(1, [0; 16]).bytes(2, id(2, 8)), "trace id"),
        ("many attributes", (0..300_000).fold(span(2, "n", &[]), |span, _| span.bytes(9, "")), "limits.event_bytes"),
    ];
    for (round, (what, wrong, reason)) in cases.into_iter().enumerate() {
        let good = |number: u64| span(100 + 2 * round as u64 + number, "good", &text(10));
        let answer = protobuf(&server, TRACES, export("svc", [good(0), wrong, good(1)])).await;
        let (count, message) = rejected(&answer);
        assert!(count == 1 && message.contains(reason), "{what}: {count} {message}");
        assert_eq!(server.list("limit=1000").await.len(), 2 * (round + 1), "{what}");
    }
    // The deepest possible attribute: the event, its metadata and the attributes are 3 of the 128 levels.
    let answer = protobuf(&server, TRACES, export("svc", [span(3, "n", &[("k", nested(125))])])).await;
    assert_eq!(rejected(&answer), (0, ""));
    let json = |number: u64, value: &str| {
        let ids = format!(r#""traceId":"{}","spanId":"{number:016x}""#, "ab".repeat(16));
        let span = format!(r#"{{{ids},"attributes":[{{"key":"k","value":{value}}}]}}"#);
        format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}"#)
    };
    for (levels, expected) in [(125, (200, "{}")), (126, (200, "nested deeper")), (100_000, (200, "nested too deeply"))]
    {
        let answer =
            Answer::of(server.post(TRACES, json(levels, &nested_json(levels as usize))).send().await.unwrap()).await;
        assert_eq!(answer.status.as_u16(), expected.0, "{levels}: {}", answer.text);
        assert!(answer.text.contains(expected.1), "{levels}: {}", answer.text);
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_stores_nothing_and_a_malformed_item_costs_only_itself() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let whole = export("svc", [span(1, "n", &[("k", json!([1, {"a": 0.5}]))])]);
    // Truncated at every byte. An empty body is an empty export.
    for length in 1..whole.len() {
        let answer = protobuf(&server, TRACES, whole[..length].to_vec()).await;
        assert_eq!(answer.status, 400, "cut at {length}");
        assert!(answer.text.starts_with("\u{8}\u{3}\u{12}"), "{:?}", answer.text);
    }
    assert_eq!(protobuf(&server, TRACES, Vec::new()).await.status, 200);
    assert!(server.list("limit=10").await.is_empty());
    // An error in the last item of a request that is large enough to be stored in several parts.
    let attribute =
        |value: Message| span(0xbad, "n", &[]).message(9, Message::default().bytes(1, "k").message(2, value));
    let list = |list: Message| attribute(Message::default().message(5, list));
    let wrong = [
        attribute(Message::default().bytes(3, "no integer")),
        attribute(Message::default().bytes(6, b"\x0a\x7f")),
        list(Message::default().bytes(1, b"\x0a\x7f")),
        span(0xbad, "n", &[]).message(11, Message::default().integer(2, 1)),
        span(0xbad, "n", &[]).message(13, Message::default().fixed64(1, 1)),
        span(0xbad, "n", &[]).message(15, Message::default().bytes(3, "")),
        span(0xbad, "n", &[]).message(11, Message::default().bytes(3, b"\x12")),
    ];
    let mut first = 1;
    let mut good = || {
        first += 3000;
        (first - 3000..first).map(|number| span(number, "n", &[]))
    };
    let mut count = 0.0;
    for last in wrong {
        let answer = protobuf(&server, TRACES, export("svc", good().chain([last]))).await;
        let (rejected, message) = rejected(&answer);
        assert!(rejected == 1 && message.contains("index 3000: not OTLP"), "{message}");
        count += 3000.0;
    }
    // Malformed resources and scopes cost the items that share them.
    let one = |part: Message| part.message(2, Message::default().message(2, span(0xbad, "n", &[])));
    let scope = |scope: Message| {
        let scope = Message::default().message(1, scope).message(2, span(0xbad, "n", &[]));
        Message::default().message(2, scope)
    };
    for wrong in [
        one(Message::default().bytes(1, b"\x0a\x02\x12")),
        one(Message::default().message(1, Message::default().bytes(1, b"\x12\x02\x18"))),
        scope(Message::default().integer(1, 1)),
        scope(Message::default().bytes(3, b"\x12\x01\x18")),
    ] {
        let mut body = export("svc", good());
        body.extend_from_slice(&Message::default().message(1, wrong).0);
        let answer = protobuf(&server, TRACES, body).await;
        // The first one is malformed where the request is divided into its items.
        match answer.status.as_u16() {
            400 => continue,
            _ => assert_eq!(rejected(&answer).0, 1, "{}", answer.text),
        }
        count += 3000.0;
    }
    let records = (0..3000).map(|_| Message::default()).chain([Message::default().integer(5, 1)]);
    assert_eq!(rejected(&protobuf(&server, LOGS, export("svc", records)).await).0, 1);
    let metrics = server.metrics().await;
    assert_eq!(metric(&metrics, "cairn_ingest_accepted_events_total"), Some(count + 3000.0));
    let request = server.client.post(format!("{}{TRACES}", server.url)).body("x").send().await.unwrap();
    let answer = Answer::of(request).await;
    assert_eq!((answer.status.as_u16(), answer.headers["content-type"].to_str().unwrap()), (415, "application/json"));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn large_requests_are_stored_and_larger_ones_refused_in_bounded_memory() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    let client = reqwest::Client::new();
    let send = async |path: &str, encoding: &str, body: Vec<u8>| {
        let request = client.post(format!("{}{path}", server.url)).header("content-type", "application/x-protobuf");
        Answer::of(request.header("content-encoding", encoding).body(body).send().await.unwrap()).await
    };
    let stored = async || {
        let text = client.get(format!("{}/metrics", server.admin_url)).send().await.unwrap().text().await.unwrap();
        metric(&text, "cairn_ingest_accepted_events_total").unwrap()
    };
    // A chain of 100,000 spans, each the parent of the one before it.
    let spans = (1..=100_000).map(|number| span(number, "n", &[]).bytes(4, id(number + 1, 8)));
    let body = export("svc", spans.chain([span(100_001, "n", &[("gen_ai.agent.name", json!("root"))])]));
    assert!(body.len() < 20 << 20);
    let answer = send(TRACES, "identity", body).await;
    assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""));
    assert_eq!(stored().await, 100_001.0);
    // A log record can have two bytes; the number of records in a request is limited.
    let answer = send(LOGS, "identity", export("svc", (0..1_000_000).map(|_| Message::default()))).await;
    assert!(answer.status == 413 && answer.text.contains("limits.otlp_records"), "{} {}", answer.status, answer.text);
    // A long resource that is shared by many spans.
    let resource = Message::default().attribute(1, "k", &json!("x".repeat(900 << 10)));
    let items = (1..=1000).fold(Message::default(), |scope, number| scope.message(2, span(number, "n", &[])));
    let body = Message::default().message(1, Message::default().message(1, resource).message(2, items)).0;
    let answer = send(TRACES, "identity", body).await;
    assert!(
        answer.status == 413 && answer.text.contains("once each item is counted with its resource"),
        "{}",
        answer.text
    );
    // Empty scopes.
    let scopes = (0..1_000_000).fold(Message::default(), |resource, _| resource.bytes(2, ""));
    assert_eq!(send(TRACES, "identity", Message::default().message(1, scopes).0).await.status, 200);
    // Every repeated field with millions of elements of two bytes, and text that is longer in JSON. Each body is sent
    // twice at once.
    let list = |number: u64| Message([number as u8 * 8 + 2, 0].repeat(9_000_000));
    let value = |field: u64| Message::default().bytes(1, "k").message(2, Message::default().message(field, list(1)));
    let controls = "\u{1}".repeat(19 << 20);
    let of_scope = |scope: Message| scope.message(2, span(1, "n", &[])).message(2, span(2, "n", &[]));
    let of_resource = |resource: Message| {
        let spans = Message::default().message(2, span(1, "n", &[])).message(2, span(2, "n", &[]));
        Message::default().message(1, Message::default().message(1, resource).message(2, spans)).0
    };
    let bodies = [
        (1, export("svc", [span(1, "n", &[]).message(9, value(5))])),
        (1, export("svc", [span(1, "n", &[]).message(9, value(6))])),
        (1, export("svc", [Message([span(1, "n", &[]).0, list(9).0].concat())])),
        (1, export("svc", [Message([span(1, "n", &[]).0, list(11).0].concat())])),
        (0, export("svc", [span(1, &controls, &[])])),
        (2, of_resource(list(1))),
        (2, of_resource(Message::default().message(1, value(6)))),
        (2, of_resource(Message::default().attribute(1, "k", &json!(controls)))),
        (
            2,
            Message::default()
                .message(1, Message::default().message(2, of_scope(Message::default().message(1, list(3)))))
                .0,
        ),
        (
            2,
            Message::default()
                .message(
                    1,
                    Message::default()
                        .message(2, of_scope(Message::default().message(1, Message::default().bytes(1, &controls)))),
                )
                .0,
        ),
    ];
    let started = std::time::Instant::now();
    for (count, body) in &bodies {
        let answers = futures_util::future::join_all((0..2).map(|_| send(TRACES, "identity", body.clone()))).await;
        assert!(
            answers.iter().all(|answer| answer.status == 503 || rejected(answer).0 == *count),
            "{count} {}",
            answers[0].text
        );
        assert!(answers.iter().any(|answer| answer.status == 200));
    }
    println!("{:?} for {} large bodies", started.elapsed(), 2 * bodies.len());
    // Many scopes that share a resource with many attributes, which is parsed once.
    let resource = Message([10, 0].repeat(200_000));
    let scopes = (1..300).fold(Message::default().message(1, resource), |part, number| {
        part.message(2, Message::default().message(2, span(number, "n", &[])))
    });
    let started = std::time::Instant::now();
    assert_eq!(send(TRACES, "identity", Message::default().message(1, scopes).0).await.status, 200);
    println!("{:?} for 300 scopes of one resource", started.elapsed());
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
    // A decompression bomb.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    (0..1000).for_each(|_| bomb.write_all(&[0; 1 << 20]).unwrap());
    let bomb = bomb.finish().unwrap();
    let answer = send(TRACES, "gzip", bomb).await;
    assert!(answer.status == 413 && answer.text.contains("limits.body_bytes"), "{}", answer.text);
    // The span whose name is long is stored without it.
    assert_eq!(stored().await, 100_001.0 + 299.0 + 1.0);
    let peak = peak_mib(server.child.id());
    println!("peak memory: {peak} MiB");
    // Bodies and events need at most 215 MiB; the allocator returns freed memory to the system after 0.1 s.
    assert!(peak < 384, "{peak} MiB");
}

/// The peak resident memory of a process, in MiB.
pub fn peak_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_fits_into_no_event_does_not_affect_other_resources() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let of = |resource: Message, number| {
        let spans = Message::default().message(2, span(number, "n", &[]));
        Message::default().message(1, resource).message(2, spans)
    };
    for (round, wrong) in [json!({"k": nested(130)}), json!({"k": "x".repeat(2 << 20)})].into_iter().enumerate() {
        let good = |number: u64| {
            of(Message::default().attribute(1, "service.name", &json!("good")), number + 10 * round as u64)
        };
        let wrong = of(Message::default().attribute(1, "k", &wrong["k"]), 2);
        let body = [good(1), wrong, good(3)].into_iter().fold(Message::default(), |body, part| body.message(1, part));
        let answer = protobuf(&server, TRACES, body.0).await;
        assert_eq!(rejected(&answer).0, 1, "{}", answer.text);
        assert_eq!(server.list("agent_id=good").await.len(), 2 * (round + 1));
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_mutated_body_crashes_the_server() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let seed = std::env::var("TEST_SEED").ok().map_or(7, |seed| seed.parse().unwrap());
    let mut random = fastrand::Rng::with_seed(seed);
    let attributes = [("k", json!([1, {"a": 0.5}])), ("gen_ai.tool.call.arguments", json!("{\"a\":1}"))];
    let event = Message::default().fixed64(1, 1).bytes(2, "exception").attribute(3, "exception.message", &json!("m"));
    let spans =
        export("svc", [span(1, "n", &attributes).fixed64(7, 5).fixed64(8, 9).message(11, event), span(2, "n", &[])]);
    let record = Message::default().message(5, any(&json!({"a": [null, "b"]}))).attribute(6, "event.name", &json!("x"));
    let logs = export("svc", [record]);
    for _ in 0..1500 {
        let (path, mut body) = if random.bool() { (TRACES, spans.clone()) } else { (LOGS, logs.clone()) };
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..body.len());
            match random.u8(..3) {
                0 => body[at] = random.u8(..),
                1 => drop(body.remove(at)),
                _ => body.insert(at, random.u8(..)),
            }
        }
        let answer = protobuf(&server, path, body.clone()).await;
        assert!(matches!(answer.status.as_u16(), 200 | 400), "seed {seed}: {} for {body:?}", answer.status);
    }
    server.stop().await.unwrap();
    let (code, output, _) =
        crate::support::harness::run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_disk_space_exporters_get_503_with_retry_after() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.storage.min_free_bytes = bytesize::ByteSize::pib(1000);
    let server = TestServer::start(&config).await;
    let body = || export("svc", [span(1, "n", &[])]);
    let answer = protobuf(&server, TRACES, body()).await;
    assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].to_str().unwrap()), (503, "1"));
    assert!(answer.text.starts_with("\u{8}\u{e}\u{12}"), "{:?}", answer.text);
    server.stop().await.unwrap();
    config.storage.min_free_bytes = bytesize::ByteSize::b(1);
    let server = TestServer::start(&config).await;
    assert_eq!(protobuf(&server, TRACES, body()).await.status, 200);
    assert_eq!(server.list("limit=10").await.len(), 1);
    server.stop().await.unwrap();
}
