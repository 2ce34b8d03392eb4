//! Canonical bytes and hashes agree with published test vectors and with the independent reference.

use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{AgentKey, Hash, canonicalize};
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
fn canonical_bytes_and_their_hashes_match_every_vector() {
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
fn every_hash_of_the_chain_vectors_is_reproduced() {
    for cases in [cases("chain.json"), cases("salted.json")] {
        assert_eq!(cases["genesis"].as_str().unwrap(), Hash::GENESIS.to_string());
        check_hashes(cases["events"].as_array().unwrap());
    }
}

fn check_hashes(events: &[Value]) {
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
        let (agent, mut checker) = (AgentKey::of(event["agent_id"].as_str().unwrap()), Checker::default());
        checker.check(canonical.as_bytes(), agent).unwrap();
    }
}

/// The public test vectors of RFC 8785 are not part of this repository; they are checked if they exist. The cases here
/// and in `canonical.json` cover the same rules.
#[test]
fn canonical_bytes_match_the_rules_of_rfc_8785() {
    let cases = [
        ("[ 56, {\"b\": true, \"20\": null, \"2\": [ ] } ]", r#"[56,{"2":[],"20":null,"b":true}]"#),
        (r#"{"côté": 1, "côte": 2, "cote": 3, "z": 4}"#, r#"{"cote":3,"côte":2,"côté":1,"z":4}"#),
        (
            r#"{"n":{"a":"x","A":1.0},"\t":{},"":[{"q":0,"Q":-0}]}"#,
            r#"{"":[{"Q":0,"q":0}],"\t":{},"n":{"A":1,"a":"x"}}"#,
        ),
        (r#"{"not normalized":"O\u0308"}"#, "{\"not normalized\":\"O\u{308}\"}"),
        (
            r#"[111111111.11111112, 2E31, 7.250, 3e-4, 0.0000000000000000000000000004]"#,
            "[111111111.11111112,2e+31,7.25,0.0003,4e-28]",
        ),
        (r#"["\u00A3\u001E\u0009\u0043\u0022\u005C\/", false, null]"#, r#"["£\u001e\tC\"\\/",false,null]"#),
        (
            r#"{"\ud83d\ude80":1,"\ufb1f":2,"\u20ac":3,"<b>":4,"\u007f":5}"#,
            "{\"<b>\":4,\"\u{7f}\":5,\"€\":3,\"🚀\":1,\"\u{fb1f}\":2}",
        ),
    ];
    for (input, expected) in cases {
        assert_eq!(String::from_utf8(canonicalize(input).unwrap()).unwrap(), expected);
    }
    let folder = repository("../shared/vectors/public/jcs");
    let mut count = 0;
    for file in std::fs::read_dir(folder.join("input")).into_iter().flatten() {
        let input = file.unwrap().path();
        let expected = std::fs::read_to_string(folder.join("output").join(input.file_name().unwrap())).unwrap();
        let canonical = canonicalize(&std::fs::read_to_string(&input).unwrap()).unwrap();
        assert_eq!(String::from_utf8(canonical).unwrap(), expected.trim_end(), "{}", input.display());
        count += 1;
    }
    assert!(count >= 6 || !folder.exists(), "only {count} cases");
}

#[test]
fn the_reference_and_the_program_agree_on_edge_cases() {
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
