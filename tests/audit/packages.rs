//! Evidence packages: every kind of tampering is found by the layer of the verifier that is responsible for it.

use cairn::tlog::keys::Keys;
use cairn_proof::chain::Hash;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::forger::{EVENTS, event, layer, leaf, package, rebuild, rehash, serialize, verify};
use crate::support::harness::reference;

#[tokio::test(flavor = "multi_thread")]
async fn every_layer_of_a_package_holds_and_it_is_valid_only_with_a_key_that_the_auditor_names() {
    let (package, key) = package().await;
    let text = serialize(&package);
    let (is_valid, verdict) = verify(&text, &[&key]);
    assert!(is_valid, "{verdict:#}");
    for name in ["package", "events", "chain", "tree", "checkpoint"] {
        assert_eq!(layer(&verdict, name).0, Some(true), "{verdict:#}");
    }
    assert_eq!((&verdict["events"], &verdict["last_sequence"]), (&json!(EVENTS), &json!(EVENTS)));
    assert!(layer(&verdict, "checkpoint").1.contains("a key that you named"));
    let unproven = verdict["unproven"].to_string();
    for what in ["exported_at", "filter", "validation_warnings", "events after sequence 100"] {
        assert!(unproven.contains(what), "{unproven}");
    }
    // The key in the file proves nothing: whoever made the file chose it.
    let (is_valid, verdict) = verify(&text, &[]);
    let (holds, message) = layer(&verdict, "checkpoint");
    assert!(!is_valid && holds.is_none() && message.contains("which is only in the file"), "{verdict:#}");
    assert_eq!((&verdict["valid"], &verdict["verdict"]), (&json!(false), &json!("not_proven")));
    // White space and escapes in the JSON do not matter.
    let pretty = serialize(&package).replace("{\"agent_id\":\"агент-3\",", "{\n \"agent_id\" : \"\\u0430гент-3\" ,\n");
    assert!(pretty != text && verify(&pretty, &[&key]).0);
    // The independent reference accepts it, too.
    let output = reference("package", &text).unwrap();
    assert!(output.starts_with("100 events in the tree of 700"), "{output}");
}

