//! The destination type `webhook`: batches of whole events, signed, at least once and in the order of their session.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use cairn::relay::DestinationConfig;
use cairn::relay::config::DestinationType;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::relay::delivery::{start_with, status, wait_until_drained};
use crate::support::harness::{Process, eventually, repository, run_text};

const KEY: [u8; 32] = [0x5A; 32];

/// A request as it arrived.
#[derive(Debug, Clone)]
struct Request {
    headers: HeaderMap,
    body: String,
}

impl Request {
    fn events(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

type Answer = dyn Fn(&Request) -> StatusCode + Send + Sync;

/// A webhook that keeps what it has accepted.
struct Hook {
    accepted: Mutex<Vec<Request>>,
    requests: AtomicUsize,
    answer: Box<Answer>,
}

impl Hook {
    async fn start(answer: impl Fn(&Request) -> StatusCode + Send + Sync + 'static) -> (Arc<Hook>, DestinationConfig) {
        let hook = Hook { accepted: Mutex::default(), requests: AtomicUsize::new(0), answer: Box::new(answer) };
        let hook = Arc::new(hook);
        let app = Router::new().route("/hook", post(receive)).with_state(Arc::clone(&hook));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(app.clone());
                let builder = Builder::new(TokioExecutor::new());
                // Errors of a connection are caused by its peer.
                tokio::spawn(async move { builder.serve_connection(TokioIo::new(stream), service).await.is_ok() });
            }
        });
        let mut config = DestinationConfig { kind: DestinationType::Webhook, ..Default::default() };
        config.name = "siem".to_owned();
        config.endpoint = Some(endpoint);
        config.secret = Some(format!("whsec_{}", STANDARD.encode(KEY)));
        config.headers.insert("Authorization".to_owned(), "Bearer hush".to_owned());
        config.batch.wait = Duration::from_millis(20);
        (config.retry.initial, config.retry.max) = (Duration::from_millis(10), Duration::from_millis(100));
        (hook, config)
    }

    fn accepted(&self) -> Vec<Request> {
        self.accepted.lock().unwrap().clone()
    }

    fn events(&self) -> Vec<Value> {
        self.accepted().iter().flat_map(Request::events).collect()
    }
}

async fn receive(State(hook): State<Arc<Hook>>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let request = Request { headers, body };
    hook.requests.fetch_add(1, Ordering::SeqCst);
    let status = (hook.answer)(&request);
    if status.is_success() {
        hook.accepted.lock().unwrap().push(request);
    }
    // Some services repeat what they were sent.
    (status, "Bearer hush is not enough".to_owned())
}

fn events(count: usize) -> Value {
    (0..count)
        .map(|n| json!({"agent_id": format!("a{}", n % 7), "session_id": format!("s{}", n % 5), "action_input": n}))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_events_arrive_in_signed_batches_and_in_the_order_of_their_session() {
    let (data, (hook, config)) = (TempDir::new().unwrap(), Hook::start(|_| StatusCode::NO_CONTENT).await);
    let server = start_with(&data, config).await;
    for _ in 0..4 {
        assert_eq!(server.send("/v1/batch", &events(1000)).await.status, 201);
    }
    wait_until_drained(&server).await;
    let requests = hook.accepted();
    assert!(requests.len() < 200, "{} requests for 4,000 events", requests.len());
    let (mut last, mut stored) = (HashMap::new(), HashMap::new());
    for agent in 0..7 {
        for event in server.list(&format!("agent_id=a{agent}&limit=1000")).await {
            stored.insert(event["id"].as_str().unwrap().to_owned(), event);
        }
    }
    for request in &requests {
        assert_eq!(request.header("content-type"), "application/x-ndjson");
        assert_eq!(request.header("authorization"), "Bearer hush");
        let (id, time) = (request.header("webhook-id"), request.header("webhook-timestamp"));
        let signed = format!("{id}.{time}.{}", request.body);
        let signature = STANDARD.decode(request.header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), signed.as_bytes(), &signature).unwrap();
        assert!(request.body.ends_with('\n'));
        for event in request.events() {
            let sequence = event["sequence"].as_u64().unwrap();
            let session = (event["agent_id"].to_string(), event["session_id"].to_string());
            let before = last.insert(session, sequence);
            assert!(before.is_none_or(|before| before < sequence), "{before:?} then {sequence}");
            assert_eq!(stored.remove(event["id"].as_str().unwrap()).unwrap(), event);
        }
    }
    assert_eq!((stored.len(), last.len()), (0, 35));
    assert_eq!(status(&server).await["sent"], 4000);
    server.stop().await.unwrap();
    check_with_the_code_of_the_document(&requests[0]);
}

