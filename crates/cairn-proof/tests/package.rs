//! A package that Cairn 0.1.0 wrote is valid, and no manipulation of it is.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use cairn_proof::evidence::{self, Outcome};
use cairn_proof::files;

const PACKAGE: &str = include_str!("../testdata/package.json");

/// The outcome, and the report, of verifying a text with the trusted key of the log.
fn verify(text: &str) -> (Outcome, String) {
    let keys = files::verifier_keys("testdata/log.vkey").unwrap();
    let verdict = evidence::verify(text.as_bytes(), &keys, || {}).unwrap();
    (verdict.outcome(), verdict.to_string())
}

/// The package with the first occurrence of `from` after the first occurrence of `after` replaced.
fn replaced(after: &str, from: &str, to: &str) -> String {
    let at = PACKAGE.find(after).expect("the package has this text");
    let (head, tail) = PACKAGE.split_at(at);
    assert!(tail.contains(from), "{from}");
    format!("{head}{}", tail.replacen(from, to, 1))
}

#[test]
fn the_package_is_valid() {
    let (outcome, report) = verify(PACKAGE);
    assert_eq!(outcome, Outcome::Valid, "{report}");
}

#[test]
fn every_manipulation_is_found() {
    let first_hash = PACKAGE.split(r#""hash":""#).nth(1).unwrap()[..64].to_owned();
    let other_hash = "0".repeat(63) + "1";
    let cases = [
        ("the content of an event", replaced(r#""events""#, "search", "delete"), "hash mismatch at sequence 1"),
        ("a sequence", replaced(r#""events""#, r#""sequence":2"#, r#""sequence":3"#), "sequence gap"),
        ("a previous hash", replaced(r#""sequence":1"#, &first_hash, &other_hash), "broken link at sequence 2"),
        ("a hash", replaced(r#""events""#, &first_hash, &other_hash), "hash mismatch at sequence 1"),
        ("a leaf index", replaced(r#""merkle_proofs""#, r#""leaf_index":"#, r#""leaf_index":1"#), "tree"),
        ("the tree size", replaced(r#""tree_size""#, ":32", ":33"), "tree"),
        ("the signed size", replaced(r#""checkpoint""#, r"\n32\n", r"\n33\n"), "checkpoint"),
    ];
    for (what, package, found) in cases {
        let (outcome, report) = verify(&package);
        assert_ne!(outcome, Outcome::Valid, "{what}: {report}");
        assert!(report.contains(found), "{what}: {report}");
    }
    for end in (0..PACKAGE.trim_end().len()).step_by(101) {
        let (outcome, report) = verify(&PACKAGE[..end]);
        assert_ne!(outcome, Outcome::Valid, "truncated at {end}: {report}");
    }
}

#[test]
fn without_a_trusted_key_nothing_is_proven() {
    let verdict = evidence::verify(PACKAGE.as_bytes(), &[], || {}).unwrap();
    assert_eq!(verdict.outcome(), Outcome::NotProven, "{verdict}");
}
