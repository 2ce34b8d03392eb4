//! Proofs hold over erased events, and a deletion that is not recorded is found.

use std::path::Path;

use cairn::ledger::erase;
use cairn::ledger::format::keys::{Location, Position, ShardId};
use cairn::ledger::store::{Compression, Family, StorageConfig, Store};
use cairn_proof::chain::{ErasedBy, Hash, canonicalize};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::erasure::requests::{KEY, config, erase, start};
use crate::log::checkpoints::{verifier_keys, wait_until_signed};
use crate::support::forger::{serialize, verify};
use crate::support::harness::{TestServer, eventually, reference, run_text};

fn verify_all(ledger: &Path, more: &[&str]) -> (i32, String) {
    let (status, out, errors) =
        run_text(&[&["verify", "--all", "--data-dir", ledger.to_str().unwrap()], more].concat());
    (status, out + &errors)
}

fn open(ledger: &Path) -> Store {
    Store::open(&StorageConfig { data_dir: ledger.to_owned(), ..StorageConfig::default() }).unwrap()
}

/// Waits until every event is under a checkpoint.
async fn wait_for_checkpoint(server: &TestServer) {
    let events = async || server.get("/v1/stats").await.json()["total_events"].as_u64().unwrap();
    wait_until_signed(server, events().await).await;
}

