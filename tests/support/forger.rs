//! Makes, changes and forges evidence packages, and runs the verifier on them.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cairn::tlog::keys::Keys;
use cairn_proof::chain::{Hash, canonicalize};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::log::checkpoints::{frequent_checkpoints, store_events, verifier_keys, wait_until_signed};
use crate::log::merkle::{leaf_hash, node_hash};
use crate::support::harness::{TestServer, cairn, cairn_verify};

/// The number of events in [`package`].
pub const EVENTS: usize = 100;

/// An evidence package of one of seven agents, and the verifier key of the log.
pub async fn package() -> (Value, String) {
    let data = TempDir::new().unwrap();
    let mut config = frequent_checkpoints(data.path());
    config.log.origin = Some("the/log".to_owned());
    let server = TestServer::start(&config).await;
    store_events(&server, 7 * EVENTS).await;
    wait_until_signed(&server, 7 * EVENTS as u64).await;
    let package = server.get("/v1/export?agent_id=%D0%B0%D0%B3%D0%B5%D0%BD%D1%82-3").await;
    assert_eq!(package.status, 200, "{}", package.text);
    let key = verifier_keys(data.path()).remove(0);
    (package.json(), key)
}

/// Runs `cairn verify-export` on a package; returns whether it succeeded, and its verdict. `cairn-verify package` must
/// give the same exit status and verdict.
pub fn verify(package: &str, keys: &[&str]) -> (bool, Value) {
    let mut verify_export = cairn();
    verify_export.arg("verify-export");
    let mut standalone = cairn_verify();
    standalone.arg("package");
    let result = run_verifier(verify_export, package, keys);
    assert_eq!(result, run_verifier(standalone, package, keys), "cairn verify-export and cairn-verify differ");
    let (code, verdict) = result;
    assert!(code == 0 || code == 1, "{verdict}");
    (code == 0, verdict)
}

/// Runs a verifier with the package on its standard input; returns its exit status and its verdict.
fn run_verifier(mut command: Command, package: &str, keys: &[&str]) -> (i32, Value) {
    command.args(["-", "--json"]).args(keys.iter().flat_map(|key| ["--key", key]));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = package.to_owned();
    let writer = std::thread::spawn(move || {
        // Fails if the verifier exits before it has read everything.
        let _ = stdin.write_all(text.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

/// Whether a layer of a verdict holds (`None`: not decided), and its message.
pub fn layer<'v>(verdict: &'v Value, name: &str) -> (Option<bool>, &'v str) {
    let layer = &verdict["layers"][name];
    (layer["holds"].as_bool(), layer["says"].as_str().unwrap())
}

/// Serializes a package with its members in the order of the format, which `serde_json::Map` does not preserve.
pub fn serialize(package: &Value) -> String {
    let member = |name: &&str| package.get(*name).map(|value| format!("{}:{value}", json!(name)));
    let members: Vec<String> = cairn_proof::evidence::package::MEMBERS.iter().filter_map(member).collect();
    format!("{{{}}}", members.join(","))
}

/// The event with this index in the package.
pub fn event(package: &mut Value, at: usize) -> &mut Map<String, Value> {
    package["events"][at].as_object_mut().unwrap()
}

/// Recomputes the hashes of `count` events from index `at`, and links each to the one before it.
pub fn rehash(package: &mut Value, at: usize, count: usize) {
    let mut prev = match at {
        0 => package["anchor_prev_hash"].as_str().unwrap().to_owned(),
        at => package["events"][at - 1]["hash"].as_str().unwrap().to_owned(),
    };
    for at in at..at + count {
        let event = event(package, at);
        let not_content = ["hash", "prev_hash", "sequence", "validation_warnings"];
        let content: Map<String, Value> = event
            .iter()
            .filter(|(name, _)| !not_content.contains(&name.as_str()))
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        let canonical = canonicalize(&Value::Object(content).to_string()).unwrap();
        let hash = Hash::of_event(&canonical, &prev.parse().unwrap());
        event.insert("prev_hash".to_owned(), json!(prev));
        event.insert("hash".to_owned(), json!(hash.to_string()));
        prev = hash.to_string();
    }
}

/// The leaf hash of an event.
pub fn leaf(event: &Value) -> [u8; 32] {
    let data = json!({"agent_id": event["agent_id"], "hash": event["hash"], "sequence": event["sequence"]});
    leaf_hash(&canonicalize(&data.to_string()).unwrap())
}

/// Builds a tree of the package's own events, with a proof for each, and signs its checkpoint with a new key in
/// `key_file`. Returns the verifier key.
pub fn rebuild(package: &mut Value, key_file: &Path) -> String {
    let leaves: Vec<[u8; 32]> = package["events"].as_array().unwrap().iter().map(leaf).collect();
    let hex = |node: &[u8; 32]| Hash(*node).to_string();
    /// The root of some leaves, and the inclusion proof of each.
    fn prove(leaves: &[[u8; 32]]) -> ([u8; 32], Vec<Vec<[u8; 32]>>) {
        if let [leaf] = leaves {
            return (*leaf, vec![Vec::new()]);
        }
        let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
        let ((left_root, mut proofs), (right_root, right_proofs)) = (prove(left), prove(right));
        proofs.iter_mut().for_each(|proof| proof.push(right_root));
        proofs.extend(right_proofs.into_iter().map(|mut proof| {
            proof.push(left_root);
            proof
        }));
        (node_hash(&left_root, &right_root), proofs)
    }
    let (root, proofs) = prove(&leaves);
    let size = leaves.len();
    let proofs: Vec<Value> = (0..size)
        .map(|at| {
            let siblings: Vec<String> = proofs[at].iter().map(hex).collect();
            let proof =
                json!({"leaf_hash": hex(&leaves[at]), "leaf_index": at, "siblings": siblings, "tree_size": size});
            json!({"event_id": package["events"][at]["id"], "proof": proof})
        })
        .collect();
    let keys = Keys::create(key_file, "the/log").unwrap();
    let head =
        cairn_proof::tree::Head { origin: "the/log".to_owned(), size: size as u64, root: tlog_tiles::Hash(root) };
    let note = cairn::tlog::checkpoint::sign(&head, &keys).unwrap();
    package["merkle_proofs"] = proofs.into();
    package["merkle_root"] = json!(hex(&root));
    package["tree_size"] = json!(size);
    package["checkpoint"] = json!(String::from_utf8(note).unwrap());
    package["log_key"] = json!(keys.verifiers()[0]);
    keys.verifiers()[0].clone()
}
