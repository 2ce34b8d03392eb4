//! Compatibility with earlier versions: their ledgers, evidence packages and state files of `cairn verify --log` can be
//! read, verified and continued.
//!
//! Each archive `tests/vectors/written-by-VERSION.tar.gz` contains a ledger with 32 events of three agents, its verifier key,
//! a package of `agent-a`, and the state file of `cairn verify --log` after it had read the log.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Process, cairn_verify, reference_chain, repository, run_text};

/// The first version, whose ledgers have format 3, and the last one without salts, whose ledgers have format 4.
const VERSIONS: [&str; 2] = ["0.1.0", "format-4"];

/// Unpacks the files of a version into a new folder.
fn written_by(version: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let archive = repository(format!("tests/vectors/written-by-{version}.tar.gz"));
    let unpacked = Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()).status().unwrap();
    assert!(unpacked.success());
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Posts an event with `curl`, which needs no async runtime. Returns the status of the answer and the stored event.
fn post(server: &Process, event: &Value) -> (String, Value) {
    let mut command = Command::new("curl");
    command.args(["-s", "-w", "\n%{http_code}", "-H", "Content-Type: application/json", "-d", &event.to_string()]);
    let output = command.arg(format!("{}/v1/events?wait=checkpoint", server.url)).output().unwrap();
    let answer = String::from_utf8(output.stdout).unwrap();
    let (body, status) = answer.rsplit_once('\n').unwrap();
    (status.to_owned(), serde_json::from_str(body).unwrap())
}

#[test]
fn a_ledger_of_an_earlier_version_verifies_and_continues() {
    VERSIONS.into_iter().for_each(verify_and_continue);
}

fn verify_and_continue(version: &str) {
    let folder = written_by(version);
    let [data, state, key] = ["data", "log.state", "cairn.vkey"].map(|name| folder.path().join(name));
    let (code, stdout, _) = run_text(&["verify", "--all", "--data-dir", text(&data)]);
    assert!(code == 0 && stdout.contains("32 events verified"), "{stdout}");
    let server = Process::start(&data, &[]);
    // The option had another name in that version.
    let follow = ["verify", "--log", &server.url, "--key", text(&key), "--place", text(&state)];
    let (code, stdout, stderr) = run_text(&follow);
    assert!(code == 0 && stdout.contains("32 events of 3 agents, 0 new"), "{stdout}{stderr}");
    // A repeated event is recognized by its id, and a new event continues the chain.
    let repeated = json!({"id": "0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e6f", "agent_id": "agent-a", "action_name": "pay"});
    let (status, event) = post(&server, &repeated);
    assert_eq!((status.as_str(), &event["sequence"]), ("200", &json!(11)), "{event}");
    let (status, event) = post(&server, &json!({"agent_id": "agent-a"}));
    assert_eq!((status.as_str(), &event["sequence"]), ("201", &json!(12)), "{event}");
    assert_eq!(event["salt"].as_str().map(str::len), Some(22), "{event}");
    let (code, stdout, stderr) = run_text(&follow);
    assert!(code == 0 && stdout.contains("33 events of 3 agents, 1 new"), "{stdout}{stderr}");
    drop(server);
    let (code, stdout, _) = run_text(&["verify", "--all", "--data-dir", text(&data)]);
    assert!(code == 0 && stdout.contains("33 events verified"), "{stdout}");
    let list = ["events", "--data-dir", text(&data), "--agent-id", "agent-a", "--last", "100", "--json"];
    let (_, listed, _) = run_text(&list);
    let events: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 12);
    reference_chain(&events).unwrap();
}

#[test]
fn a_package_of_an_earlier_version_verifies() {
    VERSIONS.into_iter().for_each(verify_package);
}

fn verify_package(version: &str) {
    let folder = written_by(version);
    let [package, key] = ["package.json", "cairn.vkey"].map(|name| folder.path().join(name));
    let (code, stdout, _) = run_text(&["verify-export", text(&package), "--key", text(&key)]);
    assert!(code == 0 && stdout.ends_with("VALID\n"), "{stdout}");
    let standalone = cairn_verify().args(["package", text(&package), "--key", text(&key)]).output().unwrap();
    assert_eq!((standalone.status.code(), String::from_utf8(standalone.stdout).unwrap()), (Some(0), stdout));
}
