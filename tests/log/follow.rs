//! `cairn verify --log`: the log is verified from outside, against real servers and servers that lie.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use cairn::tlog::checkpoint;
use cairn::tlog::keys::Keys;
use cairn_proof::chain::Hash;
use cairn_proof::tree::Head;
use serde_json::{Value, json};
use tempfile::TempDir;
use tlog_tiles::Hash as Node;

use crate::log::checkpoints::{copy, frequent_checkpoints, store_events, verifier_keys, wait_until_signed};
use crate::log::merkle::{leaf_hash, root};
use crate::support::harness::{TestServer, cairn_verify, eventually, run_text};

/// Runs `cairn verify --log` in a blocking thread, so that a server in this process can answer. Returns exit status and
/// report.
async fn follow(url: &str, key: &str, more: &[&str]) -> (i32, Value) {
    let arguments: Vec<String> =
        [&["verify", "--log", url, "--key", key, "--json"], more].concat().into_iter().map(str::to_owned).collect();
    let (code, out, err) =
        tokio::task::spawn_blocking(move || run_text(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
            .await
            .unwrap();
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({"stderr": err})))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_continues_after_the_last_leaf_and_sees_each_event_once() {
    let data = TempDir::new().unwrap();
    let mut config = frequent_checkpoints(data.path());
    config.shards = 3;
    let server = TestServer::start(&config).await;
    store_events(&server, 700).await;
    wait_until_signed(&server, 700).await;
    let kept_checkpoint = data.path().join("kept");
    std::fs::copy(data.path().join("log.checkpoint"), &kept_checkpoint).unwrap();
    let key = verifier_keys(data.path()).remove(0);
    let key_file = data.path().join("keys");
    std::fs::write(&key_file, format!("{key}\n")).unwrap();
    let state_file = data.path().join("state");
    let more = ["--place", state_file.to_str().unwrap(), "--checkpoint", kept_checkpoint.to_str().unwrap()];
    let (code, report) = follow(&server.url, key_file.to_str().unwrap(), &more).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["tree_size"], &report["new_events"], &report["agents"]), (&json!(700), &json!(700), &json!(7)));
    store_events(&server, 1500).await;
    wait_until_signed(&server, 2200).await;
    let (code, report) = follow(&server.url, &key, &more).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (&report["tree_size"], &report["new_events"], &report["agents"]),
        (&json!(2200), &json!(1500), &json!(7))
    );
    // A key that did not sign the checkpoint, and an edited state file.
    let other = Keys::create(&data.path().join("other"), key.split('+').next().unwrap()).unwrap();
    let (code, report) = follow(&server.url, &other.verifiers()[0], &[]).await;
    assert!(code == 1 && report["findings"].to_string().contains("not signed with"), "{report}");
    let edited = std::fs::read_to_string(&state_file).unwrap().replacen("\\n2200\\n", "\\n2199\\n", 1);
    std::fs::write(&state_file, edited).unwrap();
    let (code, report) = follow(&server.url, &key, &more).await;
    assert!(code == 3 && report["stderr"].as_str().unwrap().contains("invalid signature"), "{report}");
    // A file that is not a checkpoint, a missing key file, and flags that cannot be combined.
    let (code, report) = follow(&server.url, &key, &["--checkpoint", key_file.to_str().unwrap()]).await;
    assert!(code == 3 && report["stderr"].as_str().unwrap().contains("not a checkpoint"), "{report}");
    assert_eq!(follow(&server.url, "/nowhere", &[]).await.0, 2);
    assert_eq!(follow(&server.url, &key, &["--every", "0s"]).await.0, 2);
    assert_eq!(run_text(&["verify", "--all", "--key", &key]).0, 2);
    assert_eq!(run_text(&["verify", "--log", &server.url]).0, 2);
    // An answer that is not a checkpoint is an operational error, not a finding.
    let (code, report) = follow(&format!("{}/v1/stats?", server.url), &key, &[]).await;
    assert!(code == 3, "{report}");
    let url = server.url.clone();
    server.stop().await.unwrap();
    assert_eq!(follow(&url, &key, &[]).await.0, 3);
}

/// A server that serves any checkpoint and any leaves, at most 256.
#[derive(Clone)]
struct Fake {
    /// The checkpoint and the leaves.
    shown: Arc<Mutex<(String, Vec<Vec<u8>>)>>,
    /// The number of requests for leaves.
    leaf_requests: Arc<AtomicU64>,
    url: String,
}

