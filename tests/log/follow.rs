//! The log, followed from outside by `cairn verify --log`.

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

use crate::log::checkpoints::{copy, fill, often, signed, verifier_keys};
use crate::log::merkle::{leaf_hash, root};
use crate::support::harness::{Running, eventually, run_text};

/// Runs `cairn verify --log` in a thread of its own, so that a server in this process can answer.
async fn follow(url: &str, key: &str, more: &[&str]) -> (i32, Value) {
    let arguments: Vec<String> =
        [&["verify", "--log", url, "--key", key, "--json"], more].concat().into_iter().map(str::to_owned).collect();
    let (code, out, err) =
        tokio::task::spawn_blocking(move || run_text(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
            .await
            .unwrap();
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({"complaint": err})))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_of_every_leaf_goes_on_where_it_was_and_sees_each_event_once() {
    let data = TempDir::new().unwrap();
    let mut config = often(data.path());
    config.shards = 3;
    let server = Running::start(&config).await;
    fill(&server, 700).await;
    signed(&server, 700).await;
    let kept = data.path().join("kept");
    std::fs::copy(data.path().join("log.checkpoint"), &kept).unwrap();
    let key = verifier_keys(data.path()).remove(0);
    let key_file = data.path().join("keys");
    std::fs::write(&key_file, format!("{key}\n")).unwrap();
    let place = data.path().join("place");
    let more = ["--place", place.to_str().unwrap(), "--checkpoint", kept.to_str().unwrap()];
    let (code, report) = follow(&server.url, key_file.to_str().unwrap(), &more).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["tree_size"], &report["new_events"], &report["agents"]), (&json!(700), &json!(700), &json!(7)));
    fill(&server, 1500).await;
    signed(&server, 2200).await;
    let (code, report) = follow(&server.url, &key, &more).await;
    assert_eq!(code, 0, "{report}");
    assert_eq!(
        (&report["tree_size"], &report["new_events"], &report["agents"]),
        (&json!(2200), &json!(1500), &json!(7))
    );
    // A key that signed nothing, a place that was edited, a server that is not there.
    let other = Keys::make(&data.path().join("other"), key.split('+').next().unwrap()).unwrap();
    let (code, report) = follow(&server.url, &other.verifiers()[0], &[]).await;
    assert!(code == 1 && report["findings"].to_string().contains("it was not signed with"), "{report}");
    let edited = std::fs::read_to_string(&place).unwrap().replacen("\\n2200\\n", "\\n2199\\n", 1);
    std::fs::write(&place, edited).unwrap();
    let (code, report) = follow(&server.url, &key, &more).await;
    assert!(code == 3 && report["complaint"].as_str().unwrap().contains("invalid signature"), "{report}");
    // A file that is no checkpoint, a key that is none, flags that belong to another way of verifying.
    let (code, report) = follow(&server.url, &key, &["--checkpoint", key_file.to_str().unwrap()]).await;
    assert!(code == 3 && report["complaint"].as_str().unwrap().contains("this is no checkpoint"), "{report}");
    assert_eq!(follow(&server.url, "/nowhere", &[]).await.0, 2);
    assert_eq!(follow(&server.url, &key, &["--every", "0s"]).await.0, 2);
    assert_eq!(run_text(&["verify", "--all", "--key", &key]).0, 2);
    assert_eq!(run_text(&["verify", "--log", &server.url]).0, 2);
    // A web page is no checkpoint, and no proof that the log lies.
    let (code, report) = follow(&format!("{}/v1/stats?", server.url), &key, &[]).await;
    assert!(code == 3, "{report}");
    let url = server.url.clone();
    server.stop().await.unwrap();
    assert_eq!(follow(&url, &key, &[]).await.0, 3);
}

/// A server that shows whatever log it wants to, of 256 leaves at most.
#[derive(Clone)]
struct Fake {
    shown: Arc<Mutex<(String, Vec<Vec<u8>>)>>,
    /// How often it was asked for leaves.
    asked: Arc<AtomicU64>,
    url: String,
}

