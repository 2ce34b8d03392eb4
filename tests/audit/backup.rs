//! Backups: a ledger that is copied while events arrive continues elsewhere, and its log never has two histories.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::log::checkpoints::{
    assert_signing_stopped, frequent_checkpoints, store_events, verifier_keys, wait_until_signed,
};
use crate::support::harness::{Process, TestServer, cairn, eventually, run, run_text};
use crate::support::machine::is_root;

/// A directory with the paths of one backup and its restored copy.
struct Places {
    folder: TempDir,
}

impl Places {
    fn new() -> Places {
        Places { folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// A ledger with 300 events whose server is stopped; its last checkpoint is kept in `last`.
async fn stopped_ledger(places: &Places) {
    let server = TestServer::start(&frequent_checkpoints(&places.path("data"))).await;
    store_events(&server, 300).await;
    wait_until_signed(&server, 300).await;
    server.stop().await.unwrap();
    std::fs::copy(places.path("data/log.checkpoint"), places.path("last")).unwrap();
}

fn verify(data_dir: &str) -> String {
    let (code, output, error) = run_text(&["verify", "--all", "--data-dir", data_dir]);
    assert_eq!(code, 0, "{output}{error}");
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_made_while_events_arrive_restores_what_was_committed() {
    let places = Places::new();
    let (data, backup, copy) = (places.text("data"), places.text("backup"), places.text("copy"));
    let server = Process::start(Path::new(&data), &[]);
    let (is_over, url) = (Arc::new(AtomicBool::new(false)), format!("{}/v1/batch", server.url));
    let load = {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let client = reqwest::Client::new();
            let batch: Value = (0..100).map(|n| json!({"agent_id": format!("agent-{}", n % 7)})).collect();
            let mut sent = 0;
            while !is_over.load(Ordering::Relaxed) {
                let request = client.post(&url).header("content-type", "application/json").body(batch.to_string());
                assert_eq!(request.send().await.unwrap().status(), 201);
                sent += 100;
            }
            sent
        })
    };
    let committed = async || {
        let text = reqwest::get(format!("{}/v1/stats", server.url)).await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["total_events"].as_u64().unwrap()
    };
    eventually("events before the backup", async || committed().await >= 5000).await;
    let before = committed().await;
    let listen = server.url.trim_start_matches("http://").to_owned();
    let mut command = cairn();
    command.args(["backup", &backup, "--keys", "--data-dir", &data]).env("CAIRN_LISTEN", &listen);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    is_over.store(true, Ordering::Relaxed);
    let sent: u64 = load.await.unwrap();
    assert!(before >= 5000 && sent > before, "events arrived during the backup: {before} of {sent}");
    let left = std::fs::read_dir(&data)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("snapshot-"));
    assert_eq!(left.count(), 0, "the snapshot is removed");
    // The checkpoint of the end: the backup lacks events that it signs.
    drop(server);
    let end = Process::start(Path::new(&data), &[]);
    eventually("a signed end", async || {
        reqwest::get(format!("{}/log/checkpoint", end.url))
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .contains(&format!("\n{sent}\n"))
    })
    .await;
    std::fs::copy(places.path("data/log.checkpoint"), places.path("last")).unwrap();
    let arguments = ["restore", &backup, "--checkpoint", &places.text("last"), "--data-dir", &copy];
    let (code, output, error) = run_text(&arguments);
    assert_eq!(code, 0, "{error}");
    assert!(output.contains("that the backup does not have. The next start of the server begins the log"), "{output}");
    let events: u64 = output.split("a ledger of ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(events >= before && events <= sent, "{events}: of {before} to {sent}");
    let restored = Process::start(Path::new(&copy), &[]);
    eventually("a signed copy", async || {
        let answer = reqwest::get(format!("{}/log/checkpoint", restored.url)).await.unwrap();
        answer.text().await.unwrap().contains(&format!("\n{events}\n"))
    })
    .await;
    drop(restored);
    assert!(verify(&copy).contains(&format!("7 agents, {events} events verified: all valid")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_continues_if_the_backup_has_everything_that_it_signed() {
    let places = Places::new();
    stopped_ledger(&places).await;
    let (data, backup, copy) = (places.text("data"), places.text("backup"), places.text("copy"));
    let (code, output, error) = run_text(&["backup", &backup, "--keys", "--data-dir", &data]);
    assert!(code == 0 && output.contains("a backup of 300 events, with the signing keys"), "{output}{error}");
    let keys = verifier_keys(&places.path("data"));
    let arguments = ["restore", &backup, "--checkpoint", &places.text("last"), "--data-dir", &copy];
    let (code, output, error) = run_text(&arguments);
    assert!(code == 0 && output.contains("a ledger of 300 events. The log cairn/"), "{output}{error}");
    assert!(verify(&copy).contains("log: 300 events, 1 checkpoint verified: valid"));
    assert_eq!(verifier_keys(&places.path("copy")), keys);
    let server = TestServer::start(&frequent_checkpoints(&places.path("copy"))).await;
    store_events(&server, 5).await;
    wait_until_signed(&server, 305).await;
    server.stop().await.unwrap();
    let (code, output, _) = run_text(&["verify", "--all", "--data-dir", &copy, "--checkpoint", &places.text("last")]);
    assert!(code == 0 && output.contains("log: 305 events, 2 checkpoints verified: valid"), "{output}");
    // Never over a ledger.
    assert_eq!(run_text(&arguments).0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_checkpoint_or_a_key_only_a_new_log_begins() {
    let places = Places::new();
    stopped_ledger(&places).await;
    let (data, copy, last) = (places.text("data"), places.text("copy"), places.text("last"));
    let (code, _, error) = run_text(&["backup", &places.text("b"), "--data-dir", &places.text("elsewhere")]);
    assert!(code == 3 && !places.path("b").exists(), "a failed backup leaves nothing in the way of the next: {error}");
    let archive = run(&["backup", "-", "--data-dir", &data]).stdout;
    std::fs::write(places.path("a.tar"), &archive).unwrap();
    assert!(!archive.windows(11).any(|window| window == b"PRIVATE+KEY"), "no keys unless they are asked for");
    let restore = |options: &[&str]| {
        let _ = std::fs::remove_dir_all(&copy);
        run_text(&[&["restore", &places.text("a.tar"), "--data-dir", &copy], options].concat())
    };
    let (code, _, error) = restore(&[]);
    assert!(code == 2 && error.contains("--checkpoint") && error.contains("--new-log"), "{error}");
    let (code, _, error) = restore(&["--checkpoint", &last]);
    assert!(code == 3 && error.contains("there is no signing key"), "{error}");
    let (code, output, error) = restore(&["--new-log"]);
    assert!(code == 0 && output.contains("begins the log cairn/"), "{output}{error}");
    let server = TestServer::start(&frequent_checkpoints(&places.path("copy"))).await;
    wait_until_signed(&server, 300).await;
    server.stop().await.unwrap();
    assert_ne!(verifier_keys(&places.path("copy")), verifier_keys(&places.path("data")));
    verify(&copy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_contradicts_the_checkpoint_signs_nothing() {
    let (places, others) = (Places::new(), Places::new());
    stopped_ledger(&places).await;
    stopped_ledger(&others).await;
    let (backup, copy) = (places.text("backup"), places.text("copy"));
    assert_eq!(run_text(&["backup", &backup, "--keys", "--data-dir", &places.text("data")]).0, 0);
    // A checkpoint of another log, and one of the same log with another root: forged with its key.
    let (code, _, error) = run_text(&["restore", &backup, "--checkpoint", &others.text("last"), "--data-dir", &copy]);
    assert!(code == 3 && error.contains("--checkpoint: "), "{error}");
    let keys = cairn::tlog::keys::Keys::read_any(&places.path("data/log.key")).unwrap().unwrap();
    let note = std::fs::read_to_string(places.path("last")).unwrap();
    let origin = note.lines().next().unwrap();
    let forged =
        keys.sign(format!("{origin}\n200\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").as_bytes()).unwrap();
    std::fs::write(places.path("forged"), forged).unwrap();
    let (code, _, error) = run_text(&["restore", &backup, "--checkpoint", &places.text("forged"), "--data-dir", &copy]);
    assert!(
        code == 3 && error.contains("the backup contradicts the checkpoint, and nothing will be signed"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 0, "nothing is left that looks like a ledger");
    let (code, _, error) = run_text(&["restore", &backup, "--checkpoint", &places.text("last"), "--data-dir", &copy]);
    assert_eq!(code, 0, "the next try is not in the way of the first: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_foreign_archive_is_refused() {
    let places = Places::new();
    stopped_ledger(&places).await;
    let archive = run(&["backup", "-", "--data-dir", &places.text("data")]).stdout;
    let restore = |archive: &[u8], name: &str| {
        let target = places.text(name);
        let mut child = cairn()
            .args(["restore", "-", "--new-log", "--data-dir", &target])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(archive);
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The last file is the one that completes the database: 512 bytes of it, and 1,024 at the end.
    for (number, length) in
        [0, 100, 600, 5000, archive.len() / 2, archive.len() - 1024 - 512, archive.len() - 1024 - 100]
            .into_iter()
            .enumerate()
    {
        let (code, error) = restore(&archive[..length], &format!("t{number}"));
        assert_eq!(code, 3, "{length} of {} bytes: {error}", archive.len());
        assert!(!places.path(&format!("t{number}/CURRENT")).exists(), "{length}");
    }
    let mut foreign = archive[..1024].to_vec();
    for name in ["../evil", "database/../../evil", "/tmp/evil", "database/.hidden", "other"] {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(0);
        header.set_cksum();
        foreign.truncate(1024);
        foreign.extend_from_slice(header.as_bytes());
        let (code, error) = restore(&foreign, "foreign");
        assert!(code == 3 && error.contains("which is not part of one"), "{name}: {error}");
        std::fs::remove_dir_all(places.path("foreign")).unwrap();
    }
    assert_eq!(restore(b"no archive at all", "no").0, 3);
    assert_eq!(restore(&archive, "whole").0, 0);
}

/// Runs `restore` and kills it: after it has read `length` bytes of the archive, or `delay` after it has read everything.
fn killed_restore(places: &Places, archive: &[u8], target: &str, length: usize, delay: Duration) {
    let mut child = cairn()
        .args(["restore", "-", "--checkpoint", &places.text("last"), "--data-dir", target])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(&archive[..length]).unwrap();
    if length == archive.len() {
        drop(input);
        std::thread::sleep(delay);
        child.kill().unwrap();
    } else {
        // The pipe holds what is not read yet, so the kill may come earlier than its last byte.
        std::thread::sleep(Duration::from_millis(30));
        child.kill().unwrap();
        drop(input);
    }
    child.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_leaves_nothing_that_starts_empty_or_signs_without_everything() {
    let places = Places::new();
    stopped_ledger(&places).await;
    let archive = run(&["backup", "-", "--keys", "--data-dir", &places.text("data")]).stdout;
    let old_key = verifier_keys(&places.path("data")).remove(0);
    let started = Instant::now();
    let whole = places.text("whole");
    killed_restore(&places, &archive, &whole, archive.len(), Duration::ZERO);
    let _ = std::fs::remove_dir_all(&whole);
    let restore = ["restore", "-", "--checkpoint", &places.text("last"), "--data-dir", &whole];
    let mut child = cairn().args(restore).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(child.wait().unwrap().success());
    let duration = started.elapsed();
    let in_the_archive = (1..20).map(|part| (archive.len() * part / 20, Duration::ZERO));
    let after_it = (0..20).map(|part| (archive.len(), duration * part / 20));
    let (mut refused, mut stopped, mut complete) = (0, 0, 0);
    for (number, (length, delay)) in in_the_archive.chain(after_it).enumerate() {
        let target = places.path(&format!("t{number}"));
        killed_restore(&places, &archive, target.to_str().unwrap(), length, delay);
        let is_begun = std::fs::read_dir(&target).is_ok_and(|mut files| files.next().is_some());
        let (has_database, has_keys) = (target.join("CURRENT").exists(), target.join("log.key").exists());
        if has_keys {
            assert!(verify(target.to_str().unwrap()).contains("log: 300 events, 1 checkpoint verified: valid"));
            assert_eq!(verifier_keys(&target), std::slice::from_ref(&old_key));
            complete += 1;
        } else if has_database {
            assert_signing_stopped(&frequent_checkpoints(&target), "").await;
            stopped += 1;
        } else if is_begun {
            let serve = ["serve", "--listen", "127.0.0.1:0", "--data-dir", target.to_str().unwrap()];
            let output = cairn().args(serve).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
            refused += 1;
        }
    }
    println!("{refused} refused, {stopped} signed nothing, {complete} were complete");
    assert!(refused > 0 && stopped + complete > 0, "kills before and after the database was complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_root_restores_belongs_to_the_owner_of_the_directory() {
    if !is_root() {
        return;
    }
    const USER: u32 = 61_234;
    let places = Places::new();
    stopped_ledger(&places).await;
    assert_eq!(run_text(&["backup", &places.text("backup"), "--keys", "--data-dir", &places.text("data")]).0, 0);
    let (state, copy) = (places.path("state"), places.text("state/data"));
    std::fs::create_dir(&state).unwrap();
    chown(&state, Some(USER), Some(USER)).unwrap();
    let arguments = ["restore", &places.text("backup"), "--checkpoint", &places.text("last"), "--data-dir", &copy];
    let (code, _, error) = run_text(&arguments);
    assert_eq!(code, 0, "{error}");
    for entry in std::fs::read_dir(&copy).unwrap().map(|entry| entry.unwrap()) {
        assert_eq!(entry.metadata().unwrap().uid(), USER, "{}", entry.path().display());
    }
    assert_eq!(std::fs::metadata(&copy).unwrap().uid(), USER);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_onto_a_new_disk_creates_what_a_link_of_root_leads_to_and_keeps_the_owner_of_the_checkpoint() {
    if !is_root() {
        return;
    }
    const USER: u32 = 61_235;
    let places = Places::new();
    stopped_ledger(&places).await;
    assert_eq!(run_text(&["backup", &places.text("backup"), "--keys", "--data-dir", &places.text("data")]).0, 0);
    // As systemd leaves it: a link of root to a directory that the new disk does not have, and another directory of the service.
    std::fs::create_dir(places.path("private")).unwrap();
    symlink("private/cairn", places.path("state")).unwrap();
    std::fs::create_dir(places.path("checkpoints")).unwrap();
    chown(places.path("checkpoints"), Some(USER), Some(USER)).unwrap();
    let checkpoint = places.path("checkpoints/cairn");
    let mut restore = cairn();
    restore.args(["restore", &places.text("backup"), "--checkpoint", &places.text("last")]);
    restore.args(["--data-dir", &places.text("state/data")]).env("CAIRN_LOG__CHECKPOINT_FILE", &checkpoint);
    let output = restore.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(places.path("private/cairn/data/CURRENT").exists());
    assert_eq!(std::fs::metadata(&checkpoint).unwrap().uid(), USER, "the service replaces it");
    // A link of somebody else may lead anywhere.
    symlink("private/elsewhere", places.path("foreign")).unwrap();
    lchown(places.path("foreign"), Some(USER), Some(USER)).unwrap();
    let (code, _, error) =
        run_text(&["restore", &places.text("backup"), "--new-log", "--data-dir", &places.text("foreign/data")]);
    assert!(code == 3 && error.contains("foreign/data cannot be created"), "{error}");
    assert!(!places.path("private/elsewhere").exists());
}
