//! Failing disks: the rows of "Disk", "Space" and "Start" in `docs/failures.md`. strace injects faults into the system
//! calls of the server, or the test changes its own file system. Afterwards every acknowledged event is stored, or
//! `cairn verify` reports the loss.

use std::fs::{DirEntry, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::audit::oracle::{Oracle, SendResults, send};
use crate::support::harness::{Process, cairn, eventually, run_text};
use crate::support::machine::{Mount, is_root};

/// The reaction of the server to a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    /// Ends with status 3 and a message; the next start recovers.
    Ends,
    /// As `Ends`, but only after the database has not resumed for a minute although there is space.
    EndsAfterAMinute,
    /// Refuses events for some time, and resumes without a restart.
    Resumes,
    /// Accepts events throughout; no checkpoint is signed until the fault ends.
    StopsSigning,
}

/// The name of the write-ahead log of a new ledger.
const WAL: &str = "000004.log";
const CHECKPOINT: &str = "log.checkpoint.new";

/// Starts a server under strace. Its calls on `file` fail by `inject`, an expression of strace.
fn start(data: &Path, inject: &str, file: &str) -> Process {
    let mut strace = Command::new("strace");
    let call = inject.split(':').next().unwrap();
    strace.args([
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &format!("trace={call}"),
        "-e",
        &format!("inject={inject}"),
    ]);
    strace.arg("-P").arg(data.join(file)).arg(cairn().get_program());
    let environment = [("CAIRN_LOG__CHECKPOINT_INTERVAL", "20ms"), ("CAIRN_STORAGE__MEMORY_BYTES", "8MiB")];
    Process::start_as(strace, data, &environment)
}