/// Attacks that the reference does not find, because it does not check what a package states about itself.
const NOT_FOUND_BY_REFERENCE: [&str; 4] = [
    "the first events are removed",
    "an event is outside the filter's time range",
    "the tree size differs from the checkpoint's, and there is no root",
    "the highest possible sequences",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_on_a_package_is_found_by_the_layer_that_is_responsible_for_it() {
    /// A name, the change to the package, and the layers that find it with a part of their messages.
    type Attack<'a> = (&'a str, fn(&mut Value), &'a [(&'a str, &'a str)]);
    let attacks: &[Attack<'_>] = &[
        (
            "a field is changed",
            |package| drop(event(package, 40).insert("action_input".to_owned(), json!("other"))),
            &[("chain", "hash mismatch at sequence 41")],
        ),
        (
            "a field is changed, and the hash of the event recomputed",
            |package| {
                event(package, 40).insert("action_input".to_owned(), json!("other"));
                rehash(package, 40, 1);
            },
            &[
                ("chain", "broken link at sequence 42"),
                ("tree", "the proof of event 41 of the package belongs to another event"),
            ],
        ),
        (
            "the last event and its hash are changed, which no link shows",
            |package| {
                event(package, EVENTS - 1).insert("action_input".to_owned(), json!("other"));
                rehash(package, EVENTS - 1, 1);
            },
            &[("tree", "the proof of event 100 of the package belongs to another event")],
        ),
        (
            "the chain is rewritten from event 41",
            |package| {
                event(package, 40).insert("action_input".to_owned(), json!("other"));
                rehash(package, 40, EVENTS - 40);
            },
            &[("tree", "the proof of event 41 of the package belongs to another event")],
        ),
        (
            "the chain is rewritten, and the leaf hashes in the proofs replaced",
            |package| {
                event(package, 40).insert("action_input".to_owned(), json!("other"));
                rehash(package, 40, EVENTS - 40);
                for at in 40..EVENTS {
                    package["merkle_proofs"][at]["proof"]["leaf_hash"] =
                        json!(Hash(leaf(&package["events"][at])).to_string());
                }
            },
            &[("tree", "proof 41 of the package, for event")],
        ),
        (
            "two leaf indices are swapped",
            |package| {
                let index = |at: usize| package["merkle_proofs"][at]["proof"]["leaf_index"].clone();
                let (a, b) = (index(10), index(11));
                package["merkle_proofs"][10]["proof"]["leaf_index"] = b;
                package["merkle_proofs"][11]["proof"]["leaf_index"] = a;
            },
            &[("tree", "proof 11 of the package")],
        ),
        (
            "an event has an unknown field",
            |package| drop(event(package, 3).insert("approved_by".to_owned(), json!("the boss"))),
            &[("events", "event 4 of the package, sequence 4: unknown field \"approved_by\"")],
        ),
        (
            "a known field is added to an event",
            |package| drop(event(package, 3).insert("error_message".to_owned(), json!("it failed"))),
            &[("chain", "hash mismatch at sequence 4")],
        ),
        (
            "an event is duplicated",
            |package| {
                let events = package["events"].as_array_mut().unwrap();
                events.insert(50, events[49].clone());
            },
            &[("chain", "sequence gap: expected 51, found 50"), ("tree", "belongs to another event")],
        ),
        (
            "an event and its proof are duplicated",
            |package| {
                for member in ["events", "merkle_proofs"] {
                    let items = package[member].as_array_mut().unwrap();
                    items.insert(50, items[49].clone());
                }
            },
            &[("chain", "sequence gap: expected 51, found 50"), ("tree", "leaf_index is not greater")],
        ),
        (
            "an event is missing",
            |package| drop(package["events"].as_array_mut().unwrap().remove(50)),
            &[
                ("chain", "sequence gap: expected 51, found 52"),
                ("tree", "the proof of event 51 of the package belongs to"),
            ],
        ),
        (
            "an event and its proof are missing",
            |package| {
                for member in ["events", "merkle_proofs"] {
                    package[member].as_array_mut().unwrap().remove(50);
                }
            },
            &[("chain", "sequence gap: expected 51, found 52")],
        ),
        (
            "proofs are missing",
            |package| package["merkle_proofs"].as_array_mut().unwrap().truncate(98),
            &[("tree", "there are 100 events and 98 proofs")],
        ),
        (
            "an event names another agent",
            |package| drop(event(package, 20).insert("agent_id".to_owned(), json!("агент-4"))),
            &[
                ("events", "event 21 of the package, sequence 21: it belongs to agent \"агент-4\""),
                ("chain", "hash mismatch at sequence 21"),
                ("tree", "the proof of event 21 of the package belongs to another event"),
            ],
        ),
        (
            "the filter names another agent",
            |package| package["filter"]["agent_id"] = json!("агент-4"),
            &[("events", "event 1 of the package, sequence 1: it belongs to agent \"агент-3\"")],
        ),
        (
            "the first events are removed",
            |package| {
                for member in ["events", "merkle_proofs"] {
                    package[member].as_array_mut().unwrap().drain(..30);
                }
                package["first_sequence"] = json!(31);
                package["anchor_prev_hash"] = package["events"][0]["prev_hash"].clone();
            },
            &[("chain", "the package begins with sequence 31, but its filter has no since")],
        ),
        (
            "the anchor does not match the first event",
            |package| {
                package["first_sequence"] = json!(31);
                package["filter"]["since"] = json!("2020-01-01T00:00:00.000Z");
                for member in ["events", "merkle_proofs"] {
                    package[member].as_array_mut().unwrap().drain(..30);
                }
            },
            &[("chain", "broken link at sequence 31")],
        ),
        (
            "an event is outside the filter's time range",
            |package| package["filter"]["until"] = package["events"][99]["received_at"].clone(),
            &[("events", "received_at is outside the interval of the filter")],
        ),
        (
            "a proof is of another tree",
            |package| package["merkle_proofs"][5]["proof"]["tree_size"] = json!(699),
            &[("tree", "proof 6 of the package")],
        ),
        (
            "the root differs from the checkpoint's",
            |package| package["merkle_root"] = json!("00".repeat(32)),
            &[("tree", "merkle_root or tree_size does not match the checkpoint")],
        ),
        (
            "a character of the signature is changed",
            |package| {
                let note = package["checkpoint"].as_str().unwrap().to_owned();
                let (text, signature) = note.trim_end().rsplit_once(' ').unwrap();
                let at = signature.len() / 2;
                let other = if &signature[at..=at] == "A" { "B" } else { "A" };
                let signature = format!("{}{other}{}", &signature[..at], &signature[at + 1..]);
                package["checkpoint"] = json!(format!("{text} {signature}\n"));
            },
            &[("checkpoint", "invalid signature for key the/log+")],
        ),
        (
            "the signed text is changed",
            |package| {
                let note = package["checkpoint"].as_str().unwrap().replace("\n700\n", "\n701\n");
                (package["checkpoint"], package["tree_size"]) = (json!(note), json!(701));
            },
            &[("checkpoint", "invalid signature"), ("tree", "proof 1 of the package")],
        ),
        (
            "the tree size differs from the checkpoint's, and there is no root",
            |package| {
                package["tree_size"] = json!(999);
                package.as_object_mut().unwrap().remove("merkle_root");
            },
            &[("tree", "merkle_root or tree_size does not match the checkpoint")],
        ),
        (
            "the highest possible sequences",
            |package| {
                package["filter"]["since"] = json!("2020-01-01T00:00:00.000Z");
                package["first_sequence"] = json!(u64::MAX);
                for at in 0..EVENTS {
                    event(package, at).insert("sequence".to_owned(), json!(u64::MAX - u64::from(at > 0)));
                }
            },
            &[("chain", "first_sequence: expected 1 to 2^56"), ("tree", "belongs to another event")],
        ),
        (
            "an event has another schema version",
            |package| drop(event(package, 3).insert("schema_version".to_owned(), json!("9.0"))),
            &[("events", "schema_version"), ("chain", "hash mismatch at sequence 4")],
        ),
        (
            "the tree size is larger than any tree",
            |package| {
                let note = package["checkpoint"].as_str().unwrap().replace("\n700\n", "\n18446744073709551615\n");
                (package["checkpoint"], package["tree_size"]) = (json!(note), json!(u64::MAX));
            },
            &[("checkpoint", "invalid signature"), ("tree", "the tree has more than 2^56 leaves")],
        ),
    ];
    let (original, key) = package().await;
    for (what, attack, findings) in attacks {
        let mut package = original.clone();
        attack(&mut package);
        let (is_valid, verdict) = verify(&serialize(&package), &[&key]);
        assert!(!is_valid && verdict["verdict"] == json!("broken"), "{what}: {verdict:#}");
        for name in ["package", "events", "chain", "tree", "checkpoint"] {
            let (holds, message) = layer(&verdict, name);
            match findings.iter().find(|(layer, _)| *layer == name) {
                Some((_, expected)) => {
                    assert!(holds == Some(false) && message.contains(expected), "{what}: {name}: {message}")
                }
                None => assert_eq!(holds, Some(true), "{what}: {name}: {message}"),
            }
        }
        // The reference checks neither the signature nor what the package states about itself.
        if findings[0].0 != "checkpoint" && !NOT_FOUND_BY_REFERENCE.contains(what) {
            assert!(reference("package", &serialize(&package)).is_err(), "{what}: the reference accepts it");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_package_under_another_key_is_not_valid_with_the_real_key() {
    let (mut package, key) = package().await;
    let folder = TempDir::new().unwrap();
    event(&mut package, 40).insert("action_input".to_owned(), json!("what never happened"));
    rehash(&mut package, 40, EVENTS - 40);
    let forged = rebuild(&mut package, &folder.path().join("key"));
    let text = serialize(&package);
    let (is_valid, verdict) = verify(&text, &[&key]);
    assert!(!is_valid && layer(&verdict, "checkpoint").0 == Some(false), "{verdict:#}");
    assert!(layer(&verdict, "checkpoint").1.contains("not signed with the/log+"), "{verdict:#}");
    for name in ["package", "events", "chain", "tree"] {
        assert_eq!(layer(&verdict, name).0, Some(true), "everything else holds: {verdict:#}");
    }
    // Without a key of the auditor it is consistent, but not valid.
    let (is_valid, verdict) = verify(&text, &[]);
    assert!(!is_valid && verdict["verdict"] == json!("not_proven"), "{verdict:#}");
    assert!(verify(&text, &[&forged]).0, "with its own key the forged package is valid");
    // The key in the package is replaced: the verifier ignores it if the auditor names the real key.
    let (mut real, key) = crate::support::forger::package().await;
    real["log_key"] = json!(forged);
    assert!(verify(&serialize(&real), &[&key]).0);
    let (is_valid, verdict) = verify(&serialize(&real), &[]);
    assert!(!is_valid && layer(&verdict, "checkpoint").0 == Some(false), "{verdict:#}");
    // A key of another log cannot sign a checkpoint of this log, even if the auditor names it.
    let other = Keys::create(&folder.path().join("other"), "another/log").unwrap();
    let note = other.sign(real["checkpoint"].as_str().unwrap().split_once("\n\n").unwrap().0.as_bytes());
    assert!(note.is_err(), "the text of a note ends with a newline");
    let text = format!("{}\n", real["checkpoint"].as_str().unwrap().split_once("\n\n").unwrap().0);
    real["checkpoint"] = json!(String::from_utf8(other.sign(text.as_bytes()).unwrap()).unwrap());
    let (is_valid, verdict) = verify(&serialize(&real), &[&other.verifiers()[0]]);
    assert!(!is_valid && layer(&verdict, "checkpoint").1.contains("with a key of another log"), "{verdict:#}");
}