async fn package(server: &TestServer, agent: &str) -> Value {
    wait_for_checkpoint(server).await;
    eventually("a package", async || server.get(&format!("/v1/export?agent_id={agent}")).await.status == 200).await;
    server.get(&format!("/v1/export?agent_id={agent}")).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_from_before_and_after_an_erasure_are_valid_and_forgeries_are_not() {
    let data = TempDir::new().unwrap();
    let server = start(&config(&data)).await;
    let ledger = data.path().join("ledger");
    for n in 0..20 {
        server.store(&json!({"agent_id": "a", "session_id": format!("s{}", n % 4), "action_output": n})).await;
    }
    let before = package(&server, "a").await;
    let checkpoint = data.path().join("before.checkpoint");
    std::fs::write(&checkpoint, before["checkpoint"].as_str().unwrap()).unwrap();
    assert_eq!(erase(&server, json!({"session_id": "s1"})).await, 5);
    assert_eq!(erase(&server, json!({"agent_id": "a", "session_id": "s2"})).await, 5);
    let after = package(&server, "a").await;
    let key = verifier_keys(&ledger).remove(0);
    // Who follows the log sees no difference.
    let api_key = data.path().join("key");
    std::fs::write(&api_key, KEY).unwrap();
    let follow = ["verify", "--log", &server.url, "--key", &key, "--api-key-file", api_key.to_str().unwrap()];
    let follow = [&follow[..], &["--checkpoint", checkpoint.to_str().unwrap()]].concat();
    let (status, out, errors) = tokio::task::block_in_place(|| run_text(&follow));
    assert_eq!(status, 0, "{out}{errors}");
    server.stop().await.unwrap();

    let (is_valid, verdict) = verify(&serialize(&before), &[&key]);
    assert!(is_valid && verdict["erased_events"] == 0 && verdict["layers"]["erasures"] == Value::Null, "{verdict}");
    let (is_valid, verdict) = verify(&serialize(&after), &[&key]);
    assert!(is_valid && verdict["erased_events"] == 10, "{verdict}");
    let says = verdict["layers"]["erasures"]["says"].as_str().unwrap();
    assert!(says.starts_with("10 events: content erased on 20") && says.contains(", as recorded in cairn/"), "{says}");
    for package in [&before, &after] {
        reference("package", &package.to_string()).unwrap();
    }
    let (status, out) = verify_all(&ledger, &["--checkpoint", checkpoint.to_str().unwrap()]);
    assert_eq!(status, 0, "{out}");

    type Change = fn(&mut Value, &Value);
    let forgeries: [(&str, Change); 7] = [
        ("another time", |package, _| package["events"][1]["erased"]["at"] = json!("2001-01-01T00:00:00.000Z")),
        ("without the records", |package, _| {
            package.as_object_mut().unwrap().remove("recorder");
        }),
        ("a stub that no record names", |package, _| {
            let mut stub = package["events"][1].clone();
            for name in ["hash", "prev_hash", "id", "received_at", "sequence"] {
                stub[name] = package["events"][0][name].clone();
            }
            package["events"][0] = stub;
        }),
        ("a stub that names another record", |package, _| package["events"][1]["erased"]["sequence"] = json!(1)),
        ("the content is back", |package, before| package["events"][1] = before["events"][1].clone()),
        ("a stub with content", |package, _| package["events"][1]["action_output"] = json!(1)),
        ("a record that was changed", |package, _| {
            package["recorder"][0]["event"]["action_output"]["agents"]["a"] = json!([[1, 20]]);
        }),
    ];
    for (what, change) in forgeries {
        let mut forged = after.clone();
        change(&mut forged, &before);
        let (is_valid, verdict) = verify(&serialize(&forged), &[&key]);
        assert!(!is_valid && verdict["verdict"] == "broken", "{what}: {verdict}");
        assert!(reference("package", &forged.to_string()).is_err(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stub_without_a_record_and_a_record_without_a_stub_are_broken() {
    let data = TempDir::new().unwrap();
    let ledger = data.path().join("ledger");
    let server = start(&config(&data)).await;
    for n in 0..3 {
        server.store(&json!({"agent_id": "a", "action_output": n, "session_id": "s"})).await;
    }
    let stored = server.list("agent_id=a&order=asc").await;
    server.stop().await.unwrap();
    assert_eq!(verify_all(&ledger, &[]).0, 0);

    // Somebody deletes an event with the program's own code, but without a record.
    let at = |position| Location { shard: ShardId(0), position: Position(position) };
    let located = (0..10).map(at).find(|location| {
        let store = open(&ledger);
        let record = cairn::ledger::read::lookup::record(&store, *location).unwrap();
        record.is_some_and(|record| record.as_ref().hash().to_string() == stored[1]["hash"])
    });
    let location = located.unwrap();
    let store = open(&ledger);
    let rows = |store: &Store| {
        let (mut rows, mut found) = (store.rows(Family::Events).unwrap(), Vec::new());
        rows.seek_first();
        while let Some((key, value)) = rows.row().unwrap() {
            found.push((key.to_vec(), value.to_vec()));
            rows.next();
        }
        found
    };
    let original = rows(&store);
    let instance = cairn::ledger::format::meta::Meta::read(&store).unwrap().unwrap().instance;
    let by = ErasedBy { at: "2026-11-29T10:00:00.000Z".into(), recorder: format!("cairn/{instance}"), sequence: 1 };
    erase::erase(&store, &[location], &by, Compression::Lz4, &mut Default::default()).unwrap();
    drop(store);
    let (status, out) = verify_all(&ledger, &[]);
    assert!(status == 1 && out.contains("a: BROKEN: wrong erasure at sequence 2: the content is missing"), "{out}");
    let server = start(&config(&data)).await;
    let verdict = server.get("/v1/verify?agent_id=a").await.json();
    assert!(verdict["valid"] == false && verdict["sequence"] == 2, "{verdict}");
    server.stop().await.unwrap();

    // It is put back, erased as it should be, and then the content is put back.
    let restore = |originals: &[(Vec<u8>, Vec<u8>)]| {
        let store = open(&ledger);
        let mut batch = store.batch(0);
        for (key, value) in originals {
            store.put(&mut batch, Family::Events, key, value).unwrap();
        }
        store.write_synced(batch).unwrap();
    };
    restore(&original);
    let server = start(&config(&data)).await;
    assert_eq!(erase(&server, json!({"id": stored[1]["id"]})).await, 1);
    server.stop().await.unwrap();
    restore(&original);
    let (status, out) = verify_all(&ledger, &[]);
    let expected = "a: BROKEN: wrong erasure at sequence 2: the content is still there";
    assert!(status == 1 && out.contains(expected), "{out}");
}

/// Tries three-digit answers, each with and without salts, in the content of an erased event. Everything else is known.
fn guess(event: &Value, stub: &Value, salts: u32) -> Option<u64> {
    let prev: Hash = stub["prev_hash"].as_str().unwrap().parse().unwrap();
    let mut content = event.clone();
    for name in ["hash", "prev_hash", "sequence"] {
        content.as_object_mut().unwrap().remove(name);
    }
    let has_salt = content.as_object_mut().unwrap().remove("salt").is_some();
    content["action_output"] = json!("ANSWER");
    if has_salt {
        content["salt"] = json!("SALT");
    }
    let template = String::from_utf8(canonicalize(&content.to_string()).unwrap()).unwrap();
    (0..1000 * u64::from(if has_salt { salts } else { 1 })).find_map(|guess| {
        let answer = guess % 1000;
        let salt = format!("{:022}", guess / 1000);
        let canonical = template.replace("\"ANSWER\"", &answer.to_string()).replace("SALT", &salt);
        (Hash::of_event(canonical.as_bytes(), &prev).to_string() == stub["hash"]).then_some(answer)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_content_of_an_erased_event_is_not_guessed_from_its_hash() {
    for (has_salt, expected) in [(false, Some(742)), (true, None)] {
        let data = TempDir::new().unwrap();
        let mut config = config(&data);
        config.ledger.salt = has_salt;
        let server = start(&config).await;
        let stored = server.store(&json!({"agent_id": "a", "action_name": "balance", "action_output": 742})).await;
        assert_eq!(erase(&server, json!({"agent_id": "a"})).await, 1);
        let stub = server.list("agent_id=a").await.remove(0);
        assert_eq!((&stub["hash"], &stub["salt"]), (&stored["hash"], &Value::Null));
        // 1,048,000 guesses: a thousand answers with a thousand salts.
        assert_eq!(guess(&stored, &stub, 1049), expected, "salt: {has_salt}");
        server.stop().await.unwrap();
    }
}
