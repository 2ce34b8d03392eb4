//! `GET /v1/export` and `cairn export`: a package contains exactly the requested events that are under a checkpoint, or
//! none is written.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::log::checkpoints::{frequent_checkpoints, store_events, verifier_keys, wait_until_signed};
use crate::support::harness::{TestServer, eventually, run_text};

/// Requests a package; returns the status and the JSON body.
async fn export(server: &TestServer, query: &str) -> (u16, Value) {
    let answer = server.get(&format!("/v1/export?{query}")).await;
    (answer.status.as_u16(), answer.json())
}

fn sequences(package: &Value) -> Vec<u64> {
    package["events"].as_array().unwrap().iter().map(|event| event["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_contains_the_events_of_an_agent_and_a_time_range_that_are_under_a_checkpoint() {
    let data = TempDir::new().unwrap();
    let mut config = frequent_checkpoints(data.path());
    config.shards = 2;
    let server = TestServer::start(&config).await;
    let mut times = Vec::new();
    for round in 0..3 {
        for n in 0..100 {
            let event = json!({"agent_id": format!("a{}", n % 5), "action_input": {"round": round, "n": n}});
            let stored = server.send("/v1/events", &event).await.json();
            if n == 0 {
                times.push(stored["received_at"].as_str().unwrap().to_owned());
            }
        }
        // The next round gets a later `received_at`.
        let last = cairn::runtime::now_ms();
        eventually("the next millisecond", async || cairn::runtime::now_ms() > last).await;
    }
    wait_until_signed(&server, 300).await;
    let key = verifier_keys(data.path()).remove(0);
    let all: Vec<u64> = (1..=60).collect();
    let cases = [
        ("agent_id=a0".to_owned(), &all[..]),
        (format!("agent_id=a0&since={}", times[1]), &all[20..]),
        (format!("agent_id=a0&until={}", times[2]), &all[..40]),
        (format!("agent_id=a0&since={}&until={}", times[1], times[2]), &all[20..40]),
    ];
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("package.json");
    for (query, expected) in &cases {
        let (status, package) = export(&server, query).await;
        assert_eq!((status, &sequences(&package)[..]), (200, *expected), "{query}");
        let first = json!(expected[0]);
        assert_eq!(package["first_sequence"], first);
        std::fs::write(&file, server.get(&format!("/v1/export?{query}")).await.text).unwrap();
        let (code, stdout, _) = run_text(&["verify-export", file.to_str().unwrap(), "--key", &key]);
        assert!(code == 0 && stdout.ends_with("VALID\n"), "{stdout}");
        // The same export from the data directory, with the times as flags.
        let flags: Vec<String> = query.split('&').map(|pair| format!("--{}", pair.replace('_', "-"))).collect();
        let mut arguments = vec!["export", "--data-dir", data.path().to_str().unwrap(), "-o", file.to_str().unwrap()];
        arguments.extend(flags.iter().map(String::as_str));
        let (code, _, stderr) = run_text(&arguments);
        assert_eq!(code, 0, "{stderr}");
        let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!((&written["events"], &written["filter"]), (&package["events"], &package["filter"]));
        assert_eq!(run_text(&["verify-export", file.to_str().unwrap(), "--key", &key]).0, 0);
    }
    let late = format!("agent_id=a0&since={}", "2999-01-01T00:00:00Z");
    for (query, status, reason) in [
        ("agent_id=nobody", 404, "there is no agent \"nobody\""),
        (&late, 404, "no events that were received in this interval"),
        ("", 400, "agent_id: expected the id of an agent"),
        ("agent_id=a0&since=yesterday", 400, "since: expected"),
        ("agent_id=a0&limit=3", 400, "limit"),
    ] {
        let (found, answer) = export(&server, query).await;
        assert!(found == status && answer["error"].as_str().unwrap().contains(reason), "{query}: {answer}");
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_at_the_last_checkpoint_and_without_signed_events_it_is_refused() {
    let data = TempDir::new().unwrap();
    let mut config = frequent_checkpoints(data.path());
    let server = TestServer::start(&config).await;
    store_events(&server, 70).await;
    wait_until_signed(&server, 70).await;
    server.stop().await.unwrap();
    // From here on, only events from before the restart are under a checkpoint.
    config.log.checkpoint_interval = std::time::Duration::from_secs(3600);
    let server = TestServer::start(&config).await;
    wait_until_signed(&server, 70).await;
    store_events(&server, 70).await;
    assert_eq!(server.send("/v1/events", &json!({"agent_id": "new"})).await.status, 201);
    let (status, package) = export(&server, "agent_id=%D0%B0%D0%B3%D0%B5%D0%BD%D1%82-3").await;
    assert_eq!((status, sequences(&package).len()), (200, 10), "ten of twenty events are under a checkpoint");
    assert_eq!(export(&server, "agent_id=new").await.0, 503);
    let data_dir = data.path().to_str().unwrap();
    let (code, stdout, _) = run_text(&["export", "--agent-id", "агент-3", "--data-dir", data_dir]);
    let package: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, sequences(&package).len()), (0, 10));
    let (code, _, stderr) = run_text(&["export", "--agent-id", "new", "--data-dir", data_dir]);
    assert!(code == 3 && stderr.contains("not yet under a signed checkpoint"), "{stderr}");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_exported_as_it_was_sent_and_an_output_file_keeps_its_type_and_mode() {
    use std::os::unix::fs::PermissionsExt;
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&frequent_checkpoints(data.path())).await;
    let event = json!({"agent_id": "a", "id": "0198C6B2-7D0E-7CC5-A4EF-1F2B3C4D5E6F"});
    assert_eq!(server.send("/v1/events", &event).await.status, 201);
    wait_until_signed(&server, 1).await;
    let key = verifier_keys(data.path()).remove(0);
    let data_dir = data.path().to_str().unwrap();
    let real = data.path().join("real.json");
    std::fs::write(&real, "").unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    let link = data.path().join("link.json");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let export_to = |to: &str| run_text(&["export", "--agent-id", "a", "--data-dir", data_dir, "-o", to]);
    assert_eq!(export_to(link.to_str().unwrap()).0, 0);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    // A new file contains events in clear text, so only its owner may read it.
    let new = data.path().join("new.json");
    assert_eq!(export_to(new.to_str().unwrap()).0, 0);
    assert_eq!(std::fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, stdout, _) = run_text(&["verify-export", real.to_str().unwrap(), "--key", &key]);
    assert!(code == 0 && stdout.ends_with("VALID\n"), "{stdout}");
    // A device is written to, not replaced; `-` is standard output.
    assert_eq!(export_to("/dev/null").0, 0);
    assert!(!std::fs::metadata("/dev/null").unwrap().is_file());
    assert!(export_to("-").1.starts_with("{\"version\":\"1.1\""));
    assert!(export_to("/nowhere/x").2.contains("/nowhere/x: "));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_of_a_chain_with_a_missing_event_is_not_written() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&frequent_checkpoints(data.path())).await;
    store_events(&server, 7000).await;
    wait_until_signed(&server, 7000).await;
    server.stop().await.unwrap();
    crate::audit::verify::edit(data.path(), |db| {
        // The event of агент-3 with sequence 800.
        let key = [&[0u8, 0][..], &(3u64 + 7 * 799).to_be_bytes()].concat();
        db.delete_cf(db.cf_handle("events").unwrap(), key).unwrap();
    });
    let file = data.path().join("package.json");
    let arguments = ["export", "--agent-id", "агент-3", "--data-dir", data.path().to_str().unwrap()];
    let to_file = [&arguments[..], &["-o", file.to_str().unwrap()]].concat();
    let (code, _, stderr) = run_text(&to_file);
    assert!(code == 3 && stderr.contains("event 800 of the agent's chain is missing"), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("package.json")), "{left:?}");
    // A server that has already started its answer aborts it, and the client reports that.
    let server = TestServer::start(&frequent_checkpoints(data.path())).await;
    wait_until_signed(&server, 7000).await;
    let url = server.url.clone();
    let done = tokio::task::spawn_blocking(move || run_text(&["export", "--agent-id", "агент-3", "--server", &url]));
    let (code, _, stderr) = done.await.unwrap();
    assert!(code == 3 && stderr.contains("the response was truncated"), "{stderr}");
}