fn leaf(agent: &str, sequence: u64, hash: u8) -> Vec<u8> {
    let hash = Hash([hash; 32]);
    format!(r#"{{"agent_id":"{agent}","hash":"{hash}","sequence":{sequence}}}"#).into_bytes()
}

/// An entry bundle: each leaf after its length.
fn bundle_of(leaves: &[Vec<u8>]) -> Vec<u8> {
    leaves.iter().flat_map(|leaf| [&(leaf.len() as u16).to_be_bytes()[..], leaf].concat()).collect()
}

fn sign(keys: &Keys, leaves: &[Vec<u8>]) -> String {
    let hashes: Vec<_> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    let head = Head { origin: "the/log".to_owned(), size: leaves.len() as u64, root: Node(root(&hashes)) };
    String::from_utf8(checkpoint::sign(&head, keys).unwrap()).unwrap()
}

impl Fake {
    async fn start() -> Fake {
        async fn checkpoint(State(fake): State<Fake>) -> String {
            fake.shown.lock().unwrap().0.clone()
        }
        async fn bundle(State(fake): State<Fake>, UrlPath(width): UrlPath<usize>) -> Result<Vec<u8>, StatusCode> {
            fake.leaf_requests.fetch_add(1, Ordering::Relaxed);
            let shown = fake.shown.lock().unwrap();
            shown.1.get(..width).map(bundle_of).ok_or(StatusCode::NOT_FOUND)
        }
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = cairn::http::Listener::bind(&any, 0o600, None).await.unwrap();
        let url = format!("http://{}", listener.address());
        let fake = Fake { shown: Arc::default(), leaf_requests: Arc::default(), url };
        let routes = Router::new()
            .route("/log/checkpoint", get(checkpoint))
            .route("/log/tile/entries/000.p/{width}", get(bundle))
            .with_state(fake.clone());
        let second = std::time::Duration::from_secs(1);
        let timeouts = cairn::http::Timeouts { header: second, body: second, idle: second, age: None, keepalive: None };
        let limits = cairn::http::ConnectionLimits::new(timeouts, (100, 100), cairn::http::Protocols::Http1And2);
        tokio::spawn(async move {
            let (_stop, stopping) = tokio::sync::watch::channel(false);
            let front = cairn::http::Front::new(true, std::sync::Arc::new(|| false), &[]);
            cairn::http::serve(listener, front, ((), routes), limits, stopping).await;
        });
        fake
    }

    fn show(&self, note: String, leaves: &[Vec<u8>]) {
        *self.shown.lock().unwrap() = (note, leaves.to_vec());
    }

    /// Writes the log to files.
    fn mirror(&self) -> TempDir {
        let (note, leaves) = self.shown.lock().unwrap().clone();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("checkpoint"), &note).unwrap();
        let width: usize = note.lines().nth(1).unwrap().parse().unwrap();
        let bundles = folder.path().join("tile/entries/000.p");
        std::fs::create_dir_all(&bundles).unwrap();
        std::fs::write(bundles.join(width.to_string()), bundle_of(&leaves[..width])).unwrap();
        folder
    }

    /// Runs `cairn verify --log`, and `cairn-verify log` on a copy of the log in files; asserts that reports and state
    /// files are equal.
    async fn follow(&self, key: &str, more: &[&str]) -> (i32, Value) {
        let mirror = self.mirror();
        let state = more.iter().position(|argument| matches!(*argument, "--state" | "--place")).map(|at| more[at + 1]);
        let copy = mirror.path().join("state");
        if let Some(state) = state.filter(|state| Path::new(state).exists()) {
            std::fs::copy(state, &copy).unwrap();
        }
        let result = follow(&self.url, key, more).await;
        let mut command = cairn_verify();
        command.arg("log").arg(mirror.path()).args(["--key", key, "--json"]);
        command.args(more.iter().map(|&argument| match argument {
            "--place" => "--state",
            argument if Some(argument) == state => copy.to_str().unwrap(),
            argument => argument,
        }));
        let output = command.output().unwrap();
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!({"stderr": String::from_utf8_lossy(&output.stderr)}));
        assert_eq!((output.status.code().unwrap(), report), result, "cairn verify --log and cairn-verify log differ");
        if let Some(state) = state {
            assert_eq!(std::fs::read(state).unwrap(), std::fs::read(copy).unwrap(), "the state files differ");
        }
        if more.is_empty() {
            Fake::read_from_standard_input(&mirror, key, &result);
        }
        result
    }

    /// Runs `cairn-verify log -` with the leaves on its standard input; asserts that the report is the same.
    fn read_from_standard_input(mirror: &TempDir, key: &str, result: &(i32, Value)) {
        let bundle =
            std::fs::read_dir(mirror.path().join("tile/entries/000.p")).unwrap().next().unwrap().unwrap().path();
        let mut command = cairn_verify();
        command.args(["log", "-", "--key", key, "--json", "--checkpoint"]).arg(mirror.path().join("checkpoint"));
        let output = command.stdin(std::fs::File::open(bundle).unwrap()).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code().unwrap(), &report), (result.0, &result.1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inconsistent_leaves_are_found_although_the_operator_signed_them() {
    let folder = TempDir::new().unwrap();
    let keys = Keys::create(&folder.path().join("key"), "the/log").unwrap();
    let key = keys.verifiers()[0].clone();
    let fake = Fake::start().await;
    let valid_leaves: Vec<Vec<u8>> = (1..=5).flat_map(|n| [leaf("a", n, 1), leaf("b", n, 2)]).collect();
    // Two chains of one agent, one for each of two auditors: the proofs of both hold.
    let mut two_chains = valid_leaves.clone();
    two_chains.extend((1..=5).map(|n| leaf("a", n, 3)));
    let mut swapped = valid_leaves.clone();
    swapped.swap(2, 4);
    let mut gap = valid_leaves.clone();
    gap.remove(4);
    let mut foreign = valid_leaves.clone();
    foreign[3] = br#"{"agent_id":"b","hash":"00","sequence":2}"#.to_vec();
    let cases: [(&str, &[Vec<u8>], &str); 5] = [
        ("nothing", &valid_leaves, ""),
        ("two chains of one agent", &two_chains, "agent \"a\": leaf 10 has sequence 1, expected 6"),
        ("two leaves in the wrong order", &swapped, "agent \"a\": leaf 2 has sequence 3, expected 2"),
        ("an event without a leaf", &gap, "agent \"a\": leaf 5 has sequence 4, expected 3"),
        ("a leaf that is not of an event", &foreign, "leaf 3 is not the canonical form of agent_id, hash and sequence"),
    ];
    for (what, leaves, found) in cases {
        fake.show(sign(&keys, leaves), leaves);
        let (code, report) = fake.follow(&key, &[]).await;
        assert_eq!(code, i32::from(!found.is_empty()), "{what}: {report}");
        assert!(found.is_empty() || report["findings"][0] == json!(found), "{what}: {report}");
    }
    // Other leaves than the signed ones.
    let mut other = valid_leaves.clone();
    other[7] = leaf("b", 4, 9);
    fake.show(sign(&keys, &valid_leaves), &other);
    let (code, report) = fake.follow(&key, &[]).await;
    assert!(code == 1 && report["findings"].to_string().contains("do not match the signed root"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_set_back_or_rewritten_is_found_with_the_state_of_an_earlier_run() {
    let folder = TempDir::new().unwrap();
    let keys = Keys::create(&folder.path().join("key"), "the/log").unwrap();
    let key = keys.verifiers()[0].clone();
    let fake = Fake::start().await;
    let state_file = folder.path().join("state");
    let with_state = ["--place", state_file.to_str().unwrap()];
    let valid_leaves: Vec<Vec<u8>> = (1..=20).map(|n| leaf("a", n, 1)).collect();
    fake.show(sign(&keys, &valid_leaves[..15]), &valid_leaves);
    assert_eq!(fake.follow(&key, &with_state).await.0, 0);
    // The log is restored from an older copy, with its key and checkpoint.
    fake.show(sign(&keys, &valid_leaves[..10]), &valid_leaves);
    assert_eq!(fake.follow(&key, &[]).await.0, 0, "without a state it cannot be found");
    let (code, report) = fake.follow(&key, &with_state).await;
    assert!(code == 1 && report["findings"].to_string().contains("the log was rolled back: 15 events"), "{report}");
    // The same, with other events after it.
    let mut other = valid_leaves.clone();
    other[12..].iter_mut().zip(13..).for_each(|(entry, n)| *entry = leaf("a", n, 2));
    fake.show(sign(&keys, &other), &other);
    assert_eq!(fake.follow(&key, &[]).await.0, 0, "without a state it cannot be found");
    let (code, report) = fake.follow(&key, &with_state).await;
    assert!(code == 1 && report["findings"].to_string().contains("does not extend the 15 events"), "{report}");
    // The real log again: the findings did not change the state file.
    fake.show(sign(&keys, &valid_leaves), &valid_leaves);
    let (code, report) = fake.follow(&key, &with_state).await;
    assert!(code == 0 && report["new_events"] == json!(5), "{report}");
    // A kept checkpoint finds it, too, without a state file.
    let kept_checkpoint = folder.path().join("kept");
    std::fs::write(&kept_checkpoint, sign(&keys, &valid_leaves)).unwrap();
    fake.show(sign(&keys, &other), &other);
    let (code, report) = fake.follow(&key, &["--checkpoint", kept_checkpoint.to_str().unwrap()]).await;
    assert!(code == 1 && report["findings"].to_string().contains("the first 20 events are not those"), "{report}");
    let (code, report) = fake.follow(&key, &["--agent-id", "a"]).await;
    assert!(code == 0 && report["last_sequence"] == json!(20), "{report}");
    // A finding is reported again by later runs.
    let mut gap = valid_leaves.clone();
    gap.extend([leaf("a", 22, 1)]);
    fake.show(sign(&keys, &gap), &gap);
    assert_eq!(fake.follow(&key, &with_state).await.0, 1);
    let (code, report) = fake.follow(&key, &with_state).await;
    assert!(code == 1 && report["new_events"] == json!(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_whose_leaves_were_not_served_is_remembered() {
    let folder = TempDir::new().unwrap();
    let keys = Keys::create(&folder.path().join("key"), "the/log").unwrap();
    let fake = Fake::start().await;
    let valid_leaves: Vec<Vec<u8>> = (1..=20).map(|n| leaf("a", n, 1)).collect();
    let mut other = valid_leaves.clone();
    other[18] = leaf("a", 19, 2);
    // First one tree, whose leaves are not served, then another one.
    fake.show(sign(&keys, &valid_leaves), &[]);
    let mut command = crate::support::harness::cairn();
    command.args(["verify", "--log", &fake.url, "--key", &keys.verifiers()[0], "--every", "1s"]);
    let follower = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("a request for leaves", async || fake.leaf_requests.load(Ordering::Relaxed) > 0).await;
    fake.show(sign(&keys, &other), &other);
    let output = tokio::task::spawn_blocking(|| follower.wait_with_output().unwrap()).await.unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert!(report.contains("are not those that were signed in a checkpoint that the log served earlier"), "{report}");
}

/// Runs `cairn status`; returns exit status and report.
fn status(data: &Path) -> (i32, Value) {
    let (code, out, err) = run_text(&["status", "--json", "--data-dir", data.to_str().unwrap()]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({"stderr": err})))
}

#[tokio::test(flavor = "multi_thread")]
async fn status_reports_the_size_of_the_log_and_why_it_cannot_be_signed() {
    let data = TempDir::new().unwrap();
    let config = frequent_checkpoints(data.path());
    let server = TestServer::start(&config).await;
    store_events(&server, 300).await;
    wait_until_signed(&server, 300).await;
    let (code, report) = status(data.path());
    assert_eq!((code, &report["tree_size"], &report["unsigned_events"]), (0, &json!(300), &json!(0)), "{report}");
    assert_eq!((&report["checkpoint"]["tree_size"], &report["rollback"]), (&json!(300), &json!(false)), "{report}");
    server.stop().await.unwrap();
    let older = TempDir::new().unwrap();
    copy(data.path(), older.path());
    let server = TestServer::start(&config).await;
    store_events(&server, 100).await;
    wait_until_signed(&server, 400).await;
    server.stop().await.unwrap();
    // The older database with the current checkpoint.
    std::fs::copy(data.path().join("log.checkpoint"), older.path().join("log.checkpoint")).unwrap();
    let (code, report) = status(older.path());
    assert_eq!((code, &report["rollback"], &report["unsigned_events"]), (1, &json!(true), &Value::Null), "{report}");
    assert!(report["reason"].as_str().unwrap().contains("its log has 300 events, and 400 were signed"), "{report}");
    let (code, out, _) = run_text(&["status", "--data-dir", older.path().to_str().unwrap()]);
    assert!(code == 1 && out.contains("STOPPED"), "{out}");
    let no_package = run_text(&["export", "--agent-id", "агент-3", "--data-dir", older.path().to_str().unwrap()]);
    assert!(no_package.0 == 3 && no_package.2.contains("400 were signed"), "{no_package:?}");
    std::fs::remove_file(data.path().join("log.checkpoint")).unwrap();
    let (code, report) = status(data.path());
    assert!(code == 1 && report["reason"].as_str().unwrap().contains("checkpoint is missing"), "{report}");
    assert_eq!(status(&data.path().join("nothing")).0, 3);
}