/// Runs the receiver of `docs/relay.md` on a request, and on one that was changed.
fn check_with_the_code_of_the_document(request: &Request) {
    let document = std::fs::read_to_string(repository("docs/relay.md")).unwrap();
    let code = document.split("```python").nth(1).unwrap().split("```").next().unwrap();
    let code = code.split_once('\n').unwrap().1;
    let headers: HashMap<&str, &str> =
        ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| (name, request.header(name))).into();
    let secret = format!("whsec_{}", STANDARD.encode(KEY));
    let changed = request.body.replacen("agent_id", "agent_ID", 1);
    for (body, expected) in [(&request.body, "True"), (&changed, "False")] {
        let call = "import json, sys\nsecret, headers, body = json.loads(sys.stdin.read())";
        let code = format!("{code}\n{call}\nprint(is_from_cairn(secret, headers, body.encode()))");
        let mut python = Command::new("python3");
        python.args(["-c", &code]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().unwrap();
        python.stdin.take().unwrap().write_all(json!([secret, headers, body]).to_string().as_bytes()).unwrap();
        let printed = python.wait_with_output().unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&printed).trim(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_refused_becomes_a_dead_letter_and_the_others_arrive() {
    let refuses = |request: &Request| match request.body.contains("poison") {
        true => StatusCode::UNPROCESSABLE_ENTITY,
        false => StatusCode::OK,
    };
    let (data, (hook, config)) = (TempDir::new().unwrap(), Hook::start(refuses).await);
    let server = start_with(&data, config).await;
    let mut all = events(1000);
    for bad in [3, 400, 999] {
        all[bad]["action_name"] = "poison".into();
    }
    assert_eq!(server.send("/v1/batch", &all).await.status, 201);
    wait_until_drained(&server).await;
    let letters = server.get("/v1/relay/siem/dead-letters").await.json();
    assert_eq!(letters.as_array().unwrap().len(), 3, "{letters}");
    for letter in letters.as_array().unwrap() {
        assert_eq!((&letter["status"], letter["answer"].as_str()), (&json!(422), Some("[REDACTED] is not enough")));
    }
    let arrived: HashSet<u64> = hook.events().iter().map(|event| event["action_input"].as_u64().unwrap()).collect();
    assert_eq!((arrived.len(), hook.events().len()), (997, 997), "each once");
    assert!(hook.requests.load(Ordering::SeqCst) < 150, "{:?}", hook.requests);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_as_large_as_its_settings_permit() {
    let (data, (hook, mut config)) = (TempDir::new().unwrap(), Hook::start(|_| StatusCode::OK).await);
    config.batch.events = 40;
    config.batch.bytes = ByteSize::kib(32);
    let server = start_with(&data, config).await;
    let large = json!({"agent_id": "a", "action_input": "x".repeat(100_000)});
    let mut all: Vec<Value> = (0..500).map(|n| json!({"agent_id": "a", "action_input": "y".repeat(n * 4)})).collect();
    all.insert(250, large);
    assert_eq!(server.send("/v1/batch", &json!(all)).await.status, 201);
    wait_until_drained(&server).await;
    let sizes: Vec<(usize, usize)> = hook.accepted().iter().map(|one| (one.events().len(), one.body.len())).collect();
    assert_eq!(sizes.iter().map(|(events, _)| events).sum::<usize>(), 501);
    // A line has some 200 bytes more than the canonical form.
    assert!(sizes.iter().all(|(events, bytes)| *events <= 40 && (*events == 1 || *bytes < 45_000)), "{sizes:?}");
    assert!(sizes.iter().any(|(events, bytes)| *events == 1 && *bytes > 100_000), "{sizes:?}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_arrives_although_requests_fail_and_the_server_is_killed() {
    let count = AtomicUsize::new(0);
    let fails = move |_: &Request| match count.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => StatusCode::SERVICE_UNAVAILABLE,
        1 => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::OK,
    };
    let (data, (hook, config)) = (TempDir::new().unwrap(), Hook::start(fails).await);
    let file = data.path().join("cairn.yaml");
    let (endpoint, secret) = (config.endpoint.unwrap(), config.secret.unwrap());
    let text = format!(
        "relay: {{destinations: [{{name: siem, type: webhook, endpoint: '{endpoint}', secret: {secret}, \
         batch: {{events: 20, wait: 5ms}}, retry: {{initial: 5ms, max: 20ms}}}}]}}\n"
    );
    std::fs::write(&file, text).unwrap();
    let ledger = data.path().join("data");
    let (client, mut acknowledged) = (reqwest::Client::new(), HashSet::new());
    for round in 0..4 {
        let mut server = Process::start(&ledger, &[("CAIRN_CONFIG", file.to_str().unwrap())]);
        for _ in 0..10 {
            let from = acknowledged.len();
            let batch: Value = (from..from + 100).map(|n| json!({"agent_id": "a", "action_input": n})).collect();
            let post = client.post(format!("{}/v1/batch", server.url)).header("content-type", "application/json");
            assert_eq!(post.body(batch.to_string()).send().await.unwrap().status(), 201);
            acknowledged.extend(from..from + 100);
        }
        if round == 3 {
            let input = |event: &Value| event["action_input"].as_u64().unwrap() as usize;
            let arrived = || hook.events().iter().map(input).collect::<HashSet<_>>();
            eventually("all events", async || acknowledged.is_subset(&arrived())).await;
        }
        server.kill();
    }
    assert_eq!(acknowledged.len(), 4000);
}

#[test]
fn settings_that_a_type_does_not_have_are_refused_and_secrets_are_not_shown() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("cairn.yaml");
    let validate = |destination: &str| {
        std::fs::write(&path, format!("relay: {{destinations: [{{{destination}}}]}}\n")).unwrap();
        run_text(&["config", "validate", "--config", path.to_str().unwrap()])
    };
    let org = "org_id: 00000000-0000-4000-8000-000000000000";
    for (destination, expected) in [
        ("type: webhook", "endpoint: expected an http or https URL"),
        ("type: webhook, endpoint: 'http://h', secret: hush", "secret: expected 24 to 64 bytes in base64"),
        ("type: webhook, endpoint: 'http://h', headers: {'a b': hush}", "headers.a b: expected the name and value"),
        ("type: webhook, endpoint: 'http://h', path: /tmp/x", "path: expected nothing with type: webhook"),
        (&format!("type: webhook, endpoint: 'http://h', {org}"), "org_id: expected nothing with type: webhook"),
        (&format!("{org}, secret: hush"), "secret: expected nothing with type: agnost"),
        (&format!("{org}, batch: {{events: 9}}"), "batch: expected nothing with type: agnost"),
        ("type: file", "path: expected a path, or - for standard output"),
        ("type: file, path: /tmp/x, endpoint: 'http://h'", "endpoint: expected nothing with type: file"),
        ("type: file, path: /tmp/x, batch: {events: 0}", "batch.events: expected a number from 1 to 10000"),
        ("type: file, path: /tmp/x, rotate: {bytes: 1B}", "rotate.bytes: expected 0, or at least 1KiB"),
    ] {
        let (code, _, error) = validate(destination);
        assert_eq!(code, 2, "{destination}");
        assert!(error.contains(&format!("relay.destinations[0].{expected}")), "{destination}: {error}");
        assert!(!error.contains("hush"), "{error}");
    }
    let secret = STANDARD.encode(KEY);
    let valid = format!("type: webhook, endpoint: 'http://h/hook', secret: {secret}, headers: {{x-key: hush}}");
    assert_eq!(validate(&valid).0, 0);
    let (_, printed, _) = run_text(&["config", "print", "--config", path.to_str().unwrap()]);
    assert!(printed.contains("x-key") && !printed.contains("hush") && !printed.contains(&secret), "{printed}");
}
