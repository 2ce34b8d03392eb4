//! Evidence packages: what is done to one, which layer finds it, and what the verifier says.

use cairn::tlog::keys::Keys;
use cairn_proof::chain::Hash;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::forger::{EVENTS, event, layer, leaf, package, rebuild, rehash, verify, write};
use crate::support::harness::reference;

#[tokio::test(flavor = "multi_thread")]
async fn a_package_holds_layer_by_layer_and_only_under_a_key_that_was_named() {
    let (package, key) = package().await;
    let text = write(&package);
    let (is_well, verdict) = verify(&text, &[&key]);
    assert!(is_well, "{verdict:#}");
    for name in ["package", "events", "chain", "tree", "checkpoint"] {
        assert_eq!(layer(&verdict, name).0, Some(true), "{verdict:#}");
    }
    assert_eq!((&verdict["events"], &verdict["last_sequence"]), (&json!(EVENTS), &json!(EVENTS)));
    assert!(layer(&verdict, "checkpoint").1.contains("which you named"));
    let unproven = verdict["unproven"].to_string();
    for what in ["exported_at", "filter", "validation_warnings", "events after sequence 100"] {
        assert!(unproven.contains(what), "{unproven}");
    }
    // The key in the file is what the file's maker wants it to be.
    let (is_well, verdict) = verify(&text, &[]);
    let (holds, says) = layer(&verdict, "checkpoint");
    assert!(!is_well && holds.is_none() && says.contains("stands only in the file"), "{verdict:#}");
    assert_eq!((&verdict["valid"], &verdict["verdict"]), (&json!(false), &json!("not_proven")));
    // White space and the order of an event's fields are nobody's business.
    let pretty = write(&package).replace("{\"agent_id\":\"агент-3\",", "{\n \"agent_id\" : \"\\u0430гент-3\" ,\n");
    assert!(pretty != text && verify(&pretty, &[&key]).0);
    // Another program, by the same rules, agrees.
    let said = reference("package", &text).unwrap();
    assert!(said.starts_with("100 events in the tree of 700"), "{said}");
}

