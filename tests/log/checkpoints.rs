//! The transparency log as a client sees it: checkpoints, tiles, proofs, restarts, and ledgers that are set back.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::log::merkle::{Node, leaf_hash, node, node_hash, root, root_of_inclusion};
use crate::support::harness::{Process, TestServer, config, eventually, metric, run_text};

/// A checkpoint, parsed by the rules of C2SP signed-note and tlog-checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    pub origin: String,
    pub size: u64,
    pub root: Node,
}

/// Parses a checkpoint and verifies its signature with another library than the product uses. Panics if it is invalid.
pub fn open_checkpoint(note: &str, verifier_key: &str) -> Head {
    let (text, signatures) = note.rsplit_once("\n\n").unwrap();
    let text = format!("{text}\n");
    // Base64 can contain plus signs; the name cannot.
    let mut parts = verifier_key.splitn(3, '+');
    let (name, id, key) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let key = BASE64_STANDARD.decode(key).unwrap();
    assert_eq!(key[0], 1, "Ed25519");
    let mut named = format!("{name}\n").into_bytes();
    named.extend_from_slice(&key);
    let hash = Sha256::digest(&named);
    assert_eq!(u32::from_str_radix(id, 16).unwrap().to_be_bytes(), hash[..4]);
    let is_signed = signatures.lines().any(|line| {
        let (by, signature) = line.strip_prefix("— ").unwrap().split_once(' ').unwrap();
        let signature = BASE64_STANDARD.decode(signature).unwrap();
        by == name
            && signature[..4] == hash[..4]
            && UnparsedPublicKey::new(&ED25519, &key[1..]).verify(text.as_bytes(), &signature[4..]).is_ok()
    });
    assert!(is_signed, "{note}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, name));
    let root = BASE64_STANDARD.decode(lines[2]).unwrap();
    Head { origin: lines[0].to_owned(), size: lines[1].parse().unwrap(), root: root.try_into().unwrap() }
}

/// The verifier keys of the log in a data directory, as an auditor receives them.
pub fn verifier_keys(data: &Path) -> Vec<String> {
    let (code, out, err) = run_text(&["key", "show", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    out.lines().map(str::to_owned).collect()
}

fn verifier_key(data: &Path) -> String {
    verifier_keys(data).remove(0)
}

async fn bytes(server: &TestServer, path: &str) -> Vec<u8> {
    let response = server.client.get(format!("{}{path}", server.url)).send().await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response.bytes().await.unwrap().to_vec()
}

async fn head(server: &TestServer, key: &str) -> Head {
    open_checkpoint(&String::from_utf8(bytes(server, "/log/checkpoint").await).unwrap(), key)
}

/// Waits until a checkpoint covers exactly `size` events.
pub async fn wait_until_signed(server: &TestServer, size: u64) {
    eventually("a checkpoint", async || {
        let root = server.get("/v1/merkle/root").await;
        root.status == 200 && root.json()["tree_size"].as_u64() == Some(size)
    })
    .await;
}

/// A configuration that signs a checkpoint every 20 ms.
pub fn frequent_checkpoints(data: &Path) -> cairn::config::Config {
    let mut config = config(data);
    config.log.checkpoint_interval = Duration::from_millis(20);
    config
}

/// Stores `events` events of seven agents.
pub async fn store_events(server: &TestServer, events: usize) {
    let event = |n: usize| json!({"agent_id": format!("агент-{}", n % 7), "action_input": n});
    for first in (0..events).step_by(1000) {
        let batch: Vec<Value> = (first..events.min(first + 1000)).map(event).collect();
        assert_eq!(server.send("/v1/batch", &batch.into()).await.status, 201);
    }
}

/// The data of the first `size` leaves, from the bundles.
async fn entries(server: &TestServer, size: u64) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    for bundle in 0..size.div_ceil(256) {
        let width = (size - bundle * 256).min(256);
        let part = if width < 256 { format!(".p/{width}") } else { String::new() };
        let bytes = bytes(server, &format!("/log/tile/entries/{bundle:03}{part}")).await;
        let mut rest = &bytes[..];
        for _ in 0..width {
            let (len, after) = rest.split_first_chunk::<2>().unwrap();
            let (entry, after) = after.split_at(u16::from_be_bytes(*len).into());
            entries.push(entry.to_vec());
            rest = after;
        }
        assert!(rest.is_empty());
    }
    entries
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_is_exactly_one_leaf_and_tiles_bundles_and_proofs_match_the_checkpoint() {
    for shards in [1, 3] {
        let data = TempDir::new().unwrap();
        let mut config = frequent_checkpoints(data.path());
        config.shards = shards;
        let server = TestServer::start(&config).await;
        eventually("the empty tree", async || server.get("/log/checkpoint").await.status == 200).await;
        let key = verifier_key(data.path());
        let empty = head(&server, &key).await;
        assert_eq!((empty.size, empty.root), (0, root(&[])));
        store_events(&server, 700).await;
        wait_until_signed(&server, 700).await;
        let head = head(&server, &key).await;
        let entries = entries(&server, 700).await;
        let leaves: Vec<Node> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        assert_eq!(head.root, root(&leaves));
        let shown = server.get("/v1/merkle/root").await.json();
        assert_eq!((node(shown["root"].as_str().unwrap()), &shown["tree_size"]), (head.root, &json!(700)));
        // Full tiles, partial tiles, and partial tiles that have since become full.
        for (path, first, count) in [("0/000", 0, 256), ("0/001.p/17", 256, 17), ("0/002.p/188", 512, 188)] {
            let tile = bytes(&server, &format!("/log/tile/{path}")).await;
            assert_eq!(tile, leaves[first..first + count].concat());
        }
        assert_eq!(
            bytes(&server, "/log/tile/1/000.p/2").await,
            [root(&leaves[..256]), root(&leaves[256..512])].concat()
        );
        for wrong in ["0/002", "0/002.p/189", "0/003", "1/000", "2/000.p/1", "entries/002", "0/0", "x"] {
            assert_eq!(server.get(&format!("/log/tile/{wrong}")).await.status, 404, "{wrong}");
        }
        // Bundles are compressed if the client accepts gzip; tiles of hashes never are.
        for (path, asked, is_gzipped) in
            [("entries/000", "br, gzip;q=0.5", true), ("entries/000", "gzip;Q=0", false), ("0/000", "gzip", false)]
        {
            let request = server.client.get(format!("{}/log/tile/{path}", server.url)).header("accept-encoding", asked);
            let response = request.send().await.unwrap();
            assert_eq!(response.headers().get("content-encoding").is_some(), is_gzipped, "{path} {asked}");
            let sent = response.bytes().await.unwrap();
            if is_gzipped {
                let mut whole = Vec::new();
                flate2::read::GzDecoder::new(&sent[..]).read_to_end(&mut whole).unwrap();
                assert!(whole == bytes(&server, "/log/tile/entries/000").await && sent.len() < whole.len());
            }
        }
        // The leaves of each agent have the sequences 1, 2, 3 ...
        let mut found = std::collections::HashMap::<String, u64>::new();
        for entry in &entries {
            let leaf: Value = serde_json::from_slice(entry).unwrap();
            let last = found.entry(leaf["agent_id"].as_str().unwrap().to_owned()).or_default();
            *last += 1;
            assert_eq!(leaf["sequence"], *last);
        }
        assert_eq!(found.values().sum::<u64>(), 700);
        for event in server.list("limit=1000").await {
            let proof = server.get(&format!("/v1/proof?id={}", event["id"].as_str().unwrap())).await.json();
            let data = json!({"agent_id": event["agent_id"], "hash": event["hash"], "sequence": event["sequence"]});
            let leaf = leaf_hash(data.to_string().as_bytes());
            assert_eq!(node(proof["leaf_hash"].as_str().unwrap()), leaf);
            let siblings = proof["siblings"].as_array().unwrap().iter().map(|hash| node(hash.as_str().unwrap()));
            let siblings: Vec<Node> = siblings.collect();
            let index = proof["leaf_index"].as_u64().unwrap();
            assert_eq!(root_of_inclusion(leaf, index, 700, &siblings), Some(head.root));
            assert_eq!(open_checkpoint(proof["checkpoint"].as_str().unwrap(), &key), head);
        }
        let metrics = server.metrics().await;
        assert_eq!(metric(&metrics, "cairn_log_signed_size"), Some(700.0));
        assert_eq!(metric(&metrics, "cairn_log_rollback"), Some(0.0));
        server.stop().await.unwrap();
    }
}

/// Verifies a consistency proof: RFC 9162, section 2.1.4.2.
fn extends(old: u64, old_root: Node, size: u64, new_root: Node, proof: &[Node]) -> bool {
    if old == size {
        return proof.is_empty() && old_root == new_root;
    }
    let mut path = proof.to_vec();
    if old.is_power_of_two() {
        path.insert(0, old_root);
    }
    let (mut at, mut last) = (old - 1, size - 1);
    while at % 2 == 1 {
        (at, last) = (at >> 1, last >> 1);
    }
    let (mut from, mut to) = (path[0], path[0]);
    for hash in &path[1..] {
        if last == 0 {
            return false;
        }
        if at % 2 == 1 || at == last {
            (from, to) = (node_hash(hash, &from), node_hash(hash, &to));
            while at % 2 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            to = node_hash(&to, hash);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    last == 0 && from == old_root && to == new_root
}

#[tokio::test(flavor = "multi_thread")]
async fn each_checkpoint_extends_every_earlier_one_also_across_restarts() {
    let data = TempDir::new().unwrap();
    let mut heads: Vec<Head> = Vec::new();
    let mut total = 0;
    for round in 0..6 {
        let server = TestServer::start(&frequent_checkpoints(data.path())).await;
        store_events(&server, 150).await;
        total += 150;
        wait_until_signed(&server, total).await;
        let head = head(&server, &verifier_key(data.path())).await;
        for before in &heads {
            let proof = server.get(&format!("/v1/consistency?from={}&to={total}", before.size)).await.json();
            let proof: Vec<Node> =
                proof["proof"].as_array().unwrap().iter().map(|hash| node(hash.as_str().unwrap())).collect();
            assert!(extends(before.size, before.root, total, head.root, &proof), "{round}");
            let mut wrong = before.root;
            wrong[0] ^= 1;
            assert!(!extends(before.size, wrong, total, head.root, &proof));
        }
        for wrong in ["from=0", "from=2&to=1", "from=1&to=100000", "to=1", "from=x", "from=%2B1"] {
            assert_eq!(server.get(&format!("/v1/consistency?{wrong}")).await.status, 400, "{wrong}");
        }
        heads.push(head);
        server.stop().await.unwrap();
    }
    assert!(heads.iter().all(|head| head.origin == heads[0].origin));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_event_is_under_a_checkpoint_within_two_seconds_and_until_then_its_proof_is_503() {
    let data = TempDir::new().unwrap();
    let mut slow = config(data.path());
    slow.log.checkpoint_interval = Duration::from_secs(3600);
    let server = TestServer::start(&slow).await;
    eventually("the empty tree", async || server.get("/log/checkpoint").await.status == 200).await;
    let stored = server.store(&json!({"agent_id": "a"})).await;
    let path = format!("/v1/proof?id={}", stored["id"].as_str().unwrap());
    let answer = server.get(&path).await;
    assert_eq!((answer.status.as_u16(), answer.headers["retry-after"].as_bytes()), (503, &b"1"[..]));
    assert_eq!(server.get("/v1/proof?id=01a20242-cc39-7000-8000-31cc52b97d6c").await.status, 404);
    assert_eq!(server.get("/v1/proof?id=x").await.status, 400);
    // A shutdown signs all events.
    server.stop().await.unwrap();
    let server = TestServer::start(&config(data.path())).await;
    wait_until_signed(&server, 1).await;
    let stored = server.store(&json!({"agent_id": "a"})).await;
    let started = Instant::now();
    let path = format!("/v1/proof?id={}", stored["id"].as_str().unwrap());
    eventually("the proof", async || server.get(&path).await.status == 200).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    server.stop().await.unwrap();
}

/// Copies the files of a folder.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Starts a server, and asserts that it signs nothing, answers every call of the log with 503 and `why`, and still
/// stores events.
pub async fn assert_signing_stopped(config: &cairn::config::Config, why: &str) {
    let server = TestServer::start(config).await;
    eventually("the reason why nothing is signed", async || {
        let answer = server.get("/v1/merkle/root").await;
        answer.status == 503 && answer.error() != "the log is starting"
    })
    .await;
    for path in ["/v1/merkle/root", "/log/checkpoint", "/log/tile/0/000.p/1", "/v1/consistency?from=1&to=1"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.error().contains(why), "{}", answer.error());
    }
    server.store(&json!({"agent_id": "a"})).await;
    assert_eq!(metric(&server.metrics().await, "cairn_log_rollback"), Some(1.0));
    let ready = server.client.get(format!("{}/readyz", server.admin_url)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ledger_that_was_set_back_is_never_signed() {
    let (data, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut config = frequent_checkpoints(&data.path().join("data"));
    config.log.checkpoint_file = Some(elsewhere.path().join("checkpoint"));
    let server = TestServer::start(&config).await;
    store_events(&server, 300).await;
    wait_until_signed(&server, 300).await;
    server.stop().await.unwrap();
    let backup = data.path().join("backup");
    copy(&config.storage.data_dir, &backup);
    let server = TestServer::start(&config).await;
    store_events(&server, 10).await;
    wait_until_signed(&server, 310).await;
    server.stop().await.unwrap();
    let signed_last = std::fs::read(elsewhere.path().join("checkpoint")).unwrap();
    std::fs::remove_dir_all(&config.storage.data_dir).unwrap();
    copy(&backup, &config.storage.data_dir);
    assert_signing_stopped(&config, "it has 300 events, and 310 were signed").await;
    // With other events it grows beyond the signed size.
    let server = TestServer::start(&config).await;
    store_events(&server, 30).await;
    server.stop().await.unwrap();
    assert_signing_stopped(&config, "its first 310 events are not those that were signed").await;
    assert_eq!(std::fs::read(elsewhere.path().join("checkpoint")).unwrap(), signed_last, "nothing was signed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_directory_of_the_checkpoint_is_not_created_again() {
    let folder = TempDir::new().unwrap();
    let mut config = frequent_checkpoints(&folder.path().join("data"));
    let (disk, removed) = (folder.path().join("disk"), folder.path().join("removed"));
    config.log.checkpoint_file = Some(disk.join("checkpoint"));
    let server = TestServer::start(&config).await;
    store_events(&server, 3).await;
    wait_until_signed(&server, 3).await;
    std::fs::rename(&disk, &removed).unwrap();
    store_events(&server, 3).await;
    eventually("an end of signing", async || metric(&server.metrics().await, "cairn_log_rollback") == Some(1.0)).await;
    assert!(!disk.exists());
    server.stop().await.unwrap();
    std::fs::rename(&removed, &disk).unwrap();
    let server = TestServer::start(&config).await;
    wait_until_signed(&server, 6).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_foreign_keys_and_checkpoints_stop_signing() {
    let data = TempDir::new().unwrap();
    let config = frequent_checkpoints(data.path());
    let server = TestServer::start(&config).await;
    store_events(&server, 3).await;
    wait_until_signed(&server, 3).await;
    server.stop().await.unwrap();
    let (key, checkpoint) = (data.path().join("log.key"), data.path().join("log.checkpoint"));
    let (key_text, note) = (std::fs::read(&key).unwrap(), std::fs::read(&checkpoint).unwrap());
    std::fs::remove_file(&key).unwrap();
    assert_signing_stopped(&config, "log.key is missing").await;
    let origin = String::from_utf8(note.clone()).unwrap().lines().next().unwrap().to_owned();
    cairn::tlog::keys::Keys::create(&key, &origin).unwrap();
    assert_signing_stopped(&config, "it was not signed with the keys in log.key_file").await;
    std::fs::remove_file(&key).unwrap();
    cairn::tlog::keys::Keys::create(&key, "another/log").unwrap();
    assert_signing_stopped(&config, "the key belongs to the log \"another/log\"").await;
    std::fs::write(&key, &key_text).unwrap();
    std::fs::remove_file(&checkpoint).unwrap();
    assert_signing_stopped(&config, "log.checkpoint is missing").await;
    let mut flipped = note.clone();
    let at = flipped.len() - 10;
    flipped[at] ^= 1;
    std::fs::write(&checkpoint, &flipped).unwrap();
    assert_signing_stopped(&config, "log.checkpoint: ").await;
    std::fs::write(&checkpoint, &note).unwrap();
    let mut renamed = config.clone();
    renamed.log.origin = Some("a-new-name".to_owned());
    assert_signing_stopped(&renamed, "this log is \"a-new-name\"").await;
    let server = TestServer::start(&config).await;
    eventually("a checkpoint", async || server.get("/v1/merkle/root").await.status == 200).await;
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_log_contains_the_checkpoint_and_the_verifier_key() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[("CAIRN_LOG__ANNOUNCE_INTERVAL", "100ms")]);
    eventually("an announcement", async || server.log().contains("verifier_keys")).await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains("verifier_keys")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let head = open_checkpoint(line["checkpoint"].as_str().unwrap(), line["verifier_keys"].as_str().unwrap());
    assert_eq!(head.size, 0);
    assert!(!log.contains("PRIVATE"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(data.path().join("log.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
