//! The Merkle tree against published test vectors, and a verifier that shares no code with the product.

use std::collections::HashMap;

use cairn_proof::tree::{Edge, Hashes, TileBytes, Tiles};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tlog_tiles::{Hash, check_record, check_tree, prove_record, prove_tree, record_hash};

use crate::support::harness::repository;

/// A hash in the tree.
pub type Node = [u8; 32];

/// The hash of a leaf: RFC 6962, section 2.1.
pub fn leaf_hash(data: &[u8]) -> Node {
    Sha256::new().chain_update([0]).chain_update(data).finalize().into()
}

/// The hash of an inner node: RFC 6962, section 2.1.
pub fn node_hash(left: &Node, right: &Node) -> Node {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Parses a hash in hex.
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

/// The root that an inclusion proof leads to: RFC 9162, section 2.1.3.2. `None` if the proof has the wrong length.
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

/// Tiles in memory.
#[derive(Default)]
struct MemoryTiles(HashMap<(u8, u64), TileBytes>);

impl Tiles for MemoryTiles {
    fn tile(&self, level: u8, index: u64) -> Result<TileBytes, String> {
        self.0.get(&(level, index)).cloned().ok_or_else(|| "no such tile".to_owned())
    }
}

#[test]
fn leaves_roots_and_proofs_match_the_test_vectors() {
    let cases = cases();
    let (mut edge, mut tiles) = (Edge::default(), MemoryTiles::default());
    let roots = texts(&cases["roots"]);
    assert_eq!(edge.root().0, node(roots[0]));
    let mut leaves = Vec::new();
    for (index, leaf) in cases["leaves"].as_array().unwrap().iter().enumerate() {
        let hash = record_hash(leaf["data"].as_str().unwrap().as_bytes());
        assert_eq!(hash.0, node(leaf["hash"].as_str().unwrap()));
        edge.push(hash, |tile| drop(tiles.0.insert((tile.level, tile.index), tile.bytes)));
        leaves.push(hash.0);
        assert_eq!(edge.root().0, node(roots[index + 1]));
        assert_eq!(root(&leaves), node(roots[index + 1]), "the verifier of the tests agrees");
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

/// A hash in base64; `None` if it does not have 32 bytes.
fn hash(value: &Value) -> Option<Hash> {
    use base64::Engine;
    let bytes = base64::prelude::BASE64_STANDARD.decode(value.as_str()?).ok()?;
    bytes.try_into().ok().map(Hash)
}

/// The public test vectors of RFC 6962. They are not part of this repository; without them the list is empty.
fn public_cases(folder: &str) -> Vec<Value> {
    let folder = repository("../shared/vectors/public/rfc6962").join(folder);
    let (mut folders, mut cases) = (vec![folder.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            match entry.unwrap().path() {
                path if path.is_dir() => folders.push(path),
                path => cases.push(serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()),
            }
        }
    }
    assert!(cases.len() > 50 || !folder.exists(), "only {} cases", cases.len());
    cases
}

/// Invalid proofs that are derived from a valid one.
fn wrong_proofs(proof: &[Node], root: Node) -> Vec<Vec<Node>> {
    let garbage = leaf_hash(b"garbage");
    let mut wrong = vec![[&[garbage], proof].concat(), [proof, &[garbage]].concat()];
    wrong.extend([[&[root], proof].concat(), [proof, &[root]].concat()]);
    for at in 0..proof.len() {
        let (mut changed, mut removed, mut inserted) = (proof.to_vec(), proof.to_vec(), proof.to_vec());
        changed[at][5] ^= 8;
        removed.remove(at);
        inserted.insert(at, garbage);
        wrong.extend([changed, removed, inserted]);
        if at > 0 && proof[at - 1] != proof[at] {
            let mut swapped = proof.to_vec();
            swapped.swap(at - 1, at);
            wrong.push(swapped);
        }
    }
    wrong
}

/// Whether an inclusion proof is valid. The verifiers of the tests and of the product have to agree.
fn includes(proof: &[Node], size: u64, root: Node, index: u64, leaf: Node) -> bool {
    let ours = root_of_inclusion(leaf, index, size, proof) == Some(root);
    let hashes: Vec<Hash> = proof.iter().map(|node| Hash(*node)).collect();
    let theirs = index < size && check_record(&hashes, size, Hash(root), index, Hash(leaf)).is_ok();
    assert_eq!(ours, theirs, "leaf {index} of {size}: {proof:?}");
    ours
}

/// Whether a consistency proof is valid, by the verifier of the product.
fn is_consistent(proof: &[Node], size: u64, root: Node, old: u64, old_root: Node) -> bool {
    let hashes: Vec<Hash> = proof.iter().map(|node| Hash(*node)).collect();
    // Consistency with an empty tree proves nothing.
    old > 0 && old <= size && check_tree(&hashes, size, Hash(root), old, Hash(old_root)).is_ok()
}

#[test]
fn valid_inclusion_proofs_are_accepted_and_all_others_refused() {
    let cases = cases();
    let (roots, leaves) = (texts(&cases["roots"]), cases["leaves"].as_array().unwrap());
    for case in cases["inclusion"].as_array().unwrap() {
        let (index, size) = (case["leaf_index"].as_u64().unwrap(), case["tree_size"].as_u64().unwrap());
        let leaf = node(leaves[index as usize]["hash"].as_str().unwrap());
        let root = node(roots[size as usize]);
        let proof: Vec<Node> = texts(&case["siblings"]).into_iter().map(node).collect();
        assert!(includes(&proof, size, root, index, leaf), "{case}");
        for wrong in wrong_proofs(&proof, root) {
            assert!(!includes(&wrong, size, root, index, leaf), "{case}: {wrong:?}");
        }
        assert!(!includes(&proof, size, leaf_hash(b"another root"), index, leaf), "{case}");
        assert!(!includes(&proof, size, root, index, leaf_hash(b"another leaf")), "{case}");
        assert!(!includes(&proof, size, root, size, leaf), "{case}");
        // Other leaves of the tree, also some whose proof has the same length.
        for other in [index ^ 2, index + 1, index.wrapping_sub(1)].into_iter().filter(|other| *other < size) {
            assert!(!includes(&proof, size, root, other, leaf), "{case}: {other}");
        }
    }
    for case in public_cases("inclusion") {
        let proof = case["proof"].as_array().map(Vec::as_slice).unwrap_or_default();
        let proof: Option<Vec<Hash>> = proof.iter().map(hash).collect();
        let is_valid = match (proof, hash(&case["root"]), hash(&case["leafHash"])) {
            (Some(proof), Some(root), Some(leaf)) => {
                let nodes: Vec<Node> = proof.iter().map(|hash| hash.0).collect();
                let (size, index) = (case["treeSize"].as_u64().unwrap(), case["leafIdx"].as_u64().unwrap());
                includes(&nodes, size, root.0, index, leaf.0)
            }
            _ => false,
        };
        assert_eq!(is_valid, case["wantErr"] != true, "{case}");
    }
}

#[test]
fn valid_consistency_proofs_are_accepted_and_all_others_refused() {
    let cases = cases();
    let roots = texts(&cases["roots"]);
    for case in cases["consistency"].as_array().unwrap() {
        let (old, size) = (case["old_size"].as_u64().unwrap(), case["tree_size"].as_u64().unwrap());
        let (old_root, root) = (node(roots[old as usize]), node(roots[size as usize]));
        let proof: Vec<Node> = texts(&case["proof"]).into_iter().map(node).collect();
        assert!(is_consistent(&proof, size, root, old, old_root), "{case}");
        for wrong in wrong_proofs(&proof, root) {
            assert!(!is_consistent(&wrong, size, root, old, old_root), "{case}: {wrong:?}");
        }
        let other = leaf_hash(b"another root");
        assert!(!is_consistent(&proof, size, other, old, old_root), "{case}");
        assert!(!is_consistent(&proof, size, root, old, other), "{case}");
        assert!(old == size || !is_consistent(&proof, old, old_root, size, root), "{case}");
    }
    for case in public_cases("consistency") {
        let proof = case["proof"].as_array().map(Vec::as_slice).unwrap_or_default();
        let proof: Option<Vec<Hash>> = proof.iter().map(hash).collect();
        let (old, size) = (case["size1"].as_u64().unwrap(), case["size2"].as_u64().unwrap());
        let is_valid = match (proof, hash(&case["root1"]), hash(&case["root2"])) {
            (Some(proof), Some(old_root), Some(root)) => {
                let nodes: Vec<Node> = proof.iter().map(|hash| hash.0).collect();
                is_consistent(&nodes, size, root.0, old, old_root.0)
            }
            // One vector compares a tree with itself and has roots of 12 bytes, which `Hash` cannot represent.
            _ => {
                let is_empty = case["proof"].as_array().is_none_or(Vec::is_empty);
                old > 0 && old == size && case["root1"] == case["root2"] && is_empty
            }
        };
        assert_eq!(is_valid, case["wantErr"] != true, "{case}");
    }
}
