//! `POST /v1/events` and `POST /v1/batch`: which events are stored or refused, and the answers.

use std::io::Write;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, TestServer, config, metric, read_chain, reference_chain};

const ID: &str = "0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e6f";

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_contains_the_whole_event_which_can_be_read_back() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let event = json!({"agent_id": "a", "action_type": "TOOL_CALL", "action_input": {"z": 1, "a": [null, 9007199254740993u64]}});
    let first = server.store(&event).await;
    assert_eq!(first["sequence"], 1);
    assert_eq!(first["schema_version"], "1.0");
    assert_eq!(first["prev_hash"], "0".repeat(64));
    assert_eq!(first["timestamp"], first["received_at"]);
    assert_eq!(first["action_input"]["a"][1], json!(9007199254740993u64));
    let second = server.store(&json!({"agent_id": "a"})).await;
    assert_eq!((&second["sequence"], &second["prev_hash"]), (&json!(2), &first["hash"]));
    let id = first["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/events/{id}")).await.json(), first);
    assert_eq!(server.get(&format!("/v1/events/{}", id.to_uppercase())).await.json(), first);
    for unknown in [ID, "nonsense", "01a2021b-da6a-7000-8000-ad9accd983c3"] {
        assert_eq!(server.get(&format!("/v1/events/{unknown}")).await.status, 404);
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_with_an_entry_for_each_event_in_order() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let answer = server.send("/v1/batch", &json!([{"agent_id": "a"}, {"agent_id": "b"}])).await;
    assert_eq!(answer.status, 201);
    let entries = answer.json();
    assert_eq!((&entries[0]["index"], &entries[0]["event"]["agent_id"]), (&json!(0), &json!("a")));
    assert_eq!((&entries[1]["index"], &entries[1]["event"]["agent_id"]), (&json!(1), &json!("b")));

    let mixed =
        r#" [ {"agent_id":"a","action_input":1e999,"x":["}",{}]}, {"agent_id":"c"} , {"x":1}, 7, {"agent_id":"c"}] "#;
    let answer = Answer::of(server.post("/v1/batch", mixed).send().await.unwrap()).await;
    assert_eq!(answer.status, 207);
    let entries = answer.json();
    let error = |index: usize| entries[index]["error"].as_str().unwrap_or_default().to_owned();
    assert!(error(0).starts_with("action_input: the number 1e999 is out of range"), "{}", error(0));
    assert_eq!(entries[1]["event"]["sequence"], 1);
    assert_eq!((error(2).as_str(), &entries[2]["retryable"]), ("agent_id is required", &json!(false)));
    assert_eq!(error(3), "event: expected an object, found 7");
    assert_eq!(entries[4]["event"]["sequence"], 2);
    assert!(entries.as_array().unwrap().iter().enumerate().all(|(at, entry)| entry["index"] == json!(at)));

    let empty = server.send("/v1/batch", &json!([])).await;
    assert_eq!((empty.status.as_u16(), empty.text.as_str()), (201, "[]"));
    assert_eq!(server.get("/v1/stats").await.json()["total_events"], 4);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_json_is_refused_as_a_whole() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let cases = [
        ("/v1/events", "", "not JSON"),
        ("/v1/events", "{\"agent_id\":\"a\"", "not JSON: expected `}`, the text ends (at byte 15)"),
        ("/v1/events", "{\"agent_id\":\"a\"} x", "after the event (at byte 17)"),
        ("/v1/batch", "{}", "expected an array of events (at byte 0)"),
        ("/v1/batch", "[{\"agent_id\":\"a\"}", "expected `,` or `]`"),
        ("/v1/batch", "[{\"agent_id\":\"a\"},{\"agent_id\":b}]", "not JSON: expected a value, found 'b'"),
        ("/v1/batch", "[{\"agent_id\":\"a\"}] 1", "after the array"),
    ];
    for (path, body, expected) in cases {
        let answer = Answer::of(server.post(path, body).send().await.unwrap()).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(answer.error().contains(expected), "{body}: {}", answer.error());
    }
    let answer = Answer::of(server.post("/v1/events", &b"{\"agent_id\":\"\xff\"}"[..]).send().await.unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.error().as_str()), (400, "not JSON: not UTF-8 (at byte 13)"));
    assert_eq!(server.get("/v1/stats").await.json()["total_events"], 0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_with_an_id_is_stored_once_and_a_different_event_with_that_id_is_refused() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let event = json!({"id": ID, "agent_id": "a", "action_input": [1, 2]});
    let first = server.store(&event).await;
    let again = server.send("/v1/events", &event).await;
    assert_eq!((again.status.as_u16(), again.json()), (200, first.clone()));

    for other in [
        json!({"id": ID, "agent_id": "b", "action_input": [1, 2]}),
        json!({"id": ID, "agent_id": "a", "action_input": [1, 3]}),
        json!({"id": ID, "agent_id": "a", "action_input": [1, 2], "session_id": "s"}),
        json!({"id": ID, "agent_id": "a", "action_input": [1, 2], "timestamp": "2020-01-01T00:00:00Z"}),
    ] {
        let answer = server.send("/v1/events", &other).await;
        assert_eq!(answer.status, 409, "{other}");
        assert!(answer.error().starts_with("id: "), "{}", answer.error());
    }

    // An answer can be sent back unchanged, also one with an id that the server assigned.
    let given = server.store(&json!({"agent_id": "a", "action_name": "n"})).await;
    for stored in [&first, &given] {
        let back = server.send("/v1/events", stored).await;
        assert_eq!((back.status.as_u16(), &back.json()), (200, stored));
    }
    let mut changed = given.clone();
    changed["action_name"] = json!("other");
    assert_eq!(server.send("/v1/events", &changed).await.status, 409);

    // The same within one batch, and so within one commit.
    let new = json!({"id": "0198c6b2-7d0e-4cc5-a4ef-000000000001", "agent_id": "a"});
    let other = json!({"id": "0198c6b2-7d0e-4cc5-a4ef-000000000001", "agent_id": "a", "action_name": "n"});
    let answer = server.send("/v1/batch", &json!([new, new, other, event])).await;
    let entries = answer.json();
    assert_eq!(answer.status, 207);
    assert_eq!(entries[0]["event"], entries[1]["event"]);
    assert!(entries[2]["error"].as_str().unwrap().starts_with("id: "));
    assert_eq!(entries[3]["event"], first);
    assert_eq!(server.get("/v1/stats").await.json()["total_events"], 3);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_several_agents_send_at_once_is_stored_once_also_across_shards() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.shards = 4;
    let server = TestServer::start(&config).await;
    for round in 0..20 {
        let id = format!("0198c6b2-7d0e-4cc5-a4ef-{round:012}");
        let claims = (0..8).map(|agent| {
            let event = json!({"id": id, "agent_id": format!("agent-{agent}")});
            let server = &server;
            async move { server.send("/v1/events", &event).await.status.as_u16() }
        });
        let statuses = futures_util::future::join_all(claims).await;
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [201, 409, 503].contains(status)), "{statuses:?}");
    }
    assert_eq!(server.get("/v1/stats").await.json()["total_events"], 20);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_may_be_gzip_or_zstd_and_bombs_are_refused() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.body_bytes = bytesize::ByteSize::mib(1);
    let server = TestServer::start(&config).await;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| {
        let mut out = vec![0; zstd_safe::compress_bound(bytes.len())];
        let len = zstd_safe::compress(&mut out[..], bytes, 3).unwrap();
        out.truncate(len);
        out
    };
    let event = json!({"agent_id": "a", "action_input": "x".repeat(200_000)}).to_string();
    // Exactly as long as one step of the decompression.
    let mut padded = json!({"agent_id": "a"}).to_string();
    padded.extend(std::iter::repeat_n(' ', 131_072 - padded.len()));
    let bomb = vec![b' '; 64 << 20];
    let frames = zstd(b" ");
    let cut = |mut bytes: Vec<u8>| {
        bytes.truncate(bytes.len() / 2);
        bytes
    };
    let cases = [
        ("gzip", gzip(event.as_bytes()), 201),
        ("zstd", zstd(event.as_bytes()), 201),
        ("identity", event.clone().into_bytes(), 201),
        ("gzip", gzip(padded.as_bytes()), 201),
        ("zstd", zstd(padded.as_bytes()), 201),
        // More frames than 64 KiB each would fit into the memory for requests.
        ("zstd", [frames.repeat(1500), zstd(br#"{"agent_id":"a"}"#)].concat(), 201),
        ("gzip", gzip(&bomb), 413),
        ("zstd", zstd(&bomb), 413),
        ("gzip", cut(gzip(event.as_bytes())), 400),
        ("zstd", cut(zstd(event.as_bytes())), 400),
        ("gzip", event.clone().into_bytes(), 400),
        ("br", event.into_bytes(), 415),
    ];
    for (encoding, body, expected) in cases {
        let response = server.post("/v1/events", body).header("content-encoding", encoding).send().await.unwrap();
        let answer = Answer::of(response).await;
        assert_eq!(answer.status, expected, "{encoding}: {}", answer.text.chars().take(200).collect::<String>());
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_or_batch_that_is_too_large_is_refused_and_the_exceeded_limit_is_named() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.limits.event_bytes = bytesize::ByteSize::kib(2);
    config.limits.body_bytes = bytesize::ByteSize::kib(16);
    config.limits.batch_events = 3;
    let server = TestServer::start(&config).await;
    let long = json!({"agent_id": "a", "action_input": "x".repeat(3000)});
    let huge = json!({"agent_id": "a", "action_input": "x".repeat(20_000)});
    let four = json!([{"agent_id": "a"}, {"agent_id": "a"}, {"agent_id": "a"}, {"agent_id": "a"}]);
    for (path, body, limit) in [
        ("/v1/events", &long, "limits.event_bytes"),
        ("/v1/events", &huge, "limits.body_bytes"),
        ("/v1/batch", &four, "limits.batch_events"),
    ] {
        let answer = server.send(path, body).await;
        assert_eq!(answer.status, 413);
        assert!(answer.error().contains(limit), "{}", answer.error());
    }
    let answer = server.send("/v1/batch", &json!([{"agent_id": "a"}, long])).await;
    assert_eq!(answer.status, 207);
    assert!(answer.json()[1]["error"].as_str().unwrap().contains("limits.event_bytes"));
    assert_eq!(server.get("/v1/stats").await.json()["total_events"], 1);

    // An answer close to the limit can be sent back, although it is longer than the event that was sent.
    let stored = server.store(&json!({"agent_id": "a", "action_input": "x".repeat(1700)})).await;
    assert_eq!(server.send("/v1/events", &stored).await.status, 200);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_mixed_events_over_many_connections_make_chains_that_the_reference_accepts() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.shards = 2;
    let server = TestServer::start(&config).await;
    let event = |worker: usize, n: usize| {
        let mut event = json!({
            "agent_id": format!("agent-{}", (worker * 7 + n) % 13),
            "action_type": (["TOOL_CALL", "LLM_CALL", "ODD"][n % 3]),
            "action_input": {"n": n, "π": [1.5, -0.0, 1e300, "\u{1}\u{2028}"]},
            "labels": {"worker": worker, "even": n.is_multiple_of(2)},
        });
        if n.is_multiple_of(5) {
            event["unknown"] = json!({"b": 1, "a": 2});
        }
        event
    };
    let workers = (0..16).map(|worker| {
        let server = &server;
        async move {
            for n in 0..60 {
                server.store(&event(worker, n)).await;
                let batch: Vec<Value> = (0..4).map(|at| event(worker, n * 100 + at)).collect();
                assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
            }
        }
    });
    futures_util::future::join_all(workers).await;
    let mut total = 0;
    for agent in 0..13 {
        let chain = read_chain(&server.client, &server.url, &format!("agent-{agent}")).await;
        let output = reference_chain(&chain).unwrap();
        assert!(output.starts_with(&format!("{} events", chain.len())), "{output}");
        total += chain.len();
    }
    assert_eq!(total, 16 * 60 * 5);
    let metrics = server.metrics().await;
    assert_eq!(metric(&metrics, "cairn_ingest_accepted_events_total"), Some(4800.0));
    assert_eq!(metric(&metrics, "cairn_agents"), Some(13.0));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_the_queue_is_stored_in_parts() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.queue.events = 8;
    config.queue.bytes = bytesize::ByteSize::kib(64);
    config.shards = 2;
    let server = TestServer::start(&config).await;
    let batch: Vec<Value> = (0..500).map(|n| json!({"agent_id": format!("a{}", n % 5), "action_input": n})).collect();
    let answer = server.send("/v1/batch", &batch.into()).await;
    assert_eq!(answer.status, 201, "{}", answer.text.chars().take(300).collect::<String>());
    // A single event that is larger than the queue is stored, too.
    let large = json!({"agent_id": "a0", "action_input": "x".repeat(200_000)});
    server.store(&large).await;
    let chain = read_chain(&server.client, &server.url, "a0").await;
    let inputs: Vec<_> = chain[..100].iter().map(|event| event["action_input"].as_u64().unwrap()).collect();
    assert_eq!(inputs, (0..500).step_by(5).collect::<Vec<_>>(), "the order of the request");
    server.stop().await.unwrap();
}
