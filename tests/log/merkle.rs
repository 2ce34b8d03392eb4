//! The tree against published cases, and a verifier that shares nothing with the product.

use std::collections::HashMap;

use cairn_proof::tree::{Edge, Hashes, TileBytes, Tiles};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tlog_tiles::{Hash, check_record, check_tree, prove_record, prove_tree, record_hash};

use crate::support::harness::repository;

pub type Node = [u8; 32];

pub fn leaf_hash(data: &[u8]) -> Node {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

pub fn node_hash(left: &Node, right: &Node) -> Node {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

pub fn node(hex: &str) -> Node {
    assert_eq!(hex.len(), 64, "{hex}");
    std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
}

/// The root of a list of leaves: RFC 6962, section 2.1.
pub fn root(leaves: &[Node]) -> Node {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&root(left), &root(right))
        }
    }
}

/// The root that an inclusion proof leads to: RFC 9162, section 2.1.3.2. `None` if it is no proof.
pub fn root_of_inclusion(leaf: Node, index: u64, size: u64, proof: &[Node]) -> Option<Node> {
    if index >= size {
        return None;
    }
    let (mut at, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at >> 1, last >> 1);
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        (at, last) = (at >> 1, last >> 1);
    }
    (last == 0).then_some(hash)
}

fn cases() -> Value {
    let text = std::fs::read_to_string(repository("tests/vectors/merkle.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[derive(Default)]
struct Memory(HashMap<(u8, u64), TileBytes>);

impl Tiles for Memory {
    fn tile(&self, level: u8, index: u64) -> Result<TileBytes, String> {
        self.0.get(&(level, index)).cloned().ok_or_else(|| "no such tile".to_owned())
    }
}

#[test]
fn leaves_roots_and_proofs_are_those_of_the_cases() {
    let cases = cases();
    let (mut edge, mut tiles) = (Edge::default(), Memory::default());
    let roots = texts(&cases["roots"]);
    assert_eq!(edge.root().0, node(roots[0]));
    let mut leaves = Vec::new();
    for (index, leaf) in cases["leaves"].as_array().unwrap().iter().enumerate() {
        let hash = record_hash(leaf["data"].as_str().unwrap().as_bytes());
        assert_eq!(hash.0, node(leaf["hash"].as_str().unwrap()));
        edge.push(hash, |tile| drop(tiles.0.insert((tile.level, tile.index), tile.bytes)));
        leaves.push(hash.0);
        assert_eq!(edge.root().0, node(roots[index + 1]));
        assert_eq!(root(&leaves), node(roots[index + 1]), "the verifier of these tests");
    }
    let hashes = Hashes { tiles: &tiles, edge: &edge };
    let number = |value: &Value| value.as_u64().unwrap();
    for case in cases["inclusion"].as_array().unwrap() {
        let (index, size) = (number(&case["leaf_index"]), number(&case["tree_size"]));
        let siblings: Vec<Node> = texts(&case["siblings"]).into_iter().map(node).collect();
        let made: Vec<Node> = prove_record(size, index, &hashes).unwrap().into_iter().map(|hash| hash.0).collect();
        assert_eq!(made, siblings, "{case}");
        let found = root_of_inclusion(leaves[index as usize], index, size, &siblings);
        assert_eq!(found, Some(node(roots[size as usize])));
    }
    for case in cases["consistency"].as_array().unwrap() {
        let (old, size) = (number(&case["old_size"]), number(&case["tree_size"]));
        let made: Vec<Node> = prove_tree(size, old, &hashes).unwrap().into_iter().map(|hash| hash.0).collect();
        assert_eq!(made, texts(&case["proof"]).into_iter().map(node).collect::<Vec<_>>(), "{case}");
    }
}

/// A hash in base64; `None` if it has not 32 bytes, which no type can hold.
fn hash(value: &Value) -> Option<Hash> {
    use base64::Engine;
    let bytes = base64::prelude::BASE64_STANDARD.decode(value.as_str()?).ok()?;
    bytes.try_into().ok().map(Hash)
}

fn public(folder: &str, mut check: impl FnMut(&Value) -> bool) {
    let folder = repository("../shared/vectors/public/rfc6962").join(folder);
    if !folder.exists() {
        println!("skipped: {} is not there", folder.display());
        return;
    }
    let (mut folders, mut checked) = (vec![folder], 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let case: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(check(&case), case["wantErr"] != true, "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked > 50, "only {checked} cases");
}

#[test]
fn public_cases_of_inclusion_are_judged_right() {
    public("inclusion", |case| {
        let proof = case["proof"].as_array().map(Vec::as_slice).unwrap_or_default();
        let proof: Option<Vec<Hash>> = proof.iter().map(hash).collect();
        let (Some(proof), Some(root), Some(leaf)) = (proof, hash(&case["root"]), hash(&case["leafHash"])) else {
            return false;
        };
        let (size, index) = (case["treeSize"].as_u64().unwrap(), case["leafIdx"].as_u64().unwrap());
        let nodes: Vec<Node> = proof.iter().map(|hash| hash.0).collect();
        let ours = root_of_inclusion(leaf.0, index, size, &nodes) == Some(root.0);
        let theirs = index < size && check_record(&proof, size, root, index, leaf).is_ok();
        assert_eq!(ours, theirs, "{case}");
        ours
    });
}

#[test]
fn public_cases_of_consistency_are_judged_right() {
    public("consistency", |case| {
        let proof = case["proof"].as_array().map(Vec::as_slice).unwrap_or_default();
        let proof: Option<Vec<Hash>> = proof.iter().map(hash).collect();
        let (old, size) = (case["size1"].as_u64().unwrap(), case["size2"].as_u64().unwrap());
        let (Some(proof), Some(old_root), Some(root)) = (proof, hash(&case["root1"]), hash(&case["root2"])) else {
            // One case has roots of 12 bytes, which a type cannot hold: the same tree twice.
            return old > 0
                && old == size
                && case["root1"] == case["root2"]
                && case["proof"].as_array().is_none_or(Vec::is_empty);
        };
        if old == 0 || old > size {
            // Nothing can be proved of an empty tree.
            return false;
        }
        check_tree(&proof, size, root, old, old_root).is_ok()
    });
}