/// The body of an answer, or the text of the error.
async fn text(url: &str) -> String {
    let answer = reqwest::get(url).await;
    match answer {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_call_of_a_commit_or_checkpoint_loses_no_acknowledged_event() {
    // Calls 1 to 6 create the ledger; later calls write events.
    let rows = [
        ("write:error=EIO:when=9", WAL, Reaction::Ends),
        ("write:error=EIO:when=9+", WAL, Reaction::Ends),
        ("fdatasync:error=EIO:when=9", WAL, Reaction::Ends),
        ("fdatasync:error=EIO:when=9+", WAL, Reaction::Ends),
        ("write:error=EROFS:when=9+", WAL, Reaction::Ends),
        ("write:error=ENOSPC:when=9", WAL, Reaction::Resumes),
        ("write:error=ENOSPC:when=9..15", WAL, Reaction::Resumes),
        ("fdatasync:error=ENOSPC:when=9", WAL, Reaction::Resumes),
        ("fdatasync:error=ENOSPC:when=9..15", WAL, Reaction::Resumes),
        ("openat:error=ENOSPC:when=3..20", CHECKPOINT, Reaction::StopsSigning),
        ("write:error=ENOSPC:when=3..20", CHECKPOINT, Reaction::StopsSigning),
        ("fsync:error=EIO:when=3..20", CHECKPOINT, Reaction::StopsSigning),
        ("rename:error=EIO:when=3..20", CHECKPOINT, Reaction::StopsSigning),
    ];
    for (inject, file, reaction) in rows {
        let data = TempDir::new().unwrap();
        let mut server = start(data.path(), inject, file);
        let mut oracle = Oracle::default();
        let seed = crate::durability::faults::seed();
        let senders = (0..4).map(|sender| tokio::spawn(send(server.url.clone(), seed + sender, 40)));
        for sender in senders.collect::<Vec<_>>() {
            oracle.record(sender.await.unwrap());
        }
        println!("{inject} on {file}: {reaction:?}, {} acknowledged, {}", oracle.len(), server.log());
        assert!(oracle.len() > 2, "{inject}");
        if reaction == Reaction::Ends {
            eventually("the exit", async || server.child.try_wait().unwrap().is_some()).await;
            assert_eq!(server.child.wait().unwrap().code(), Some(3), "{inject}");
            let log = server.log();
            let is_named = ["Input/output error", "Read-only file system"].iter().any(|error| log.contains(error));
            assert!(is_named && log.contains("the next start recovers"), "{log}");
        } else {
            // strace injects only a limited number of these faults.
            eventually("readiness", async || text(&format!("{}/readyz", server.admin_url)).await == "ready\n").await;
            oracle.record(send(server.url.clone(), seed + 10, 20).await);
            eventually("a checkpoint over all of it", async || {
                let root = text(&format!("{}/v1/merkle/root", server.url)).await;
                let root: serde_json::Value = serde_json::from_str(&root).unwrap();
                root["tree_size"].as_u64().is_some_and(|size| size as usize >= oracle.len())
            })
            .await;
            assert!(server.child.try_wait().unwrap().is_none(), "{inject}: the server ended");
            oracle.fetch_checkpoint(&server.url).await;
            oracle.check(&server.url).await;
            server.kill();
        }
        oracle.verify(data.path());
        let server = Process::start(data.path(), &[]);
        oracle.resend_unanswered(&server.url).await;
        oracle.check(&server.url).await;
    }
}

/// Sends 20 events of 900 kB, or fewer if more than `refusals` are refused or the server ends.
async fn send_large(url: &str, mut refusals: usize) -> SendResults {
    let client = reqwest::Client::new();
    let mut results = SendResults::default();
    for _ in 0..20 {
        let output: String = std::iter::repeat_with(fastrand::alphanumeric).take(900_000).collect();
        let event = serde_json::json!({"agent_id": "large", "action_output": output});
        let request = client.post(format!("{url}/v1/events")).header("content-type", "application/json");
        // The server may have ended.
        let Ok(answer) = request.body(event.to_string()).send().await else { break };
        match (answer.status().as_u16(), answer.text().await.unwrap()) {
            (201, text) => results.add(serde_json::from_str(&text).unwrap()),
            (503, text) => {
                assert!(
                    text.contains("unknown whether") || text.contains("not stored") || text.contains("disk"),
                    "{text}"
                );
                if refusals == 0 {
                    break;
                }
                refusals -= 1;
                // The pause is the subject: a client that waits before it sends again, as Retry-After says.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    results
}

/// Calls after the answers: flushes to table files, and the next write-ahead log.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_call_of_a_flush_loses_no_acknowledged_event() {
    const TABLE: &str = "000009.sst";
    const NEXT_WAL: &str = "000008.log";
    let rows = [
        ("openat:error=EIO:when=1", NEXT_WAL, Reaction::Ends),
        ("openat:error=ENOSPC:when=1", NEXT_WAL, Reaction::EndsAfterAMinute),
        ("openat:error=EIO:when=1", TABLE, Reaction::Ends),
        ("write:error=EIO:when=1", TABLE, Reaction::Ends),
        ("write:error=ENOSPC:when=1..3", TABLE, Reaction::Resumes),
        ("fdatasync:error=EIO:when=1", TABLE, Reaction::Ends),
        ("fdatasync:error=ENOSPC:when=1..3", TABLE, Reaction::Resumes),
    ];
    for (inject, file, reaction) in rows {
        let data = TempDir::new().unwrap();
        let mut server = start(data.path(), inject, file);
        let mut oracle = Oracle::default();
        for _ in 0..3 {
            oracle.record(send_large(&server.url, usize::MAX).await);
        }
        println!("{inject} on {file}: {} acknowledged, {}", oracle.len(), server.log());
        let readyz = format!("{}/readyz", server.admin_url);
        if reaction == Reaction::EndsAfterAMinute {
            // The pause is the subject: the server must not end within 45 s.
            tokio::time::sleep(Duration::from_secs(45)).await;
            assert!(server.child.try_wait().unwrap().is_none(), "{inject} on {file}");
        }
        let ends = matches!(reaction, Reaction::Ends | Reaction::EndsAfterAMinute);
        eventually("the exit, or readiness", async || match ends {
            true => server.child.try_wait().unwrap().is_some(),
            false => text(&readyz).await == "ready\n",
        })
        .await;
        let ended = server.child.try_wait().unwrap();
        assert_eq!(ended.is_some(), ends, "{inject} on {file}");
        assert!(ended.is_none_or(|status| status.code() == Some(3)), "{inject} on {file}: {ended:?}");
        oracle.verify(data.path());
        server.kill();
        let server = Process::start(data.path(), &[]);
        oracle.check(&server.url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_disk_was_filled_to_its_last_byte_the_server_resumes_without_a_restart() {
    let Some(mount) = Mount::new("160m") else { return };
    let mut server = Process::start(&mount.path().join("data"), &[("CAIRN_STORAGE__MEMORY_BYTES", "8MiB")]);
    let mut oracle = Oracle::default();
    oracle.record(send(server.url.clone(), 1, 100).await);
    for round in 0..3 {
        let filler = mount.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        // Until not even one byte can be written.
        for length in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut file, &vec![1; length]).is_ok() {}
        }
        drop(file);
        let readyz = format!("{}/readyz", server.admin_url);
        eventually("refusal", async || {
            // The database first uses the space that it has preallocated.
            oracle.record(send_large(&server.url, 0).await);
            text(&readyz).await.contains("space")
        })
        .await;
        // Reads still work.
        oracle.check(&server.url).await;
        assert!(text(&format!("{}/healthz", server.admin_url)).await.contains("ok"));
        std::fs::remove_file(&filler).unwrap();
        eventually("readiness", async || text(&readyz).await == "ready\n").await;
        let before = oracle.len();
        oracle.record(send(server.url.clone(), 1000 + round, 50).await);
        assert!(oracle.len() > before + 30, "events are accepted again");
        assert!(server.child.try_wait().unwrap().is_none(), "without a restart");
    }
    oracle.check(&server.url).await;
    server.kill();
    oracle.verify(&mount.path().join("data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_directory_is_refused_at_start_and_nothing_is_lost() {
    let Some(mount) = Mount::new("60m") else { return };
    let data = mount.path().join("data");
    let mut oracle = Oracle::default();
    let mut server = Process::start(&data, &[]);
    oracle.record(send(server.url.clone(), 1, 50).await);
    // The kernel does not remount read-only while a file is open for writing, so the server is killed first.
    server.kill();
    mount.remount("ro");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let output = cairn().args(arguments).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("Read-only file system") && log.contains(data.to_str().unwrap()), "{log}");
    oracle.verify(&data);
    mount.remount("rw");
    let server = Process::start(&data, &[]);
    oracle.check(&server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_data_directory_ends_the_server_and_one_of_another_user_is_refused() {
    for replaced in [false, true] {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data");
        let mut server = Process::start(&data, &[]);
        send(server.url.clone(), 1, 20).await;
        std::fs::remove_dir_all(&data).unwrap();
        if replaced {
            std::fs::create_dir(&data).unwrap();
            std::fs::write(data.join("LOCK"), "").unwrap();
        }
        eventually("the exit", async || server.child.try_wait().unwrap().is_some()).await;
        assert_eq!(server.child.wait().unwrap().code(), Some(3));
        assert!(server.log().contains("was removed or replaced while it was in use"), "{}", server.log());
        // The server creates nothing there, so that an operator can restore the directory.
        let name = |entry: std::io::Result<DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let left: Option<Vec<String>> = std::fs::read_dir(&data).ok().map(|entries| entries.map(name).collect());
        assert_eq!(left, replaced.then(|| vec!["LOCK".to_owned()]));
    }
    if !is_root() {
        return;
    }
    let (data, program) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    // The other user may not be able to access the folder that the program was built in.
    std::fs::set_permissions(program.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = program.path().join("cairn");
    std::fs::copy(cairn().get_program(), &copy).unwrap();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--clear-groups"]).arg(copy).args(["serve", "--data-dir"]);
    setpriv.arg(data.path()).args(["--listen", "127.0.0.1:0"]).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0");
    let output = setpriv.output().unwrap();
    let log = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{log}");
    assert!(log.contains("Permission denied") && log.contains("storage.data_dir"), "{log}");
}

/// The directory is locked as well as the file, and a server that was stopped checks it before it writes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_is_refused_although_the_lock_file_was_removed_while_the_first_one_was_stopped() {
    let data = TempDir::new().unwrap();
    let mut first = Process::start(data.path(), &[]);
    send(first.url.clone(), 1, 20).await;
    let pid = Pid::from_child(&first.child);
    kill_process(pid, Signal::STOP).unwrap();
    std::fs::remove_file(data.path().join("LOCK")).unwrap();
    let mut second = cairn();
    second.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
    let second = second.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
    let log = String::from_utf8_lossy(&second.stdout).into_owned() + &String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(3) && log.contains("in use by another process"), "{log}");
    // The system accepts the connection and keeps the request until the server goes on, which may end without an answer.
    let mut stream = TcpStream::connect(first.url.trim_start_matches("http://")).unwrap();
    let head = "POST /v1/events HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n";
    stream.write_all(format!("{head}content-length: 19\r\n\r\n{{\"agent_id\":\"late\"}}").as_bytes()).unwrap();
    kill_process(pid, Signal::CONT).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 201"), "an event was stored after the lock was lost");
    eventually("the exit", async || first.child.try_wait().unwrap().is_some()).await;
    assert_eq!(first.child.wait().unwrap().code(), Some(3));
}

/// A ledger with a table file and a write-ahead log, and its acknowledged events.
async fn ledger() -> (TempDir, Oracle) {
    let data = TempDir::new().unwrap();
    let mut oracle = Oracle::default();
    for life in 0..2 {
        let mut server = Process::start(data.path(), &[]);
        oracle.record(send(server.url.clone(), life, 200).await);
        eventually("a checkpoint over all of it", async || {
            let root: serde_json::Value =
                serde_json::from_str(&text(&format!("{}/v1/merkle/root", server.url)).await).unwrap();
            root["tree_size"].as_u64().is_some_and(|size| size as usize >= oracle.len())
        })
        .await;
        server.kill();
    }
    (data, oracle)
}

/// The longest file with this extension, or the longest manifest.
fn longest(data: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let is_match = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(extension) || (extension == "MANIFEST" && name.starts_with(extension))
    };
    files.filter(is_match).max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_or_changed_bytes_of_a_file_are_reported() {
    type Damage = fn(&Path);
    let rows: [(&str, Damage); 5] = [
        ("a byte in the middle of a table", |data| {
            let path = longest(data, ".sst");
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 3;
            bytes[middle] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
        }),
        ("a missing table", |data| std::fs::remove_file(longest(data, ".sst")).unwrap()),
        ("a truncated write-ahead log", |data| {
            let path = longest(data, ".log");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("a byte in the middle of a write-ahead log", |data| {
            let path = longest(data, ".log");
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
        }),
        ("a truncated manifest", |data| {
            let path = longest(data, "MANIFEST");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (what, damage) in rows {
        let (data, oracle) = ledger().await;
        oracle.verify(data.path());
        damage(data.path());
        let (code, out, err) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
        println!("{what}: verify {code}: {out}{err}");
        assert!(code == 1 || code == 3, "{what}: {out}{err}");
        let mut command = cairn();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        command.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").env("CAIRN_STORAGE__MIN_FREE_BYTES", "1B");
        let log_file = tempfile::NamedTempFile::new().unwrap();
        let mut server = command.stdout(log_file.reopen().unwrap()).spawn().unwrap();
        // Either the server does not start, or it logs that the ledger is not the one that was signed.
        let reports = ["nothing is signed", "Corruption", "event cannot be indexed"];
        eventually("a report of the damage", async || {
            let log = std::fs::read_to_string(log_file.path()).unwrap();
            let ended = server.try_wait().unwrap().map(|status| status.code());
            assert!(ended.is_none() || ended == Some(Some(3)), "{what}: {ended:?} {log}");
            ended.is_some() || reports.iter().any(|report| log.contains(report))
        })
        .await;
        let _ = server.kill();
        server.wait().unwrap();
        println!("{what}: serve: {}", std::fs::read_to_string(log_file.path()).unwrap());
    }
}