fn leaf(agent: &str, sequence: u64, hash: u8) -> Vec<u8> {
    let hash = Hash([hash; 32]);
    format!(r#"{{"agent_id":"{agent}","hash":"{hash}","sequence":{sequence}}}"#).into_bytes()
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
            fake.asked.fetch_add(1, Ordering::Relaxed);
            let shown = fake.shown.lock().unwrap();
            let leaves = shown.1.get(..width).ok_or(StatusCode::NOT_FOUND)?;
            let entry = |leaf: &Vec<u8>| [&(leaf.len() as u16).to_be_bytes()[..], leaf].concat();
            Ok(leaves.iter().flat_map(entry).collect())
        }
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = cairn::http::Listener::bind(&any, 0o600, None).await.unwrap();
        let url = format!("http://{}", listener.address().unwrap());
        let fake = Fake { shown: Arc::default(), asked: Arc::default(), url };
        let routes = Router::new()
            .route("/log/checkpoint", get(checkpoint))
            .route("/log/tile/entries/000.p/{width}", get(bundle))
            .with_state(fake.clone());
        let second = std::time::Duration::from_secs(1);
        let timeouts = cairn::http::Timeouts { header: second, body: second, idle: second };
        let limits = cairn::http::ConnectionLimits::new(timeouts, 100);
        tokio::spawn(async move {
            let (_stop, stopping) = tokio::sync::watch::channel(false);
            cairn::http::serve(listener, ((), routes), limits, stopping).await;
        });
        fake
    }

    fn show(&self, note: String, leaves: &[Vec<u8>]) {
        *self.shown.lock().unwrap() = (note, leaves.to_vec());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_operator_has_the_key_and_lies_is_found() {
    let folder = TempDir::new().unwrap();
    let keys = Keys::make(&folder.path().join("key"), "the/log").unwrap();
    let key = keys.verifiers()[0].clone();
    let fake = Fake::start().await;
    let whole: Vec<Vec<u8>> = (1..=5).flat_map(|n| [leaf("a", n, 1), leaf("b", n, 2)]).collect();
    // Two chains of one agent, one for each of two auditors: every proof of either holds.
    let mut two_chains = whole.clone();
    two_chains.extend((1..=5).map(|n| leaf("a", n, 3)));
    let mut swapped = whole.clone();
    swapped.swap(2, 4);
    let mut gap = whole.clone();
    gap.remove(4);
    let mut foreign = whole.clone();
    foreign[3] = br#"{"agent_id":"b","hash":"00","sequence":2}"#.to_vec();
    let cases: [(&str, &[Vec<u8>], &str); 5] = [
        ("nothing", &whole, ""),
        ("two chains of one agent", &two_chains, "agent \"a\": leaf 10 has sequence 1, expected 6"),
        ("two leaves in the wrong order", &swapped, "agent \"a\": leaf 2 has sequence 3, expected 2"),
        ("an event that is no leaf", &gap, "agent \"a\": leaf 5 has sequence 4, expected 3"),
        ("a leaf that is no event's", &foreign, "leaf 3 is no event's"),
    ];
    for (what, leaves, found) in cases {
        fake.show(sign(&keys, leaves), leaves);
        let (code, report) = follow(&fake.url, &key, &[]).await;
        assert_eq!(code, i32::from(!found.is_empty()), "{what}: {report}");
        assert!(found.is_empty() || report["findings"][0] == json!(found), "{what}: {report}");
    }
    // Leaves that are not those that were signed.
    let mut other = whole.clone();
    other[7] = leaf("b", 4, 9);
    fake.show(sign(&keys, &whole), &other);
    let (code, report) = follow(&fake.url, &key, &[]).await;
    assert!(code == 1 && report["findings"].to_string().contains("not those that were signed"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_set_back_or_shows_another_history_is_found_by_who_was_there_before() {
    let folder = TempDir::new().unwrap();
    let keys = Keys::make(&folder.path().join("key"), "the/log").unwrap();
    let key = keys.verifiers()[0].clone();
    let fake = Fake::start().await;
    let place = folder.path().join("place");
    let at = ["--place", place.to_str().unwrap()];
    let whole: Vec<Vec<u8>> = (1..=20).map(|n| leaf("a", n, 1)).collect();
    fake.show(sign(&keys, &whole[..15]), &whole);
    assert_eq!(follow(&fake.url, &key, &at).await.0, 0);
    // Restored from an older copy, key and checkpoint and all.
    fake.show(sign(&keys, &whole[..10]), &whole);
    assert_eq!(follow(&fake.url, &key, &[]).await.0, 0, "who comes new cannot know");
    let (code, report) = follow(&fake.url, &key, &at).await;
    assert!(code == 1 && report["findings"].to_string().contains("it was set back: 15 events"), "{report}");
    // The same, and gone on writing.
    let mut other = whole.clone();
    other[12..].iter_mut().zip(13..).for_each(|(entry, n)| *entry = leaf("a", n, 2));
    fake.show(sign(&keys, &other), &other);
    assert_eq!(follow(&fake.url, &key, &[]).await.0, 0, "who comes new cannot know");
    let (code, report) = follow(&fake.url, &key, &at).await;
    assert!(code == 1 && report["findings"].to_string().contains("does not extend the 15 events"), "{report}");
    // It goes on as if nothing had been: the place is still that of the real log.
    fake.show(sign(&keys, &whole), &whole);
    let (code, report) = follow(&fake.url, &key, &at).await;
    assert!(code == 0 && report["new_events"] == json!(5), "{report}");
    // A checkpoint that was kept says the same, without a place.
    let kept = folder.path().join("kept");
    std::fs::write(&kept, sign(&keys, &whole)).unwrap();
    fake.show(sign(&keys, &other), &other);
    let (code, report) = follow(&fake.url, &key, &["--checkpoint", kept.to_str().unwrap()]).await;
    assert!(code == 1 && report["findings"].to_string().contains("its first 20 events are not those"), "{report}");
    let (code, report) = follow(&fake.url, &key, &["--agent-id", "a"]).await;
    assert!(code == 0 && report["last_sequence"] == json!(20), "{report}");
    // What was found once is not forgotten.
    let mut gap = whole.clone();
    gap.extend([leaf("a", 22, 1)]);
    fake.show(sign(&keys, &gap), &gap);
    assert_eq!(follow(&fake.url, &key, &at).await.0, 1);
    let (code, report) = follow(&fake.url, &key, &at).await;
    assert!(code == 1 && report["new_events"] == json!(0), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_was_shown_without_its_leaves_is_not_forgotten() {
    let folder = TempDir::new().unwrap();
    let keys = Keys::make(&folder.path().join("key"), "the/log").unwrap();
    let fake = Fake::start().await;
    let whole: Vec<Vec<u8>> = (1..=20).map(|n| leaf("a", n, 1)).collect();
    let mut other = whole.clone();
    other[18] = leaf("a", 19, 2);
    // First the one tree, whose leaves are not served; then the other.
    fake.show(sign(&keys, &whole), &[]);
    let mut command = crate::support::harness::cairn();
    command.args(["verify", "--log", &fake.url, "--key", &keys.verifiers()[0], "--every", "1s"]);
    let follower = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    eventually("it asks for leaves", async || fake.asked.load(Ordering::Relaxed) > 0).await;
    fake.show(sign(&keys, &other), &other);
    let output = tokio::task::spawn_blocking(|| follower.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("are not those that were signed in a checkpoint that it has shown"), "{said}");
}

/// What `cairn status` says.
fn status(data: &Path) -> (i32, Value) {
    let (code, out, err) = run_text(&["status", "--json", "--data-dir", data.to_str().unwrap()]);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| json!({"complaint": err})))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_says_how_far_the_log_is_and_why_it_cannot_be_signed() {
    let data = TempDir::new().unwrap();
    let config = often(data.path());
    let server = Running::start(&config).await;
    fill(&server, 300).await;
    signed(&server, 300).await;
    let (code, said) = status(data.path());
    assert_eq!((code, &said["tree_size"], &said["unsigned_events"]), (0, &json!(300), &json!(0)), "{said}");
    assert_eq!((&said["checkpoint"]["tree_size"], &said["rollback"]), (&json!(300), &json!(false)), "{said}");
    server.stop().await.unwrap();
    let older = TempDir::new().unwrap();
    copy(data.path(), older.path());
    let server = Running::start(&config).await;
    fill(&server, 100).await;
    signed(&server, 400).await;
    server.stop().await.unwrap();
    // The database of before, the checkpoint of now.
    std::fs::copy(data.path().join("log.checkpoint"), older.path().join("log.checkpoint")).unwrap();
    let (code, said) = status(older.path());
    assert_eq!((code, &said["rollback"], &said["unsigned_events"]), (1, &json!(true), &Value::Null), "{said}");
    assert!(said["reason"].as_str().unwrap().contains("its log has 300 events, and 400 were signed"), "{said}");
    let (code, out, _) = run_text(&["status", "--data-dir", older.path().to_str().unwrap()]);
    assert!(code == 1 && out.contains("STOPPED"), "{out}");
    let no_package = run_text(&["export", "--agent-id", "агент-3", "--data-dir", older.path().to_str().unwrap()]);
    assert!(no_package.0 == 3 && no_package.2.contains("400 were signed"), "{no_package:?}");
    std::fs::remove_file(data.path().join("log.checkpoint")).unwrap();
    let (code, said) = status(data.path());
    assert!(code == 1 && said["reason"].as_str().unwrap().contains("checkpoint is gone"), "{said}");
    assert_eq!(status(&data.path().join("nothing")).0, 3);
}
