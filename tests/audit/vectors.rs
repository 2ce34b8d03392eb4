//! Canonical bytes and hashes are those of the published cases and of the independent reference.

use cairn_proof::chain::{Hash, canonicalize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::support::harness::{reference, repository};

fn cases(name: &str) -> Value {
    let text = std::fs::read_to_string(repository("tests/vectors").join(name)).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_case_of_canonical_json_is_met() {
    let cases = cases("canonical.json");
    for case in cases["accept"].as_array().unwrap() {
        let input = case["input"].as_str().unwrap();
        let canonical = canonicalize(input).unwrap_or_else(|error| panic!("{input}: {error}"));
        assert_eq!(String::from_utf8(canonical.clone()).unwrap(), case["canonical"].as_str().unwrap(), "{input}");
        assert_eq!(hex(&Sha256::digest(&canonical)), case["sha256"].as_str().unwrap(), "{input}");
    }
    for input in cases["reject"].as_array().unwrap() {
        let input = input.as_str().unwrap();
        assert!(canonicalize(input).is_err(), "accepted: {input}");
    }
}

#[test]
fn every_link_of_the_chain_cases_is_met() {
    let cases = cases("chain.json");
    let events = cases["events"].as_array().unwrap();
    assert_eq!(cases["genesis"].as_str().unwrap(), Hash::GENESIS.to_string());
    for case in events {
        let event = &case["event"];
        let canonical = case["canonical"].as_str().unwrap();
        assert_eq!(canonicalize(canonical).unwrap(), canonical.as_bytes());
        let mut prev = [0; 32];
        for (byte, pair) in prev.iter_mut().zip(event["prev_hash"].as_str().unwrap().as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        let hash = Hash::of_event(canonical.as_bytes(), &Hash(prev));
        assert_eq!(hash.to_string(), event["hash"].as_str().unwrap());
    }
}

/// The public cases are read where they are, and not a part of this repository.
#[test]
fn every_public_case_of_rfc_8785_is_met() {
    let folder = repository("../shared/vectors/public/jcs");
    if !folder.exists() {
        eprintln!("skipped: {} is not there", folder.display());
        return;
    }
    let mut count = 0;
    for file in std::fs::read_dir(folder.join("input")).unwrap() {
        let input = file.unwrap().path();
        let expected = std::fs::read(folder.join("output").join(input.file_name().unwrap())).unwrap();
        let canonical = canonicalize(&std::fs::read_to_string(&input).unwrap()).unwrap();
        let expected = String::from_utf8(expected).unwrap();
        assert_eq!(String::from_utf8(canonical).unwrap(), expected.trim_end(), "{}", input.display());
        count += 1;
    }
    assert!(count >= 6, "only {count} cases");
}

#[test]
fn the_reference_and_the_program_agree_on_awkward_texts() {
    let texts = [
        r#"{"b":[1.0,-0,1e21,123456789012345680000,9007199254740993],"a":"\u0001\"\\é😀","":null}"#,
        r#"{"\ufb33":1,"\ud83d\ude00":2,"z":3,"\u0080":4}"#,
        r#"[4.5e-7,0.1e1,1e-400,179769313486231570000000000000000000000e270,2.2250738585072014e-308]"#,
        r#"{"a":1,"\u0061":2}"#,
        "[18446744073709551616]",
        r#""\ud83d x""#,
        "[1,2",
        "\u{feff}1",
    ];
    for text in texts {
        let ours = canonicalize(text).map(|bytes| String::from_utf8(bytes).unwrap());
        let theirs = reference("canonical", text);
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}: {ours:?} and {theirs:?}");
        if let (Ok(ours), Ok(theirs)) = (ours, theirs) {
            assert_eq!(ours, theirs);
        }
    }
}
