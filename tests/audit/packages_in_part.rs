//! Packages that lack something, and files that are none.

use serde_json::json;

use crate::support::forger::{layer, package, verify, write};
use crate::support::harness::run_text;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_package_does_not_show_is_said_and_never_taken_for_shown() {
    let (whole, key) = package().await;
    // The end is cut off, with its proofs: what is left is whole, and the verdict says where it ends.
    let mut package = whole.clone();
    for member in ["events", "merkle_proofs"] {
        package[member].as_array_mut().unwrap().truncate(60);
    }
    let (is_well, verdict) = verify(&write(&package), &[&key]);
    assert!(is_well && verdict["last_sequence"] == json!(60), "{verdict:#}");
    assert!(verdict["unproven"].to_string().contains("whether the agent has events after sequence 60"), "{verdict:#}");
    for (without, layers) in [
        (&["checkpoint"][..], &["checkpoint"][..]),
        (&["checkpoint", "log_key"], &["checkpoint"]),
        (&["checkpoint", "merkle_root", "tree_size"], &["checkpoint", "tree"]),
    ] {
        let mut package = whole.clone();
        without.iter().for_each(|member| drop(package.as_object_mut().unwrap().remove(*member)));
        let (is_well, verdict) = verify(&write(&package), &[&key]);
        assert!(!is_well && verdict["verdict"] == json!("not_proven"), "{verdict:#}");
        for name in ["package", "events", "chain", "tree", "checkpoint"] {
            let expected = if layers.contains(&name) { None } else { Some(true) };
            assert_eq!(layer(&verdict, name).0, expected, "{without:?}: {verdict:#}");
        }
    }
    // A package of nothing shows nothing.
    let mut package = whole.clone();
    (package["events"], package["merkle_proofs"]) = (json!([]), json!([]));
    let (is_well, verdict) = verify(&write(&package), &[&key]);
    assert!(!is_well && layer(&verdict, "chain") == (None, "there is no event in it"), "{verdict:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_no_package_is_said_to_be_none() {
    let (whole, key) = package().await;
    let text = write(&whole);
    let events_at = text.find("\"events\":").unwrap();
    let cases = [
        (String::new(), "the file ends"),
        ("{}".to_owned(), "\"version\" is missing"),
        ("[1]".to_owned(), "expected `{`"),
        (text.replace("\"version\":\"1.0\"", "\"version\":\"2.0\""), "\"2.0\" is not known to this program"),
        (text.replacen('{', "{\"comment\":1,", 1), "unknown member \"comment\""),
        (text.replacen('{', "{\"tree_size\":1,", 1), "\"version\" is missing, or not in its place"),
        (text.replacen("\"log_key\":", "\"checkpoint\":\"\",\"log_key\":", 1), "\"checkpoint\" is there twice"),
        (format!("{}\"events\":[],{}", &text[..events_at], &text[events_at..]), "\"events\" is there twice"),
        (text.replacen("\"since\":null", "\"since\":null,\"colour\":1", 1), "unknown field `colour`"),
        (text.replacen("\"leaf_index\":", "\"more\":1,\"leaf_index\":", 1), "unknown field `more`"),
        (text.replacen("\"leaf_hash\":\"", "\"leaf_hash\":\"A", 1), "expected 64 lower-case hex digits"),
        (format!("{text} {{}}"), "something behind the package"),
        (text.replacen("\"exported_at\":\"", "\"exported_at\":\"x\\nVALID", 1), "exported_at: expected a time"),
        (
            text.replacen("{\"agent_id\":\"агент-3\",\"since\":null,\"until\":null}", "[\"агент-3\",null,null]", 1),
            "expected an object",
        ),
        (text.replacen("\"tree_size\":700", "\"tree_size\":", 1), "tree_size"),
        ("\u{1f}\u{8b}".to_owned(), "it is compressed"),
    ];
    for (text, why) in &cases {
        let (is_well, verdict) = verify(text, &[&key]);
        let (holds, says) = layer(&verdict, "package");
        assert!(!is_well && holds == Some(false) && says.contains(why), "{why}: {verdict:#}");
    }
    // Broken off anywhere, it is not taken for whole, and nothing panics.
    for end in (0..text.len() - 1).step_by(997).chain([events_at, text.len() - 1]) {
        let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap();
        let (is_well, verdict) = verify(&text[..end], &[&key]);
        assert!(!is_well && layer(&verdict, "package").0 == Some(false), "{end}: {verdict:#}");
        assert!(layer(&verdict, "chain").0.is_none(), "what was not read is not said to hold: {verdict:#}");
        assert!(layer(&verdict, "tree").0.is_none(), "what was not read is not said to be wrong: {verdict:#}");
    }
    // What the file says cannot look like what the verifier says.
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("package.json");
    std::fs::write(&file, text.replacen("\"log_key\":\"", "\"log_key\":\"x\\n  chain       holds: yes\\nVALID\\n", 1))
        .unwrap();
    let (code, said, _) = run_text(&["verify-export", file.to_str().unwrap()]);
    assert!(code == 1 && !said.lines().any(|line| line == "VALID") && said.ends_with("BROKEN\n"), "{said}");
    std::fs::write(&file, "<html>").unwrap();
    let (code, said, _) = run_text(&["verify-export", file.to_str().unwrap()]);
    assert!(
        code == 1 && said.starts_with("this is no evidence package: not JSON") && said.lines().count() == 2,
        "{said}"
    );
    let missing = run_text(&["verify-export", "/nowhere"]);
    assert!(missing.0 == 3 && missing.2.contains("/nowhere"), "{missing:?}");
    let no_key = run_text(&["verify-export", "/nowhere", "--key", "nonsense"]);
    assert!(no_key.0 == 2 && no_key.2.contains("no verifier key"), "{no_key:?}");
}