/// Attacks on what a package says of itself, and not on what is in it.
const BY_THE_CLAIMS: [&str; 4] = [
    "the beginning is cut off",
    "an event is not of the filter's time",
    "the package names another size than its checkpoint, and no root",
    "the last sequences that there are",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_to_a_package_is_found_by_the_layer_that_is_there_for_it() {
    /// What is done to a package; the layers that find it, and what they say.
    type Attack<'a> = (&'a str, fn(&mut Value), &'a [(&'a str, &'a str)]);
    let attacks: &[Attack<'_>] = &[
        (
            "a field is changed",
            |package| drop(event(package, 40).insert("action_input".to_owned(), json!("other"))),
            &[("chain", "hash mismatch at sequence 41")],
        ),
        (
            "a field is changed, and the event's hash made to fit",
            |package| {
                event(package, 40).insert("action_input".to_owned(), json!("other"));
                rehash(package, 40, 1);
            },
            &[
                ("chain", "broken link at sequence 42"),
                ("tree", "the proof of event 41 of the package is of another event"),
            ],
        ),
        (
            "the last event is changed, with its hash: no link shows it",
            |package| {
                event(package, EVENTS - 1).insert("action_input".to_owned(), json!("other"));
                rehash(package, EVENTS - 1, 1);
            },
            &[("tree", "the proof of event 100 of the package is of another event")],
        ),
        (
            "the chain is rewritten from an event on",
            |package| {
                event(package, 40).insert("action_input".to_owned(), json!("other"));
                rehash(package, 40, EVENTS - 40);
            },
            &[("tree", "the proof of event 41 of the package is of another event")],
        ),
        (
            "the chain is rewritten, and its leaves written into the proofs",
            |package| {
                event(package, 40).insert("action_input".to_owned(), json!("other"));
                rehash(package, 40, EVENTS - 40);
                for at in 40..EVENTS {
                    package["merkle_proofs"][at]["proof"]["leaf_hash"] =
                        json!(Hash(leaf(&package["events"][at])).to_string());
                }
            },
            &[("tree", "proof 41 of the package, of the event")],
        ),
        (
            "two leaves change places",
            |package| {
                let index = |at: usize| package["merkle_proofs"][at]["proof"]["leaf_index"].clone();
                let (a, b) = (index(10), index(11));
                package["merkle_proofs"][10]["proof"]["leaf_index"] = b;
                package["merkle_proofs"][11]["proof"]["leaf_index"] = a;
            },
            &[("tree", "proof 11 of the package")],
        ),
        (
            "a field that no event has",
            |package| drop(event(package, 3).insert("approved_by".to_owned(), json!("the boss"))),
            &[("events", "event 4 of the package, sequence 4: unknown field \"approved_by\"")],
        ),
        (
            "a field that an event may have",
            |package| drop(event(package, 3).insert("error_message".to_owned(), json!("it failed"))),
            &[("chain", "hash mismatch at sequence 4")],
        ),
        (
            "an event is there twice",
            |package| {
                let events = package["events"].as_array_mut().unwrap();
                events.insert(50, events[49].clone());
            },
            &[("chain", "sequence gap: expected 51, found 50"), ("tree", "is of another event")],
        ),
        (
            "an event and its proof are there twice",
            |package| {
                for member in ["events", "merkle_proofs"] {
                    let items = package[member].as_array_mut().unwrap();
                    items.insert(50, items[49].clone());
                }
            },
            &[("chain", "sequence gap: expected 51, found 50"), ("tree", "rise with its sequence")],
        ),
        (
            "an event is missing",
            |package| drop(package["events"].as_array_mut().unwrap().remove(50)),
            &[("chain", "sequence gap: expected 51, found 52"), ("tree", "the proof of event 51 of the package is of")],
        ),
        (
            "an event is missing, with its proof",
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
            "another agent's event, under its own proof",
            |package| drop(event(package, 20).insert("agent_id".to_owned(), json!("агент-4"))),
            &[
                ("events", "event 21 of the package, sequence 21: it is an event of the agent \"агент-4\""),
                ("chain", "hash mismatch at sequence 21"),
                ("tree", "the proof of event 21 of the package is of another event"),
            ],
        ),
        (
            "the package says that it is of another agent",
            |package| package["filter"]["agent_id"] = json!("агент-4"),
            &[("events", "event 1 of the package, sequence 1: it is an event of the agent \"агент-3\"")],
        ),
        (
            "the beginning is cut off",
            |package| {
                for member in ["events", "merkle_proofs"] {
                    package[member].as_array_mut().unwrap().drain(..30);
                }
                package["first_sequence"] = json!(31);
                package["anchor_prev_hash"] = package["events"][0]["prev_hash"].clone();
            },
            &[("chain", "by its filter it begins with the agent's first event, and it does with sequence 31")],
        ),
        (
            "what stands before the first event is another one",
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
            "an event is not of the filter's time",
            |package| package["filter"]["until"] = package["events"][99]["received_at"].clone(),
            &[("events", "it was not received in the filter's time")],
        ),
        (
            "the proofs are of another tree",
            |package| package["merkle_proofs"][5]["proof"]["tree_size"] = json!(699),
            &[("tree", "proof 6 of the package")],
        ),
        (
            "the package names another root than its checkpoint",
            |package| package["merkle_root"] = json!("00".repeat(32)),
            &[("tree", "merkle_root and tree_size are not those of the checkpoint")],
        ),
        (
            "a bit of the signature",
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
            "the signed text",
            |package| {
                let note = package["checkpoint"].as_str().unwrap().replace("\n700\n", "\n701\n");
                (package["checkpoint"], package["tree_size"]) = (json!(note), json!(701));
            },
            &[("checkpoint", "invalid signature"), ("tree", "proof 1 of the package")],
        ),
        (
            "the package names another size than its checkpoint, and no root",
            |package| {
                package["tree_size"] = json!(999);
                package.as_object_mut().unwrap().remove("merkle_root");
            },
            &[("tree", "merkle_root and tree_size are not those of the checkpoint")],
        ),
        (
            "the last sequences that there are",
            |package| {
                package["filter"]["since"] = json!("2020-01-01T00:00:00.000Z");
                package["first_sequence"] = json!(u64::MAX);
                for at in 0..EVENTS {
                    event(package, at).insert("sequence".to_owned(), json!(u64::MAX - u64::from(at > 0)));
                }
            },
            &[("chain", "no chain is so long"), ("tree", "is of another event")],
        ),
        (
            "a field of another schema",
            |package| drop(event(package, 3).insert("schema_version".to_owned(), json!("9.0"))),
            &[("events", "schema_version"), ("chain", "hash mismatch at sequence 4")],
        ),
        (
            "more events than there can be",
            |package| {
                let note = package["checkpoint"].as_str().unwrap().replace("\n700\n", "\n18446744073709551615\n");
                (package["checkpoint"], package["tree_size"]) = (json!(note), json!(u64::MAX));
            },
            &[("checkpoint", "invalid signature"), ("tree", "no tree has so many events")],
        ),
    ];
    let (whole, key) = package().await;
    for (what, attack, found) in attacks {
        let mut package = whole.clone();
        attack(&mut package);
        let (is_well, verdict) = verify(&write(&package), &[&key]);
        assert!(!is_well && verdict["verdict"] == json!("broken"), "{what}: {verdict:#}");
        for name in ["package", "events", "chain", "tree", "checkpoint"] {
            let (holds, says) = layer(&verdict, name);
            match found.iter().find(|(layer, _)| *layer == name) {
                Some((_, why)) => assert!(holds == Some(false) && says.contains(why), "{what}: {name}: {says}"),
                None => assert_eq!(holds, Some(true), "{what}: {name}: {says}"),
            }
        }
        // The reference looks at neither the signature, nor at what the package says of itself.
        if found[0].0 != "checkpoint" && !BY_THE_CLAIMS.contains(what) {
            assert!(
                reference("package", &write(&package)).is_err(),
                "{what}: another program, by the same rules, agrees"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_made_anew_under_another_key_holds_for_nobody_who_knows_the_real_one() {
    let (mut package, key) = package().await;
    let folder = TempDir::new().unwrap();
    event(&mut package, 40).insert("action_input".to_owned(), json!("what never was"));
    rehash(&mut package, 40, EVENTS - 40);
    let forged = rebuild(&mut package, &folder.path().join("key"));
    let text = write(&package);
    let (is_well, verdict) = verify(&text, &[&key]);
    assert!(!is_well && layer(&verdict, "checkpoint").0 == Some(false), "{verdict:#}");
    assert!(layer(&verdict, "checkpoint").1.contains("it was not signed with the/log+"), "{verdict:#}");
    for name in ["package", "events", "chain", "tree"] {
        assert_eq!(layer(&verdict, name).0, Some(true), "everything else is whole: {verdict:#}");
    }
    // Without a key of the auditor's own it is whole in itself, and that is not called valid.
    let (is_well, verdict) = verify(&text, &[]);
    assert!(!is_well && verdict["verdict"] == json!("not_proven"), "{verdict:#}");
    assert!(verify(&text, &[&forged]).0, "so it was the key that made the difference");
    // The key of the package is replaced: who names the real one does not look at it.
    let (mut real, key) = crate::support::forger::package().await;
    real["log_key"] = json!(forged);
    assert!(verify(&write(&real), &[&key]).0);
    let (is_well, verdict) = verify(&write(&real), &[]);
    assert!(!is_well && layer(&verdict, "checkpoint").0 == Some(false), "{verdict:#}");
    // A key of another log signs nothing of this one, whoever named it.
    let other = Keys::make(&folder.path().join("other"), "another/log").unwrap();
    let note = other.sign(real["checkpoint"].as_str().unwrap().split_once("\n\n").unwrap().0.as_bytes());
    assert!(note.is_err(), "a note ends with a line");
    let text = format!("{}\n", real["checkpoint"].as_str().unwrap().split_once("\n\n").unwrap().0);
    real["checkpoint"] = json!(String::from_utf8(other.sign(text.as_bytes()).unwrap()).unwrap());
    let (is_well, verdict) = verify(&write(&real), &[&other.verifiers()[0]]);
    assert!(!is_well && layer(&verdict, "checkpoint").1.contains("with the key of another"), "{verdict:#}");
}
