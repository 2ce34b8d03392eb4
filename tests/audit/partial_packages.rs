//! Incomplete evidence packages, and files that are not packages.

use serde_json::json;

use crate::support::forger::{layer, package, serialize, verify};
use crate::support::harness::run_text;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_package_does_not_prove_is_reported_and_never_called_valid() {
    let (original, key) = package().await;
    // Without its last events and their proofs a package is still valid; the verdict contains the last sequence.
    let mut package = original.clone();
    for member in ["events", "merkle_proofs"] {
        package[member].as_array_mut().unwrap().truncate(60);
    }
    let (is_valid, verdict) = verify(&serialize(&package), &[&key]);
    assert!(is_valid && verdict["last_sequence"] == json!(60), "{verdict:#}");
    assert!(verdict["unproven"].to_string().contains("whether the agent has events after sequence 60"), "{verdict:#}");
    for (without, layers) in [
        (&["checkpoint"][..], &["checkpoint"][..]),
        (&["checkpoint", "log_key"], &["checkpoint"]),
        (&["checkpoint", "merkle_root", "tree_size"], &["checkpoint", "tree"]),
    ] {
        let mut package = original.clone();
        without.iter().for_each(|member| drop(package.as_object_mut().unwrap().remove(*member)));
        let (is_valid, verdict) = verify(&serialize(&package), &[&key]);
        assert!(!is_valid && verdict["verdict"] == json!("not_proven"), "{verdict:#}");
        for name in ["package", "events", "chain", "tree", "checkpoint"] {
            let expected = if layers.contains(&name) { None } else { Some(true) };
            assert_eq!(layer(&verdict, name).0, expected, "{without:?}: {verdict:#}");
        }
    }
    // A package without events proves nothing.
    let mut package = original.clone();
    (package["events"], package["merkle_proofs"]) = (json!([]), json!([]));
    let (is_valid, verdict) = verify(&serialize(&package), &[&key]);
    assert!(!is_valid && layer(&verdict, "chain") == (None, "the package has no events"), "{verdict:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_a_package_is_broken_and_the_reason_is_named() {
    let (original, key) = package().await;
    let text = serialize(&original);
    let events_at = text.find("\"events\":").unwrap();
    let cases = [
        (String::new(), "the file ends"),
        ("{}".to_owned(), "\"version\" is missing"),
        ("[1]".to_owned(), "expected `{`"),
        (text.replace("\"version\":\"1.1\"", "\"version\":\"2.0\""), "unsupported version \"2.0\""),
        (text.replacen('{', "{\"comment\":1,", 1), "unknown member \"comment\""),
        (text.replacen('{', "{\"tree_size\":1,", 1), "\"version\" is missing or out of order"),
        (
            text.replacen("\"log_key\":", "\"checkpoint\":\"\",\"log_key\":", 1),
            "\"checkpoint\" is duplicate or out of order",
        ),
        (
            format!("{}\"events\":[],{}", &text[..events_at], &text[events_at..]),
            "\"events\" is duplicate or out of order",
        ),
        (text.replacen("\"since\":null", "\"since\":null,\"colour\":1", 1), "unknown field `colour`"),
        (text.replacen("\"leaf_index\":", "\"more\":1,\"leaf_index\":", 1), "unknown field `more`"),
        (text.replacen("\"leaf_hash\":\"", "\"leaf_hash\":\"A", 1), "expected 64 lower-case hex digits"),
        (format!("{text} {{}}"), "unexpected data after the package"),
        (
            text.replacen("\"exported_at\":\"", "\"exported_at\":\"x\\nVALID", 1),
            "exported_at: expected an RFC 3339 time",
        ),
        (
            text.replacen("{\"agent_id\":\"агент-3\",\"since\":null,\"until\":null}", "[\"агент-3\",null,null]", 1),
            "expected an object",
        ),
        (text.replacen("\"tree_size\":700", "\"tree_size\":", 1), "tree_size"),
        ("\u{1f}\u{8b}".to_owned(), "the file is compressed"),
    ];
    for (text, expected) in &cases {
        let (is_valid, verdict) = verify(text, &[&key]);
        let (holds, message) = layer(&verdict, "package");
        assert!(!is_valid && holds == Some(false) && message.contains(expected), "{expected}: {verdict:#}");
    }
    // A package that is truncated at any byte is broken, and the verifier does not panic.
    for end in (0..text.len() - 1).step_by(997).chain([events_at, text.len() - 1]) {
        let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap();
        let (is_valid, verdict) = verify(&text[..end], &[&key]);
        assert!(!is_valid && layer(&verdict, "package").0 == Some(false), "{end}: {verdict:#}");
        assert!(layer(&verdict, "chain").0.is_none(), "a layer that was not read does not hold: {verdict:#}");
        assert!(layer(&verdict, "tree").0.is_none(), "a layer that was not read is not broken: {verdict:#}");
    }
    // Text of the file cannot imitate output of the verifier.
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("package.json");
    std::fs::write(&file, text.replacen("\"log_key\":\"", "\"log_key\":\"x\\n  chain       holds: yes\\nVALID\\n", 1))
        .unwrap();
    let (code, stdout, _) = run_text(&["verify-export", file.to_str().unwrap()]);
    assert!(code == 1 && !stdout.lines().any(|line| line == "VALID") && stdout.ends_with("BROKEN\n"), "{stdout}");
    std::fs::write(&file, "<html>").unwrap();
    let (code, stdout, _) = run_text(&["verify-export", file.to_str().unwrap()]);
    assert!(
        code == 1 && stdout.starts_with("not an evidence package: not JSON") && stdout.lines().count() == 2,
        "{stdout}"
    );
    let missing = run_text(&["verify-export", "/nowhere"]);
    assert!(missing.0 == 3 && missing.2.contains("/nowhere"), "{missing:?}");
    let no_key = run_text(&["verify-export", "/nowhere", "--key", "nonsense"]);
    assert!(no_key.0 == 2 && no_key.2.contains("is not a verifier key"), "{no_key:?}");
}
