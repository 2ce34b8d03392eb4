//! A disk that fails: each row of the table in the README, "When the disk fails". Faults are injected into the server's
//! system calls by strace, or made on a file system of the test's own.
//!
//! Whatever happens, what was acknowledged is there afterwards, or `cairn verify` says that it is not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::audit::oracle::{Heard, Oracle, send};
use crate::support::harness::{Process, cairn, eventually, run_text};

/// What the server does when a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It ends with a message, and its next start recovers.
    Ends,
    /// The database does not go on although there is room: it ends after a minute of that, and its next start recovers.
    EndsLate,
    /// It refuses for a while, and goes on without a restart.
    GoesOn,
    /// It takes events as if nothing had happened; nothing is signed meanwhile.
    Unharmed,
}

/// The write-ahead log of a new ledger.
const WAL: &str = "000004.log";
const CHECKPOINT: &str = "log.checkpoint.new";

/// A server whose calls fail as `inject` says, where they are about `file`.
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

async fn text(url: &str) -> String {
    let answer = reqwest::get(url).await;
    match answer {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_the_way_to_the_disk_fails_once_and_for_a_while() {
    // The first writes are those of a new ledger; from the seventh on it takes events.
    let rows = [
        ("write:error=EIO:when=9", WAL, Then::Ends),
        ("write:error=EIO:when=9+", WAL, Then::Ends),
        ("fdatasync:error=EIO:when=9", WAL, Then::Ends),
        ("fdatasync:error=EIO:when=9+", WAL, Then::Ends),
        ("write:error=EROFS:when=9+", WAL, Then::Ends),
        ("write:error=ENOSPC:when=9", WAL, Then::GoesOn),
        ("write:error=ENOSPC:when=9..15", WAL, Then::GoesOn),
        ("fdatasync:error=ENOSPC:when=9", WAL, Then::GoesOn),
        ("fdatasync:error=ENOSPC:when=9..15", WAL, Then::GoesOn),
        ("openat:error=ENOSPC:when=3..20", CHECKPOINT, Then::Unharmed),
        ("write:error=ENOSPC:when=3..20", CHECKPOINT, Then::Unharmed),
        ("fsync:error=EIO:when=3..20", CHECKPOINT, Then::Unharmed),
        ("rename:error=EIO:when=3..20", CHECKPOINT, Then::Unharmed),
    ];
    for (inject, file, then) in rows {
        let data = TempDir::new().unwrap();
        let mut server = start(data.path(), inject, file);
        let mut oracle = Oracle::default();
        let seed = crate::durability::faults::seed();
        let senders = (0..4).map(|sender| tokio::spawn(send(server.url.clone(), seed + sender, 40)));
        for sender in senders.collect::<Vec<_>>() {
            oracle.hear(sender.await.unwrap());
        }
        println!("{inject} on {file}: {then:?}, {} acknowledged, {}", oracle.len(), server.said());
        assert!(oracle.len() > 2, "{inject}");
        if then == Then::Ends {
            eventually("its end", async || server.child.try_wait().unwrap().is_some()).await;
            assert_eq!(server.child.wait().unwrap().code(), Some(3), "{inject}");
            let said = server.said();
            let why = ["Input/output error", "Read-only file system"];
            let is_told = why.iter().any(|why| said.contains(why)) && said.contains("its next start recovers");
            assert!(is_told, "{said}");
        } else {
            // As the disk does, the faults pass: at last there is no more of them.
            eventually("readiness", async || text(&format!("{}/readyz", server.admin_url)).await == "ready\n").await;
            oracle.hear(send(server.url.clone(), seed + 10, 20).await);
            eventually("a checkpoint over all of it", async || {
                let root = text(&format!("{}/v1/merkle/root", server.url)).await;
                let root: serde_json::Value = serde_json::from_str(&root).unwrap();
                root["tree_size"].as_u64().is_some_and(|size| size as usize >= oracle.len())
            })
            .await;
            assert!(server.child.try_wait().unwrap().is_none(), "{inject}: it ended");
            oracle.see_checkpoint(&server.url).await;
            oracle.check(&server.url).await;
            server.kill();
        }
        oracle.verify(data.path());
        let server = Process::start(data.path(), &[]);
        oracle.send_again(&server.url).await;
        oracle.check(&server.url).await;
    }
}

/// Sends long events, a second or so, or until more are refused than there may be.
async fn send_large(url: &str, mut refusals: usize) -> Heard {
    let client = reqwest::Client::new();
    let mut heard = Heard::default();
    for _ in 0..20 {
        let output: String = std::iter::repeat_with(fastrand::alphanumeric).take(900_000).collect();
        let event = serde_json::json!({"agent_id": "large", "action_output": output});
        let request = client.post(format!("{url}/v1/events")).header("content-type", "application/json");
        // It may have ended.
        let Ok(answer) = request.body(event.to_string()).send().await else { break };
        match (answer.status().as_u16(), answer.text().await.unwrap()) {
            (201, text) => heard.add(serde_json::from_str(&text).unwrap()),
            (503, text) => {
                assert!(
                    text.contains("unknown whether") || text.contains("not stored") || text.contains("disk"),
                    "{text}"
                );
                if refusals == 0 {
                    break;
                }
                refusals -= 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            other => panic!("{other:?}"),
        }
    }
    heard
}

/// What is written behind the answers, from memory to table files, and the next write-ahead log.
#[tokio::test(flavor = "multi_thread")]
async fn every_call_behind_the_way_to_the_disk_fails_and_nothing_is_lost() {
    const TABLE: &str = "000009.sst";
    const NEXT_WAL: &str = "000008.log";
    let rows = [
        ("openat:error=EIO:when=1", NEXT_WAL, Then::Ends),
        ("openat:error=ENOSPC:when=1", NEXT_WAL, Then::EndsLate),
        ("openat:error=EIO:when=1", TABLE, Then::Ends),
        ("write:error=EIO:when=1", TABLE, Then::Ends),
        ("write:error=ENOSPC:when=1..3", TABLE, Then::GoesOn),
        ("fdatasync:error=EIO:when=1", TABLE, Then::Ends),
        ("fdatasync:error=ENOSPC:when=1..3", TABLE, Then::GoesOn),
    ];
    for (inject, file, then) in rows {
        let data = TempDir::new().unwrap();
        let mut server = start(data.path(), inject, file);
        let mut oracle = Oracle::default();
        for _ in 0..3 {
            oracle.hear(send_large(&server.url, usize::MAX).await);
        }
        println!("{inject} on {file}: {} acknowledged, {}", oracle.len(), server.said());
        let readyz = format!("{}/readyz", server.admin_url);
        if then == Then::EndsLate {
            tokio::time::sleep(Duration::from_secs(45)).await;
            assert!(server.child.try_wait().unwrap().is_none(), "{inject} on {file}");
        }
        let ends = matches!(then, Then::Ends | Then::EndsLate);
        eventually("its end, or readiness", async || match ends {
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

/// A small file system that goes with the test.
struct Mount {
    folder: TempDir,
}

impl Mount {
    /// None where this user may not mount.
    fn new(size: &str) -> Option<Mount> {
        let folder = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path());
        let is_mounted = mount.status().is_ok_and(|status| status.success());
        if !is_mounted {
            println!("skipped: this user may not mount a file system");
        }
        is_mounted.then_some(Mount { folder })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn remount(&self, option: &str) {
        let status =
            Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_filled_to_its_last_byte_is_waited_for() {
    let Some(mount) = Mount::new("160m") else { return };
    let mut server = Process::start(&mount.path().join("data"), &[("CAIRN_STORAGE__MEMORY_BYTES", "8MiB")]);
    let mut oracle = Oracle::default();
    oracle.hear(send(server.url.clone(), 1, 100).await);
    for round in 0..3 {
        let filler = mount.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        // Until not a byte more goes in.
        for length in [1 << 20, 4096, 1] {
            while std::io::Write::write_all(&mut file, &vec![1; length]).is_ok() {}
        }
        drop(file);
        let readyz = format!("{}/readyz", server.admin_url);
        eventually("refusal", async || {
            // What the database has reserved has to be used up first.
            oracle.hear(send_large(&server.url, 0).await);
            text(&readyz).await.contains("space")
        })
        .await;
        // Reads go on.
        oracle.check(&server.url).await;
        assert!(text(&format!("{}/healthz", server.admin_url)).await.contains("ok"));
        std::fs::remove_file(&filler).unwrap();
        eventually("room again", async || text(&readyz).await == "ready\n").await;
        let before = oracle.len();
        oracle.hear(send(server.url.clone(), 1000 + round, 50).await);
        assert!(oracle.len() > before + 30, "it takes events again");
        assert!(server.child.try_wait().unwrap().is_none(), "without a restart");
    }
    oracle.check(&server.url).await;
    server.kill();
    oracle.verify(&mount.path().join("data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_cannot_be_written_any_more_ends_the_server_and_loses_nothing() {
    let Some(mount) = Mount::new("60m") else { return };
    let data = mount.path().join("data");
    let mut oracle = Oracle::default();
    let mut server = Process::start(&data, &[]);
    oracle.hear(send(server.url.clone(), 1, 50).await);
    // Read-only while a file is open for writing is refused: lazily, as a broken disk does it, needs a second mount.
    server.kill();
    mount.remount("ro");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let output = cairn().args(arguments).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("Read-only file system") && said.contains(data.to_str().unwrap()), "{said}");
    oracle.verify(&data);
    mount.remount("rw");
    let server = Process::start(&data, &[]);
    oracle.check(&server.url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_that_is_removed_is_noticed_and_one_of_somebody_else_refused() {
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
        eventually("its end", async || server.child.try_wait().unwrap().is_some()).await;
        assert_eq!(server.child.wait().unwrap().code(), Some(3));
        assert!(server.said().contains("was removed or replaced while it was in use"), "{}", server.said());
        // Nothing is made anew where somebody will put back what was there.
        let left = std::fs::read_dir(&data).map_or(0, Iterator::count);
        assert_eq!((left, data.exists()), if replaced { (1, true) } else { (0, false) });
    }
    let folder = TempDir::new().unwrap();
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--clear-groups"]).arg(cairn().get_program()).args(["serve", "--data-dir"]);
    setpriv.arg(folder.path()).args(["--listen", "127.0.0.1:0"]).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0");
    let output = setpriv.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if said.contains("setpriv: ") || said.contains("execvp") {
        println!("skipped: this user cannot become another one: {said}");
        return;
    }
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("Permission denied") && said.contains("storage.data_dir"), "{said}");
}

/// A ledger with a table file and a write-ahead log, and what was acknowledged.
async fn ledger() -> (TempDir, Oracle) {
    let data = TempDir::new().unwrap();
    let mut oracle = Oracle::default();
    for life in 0..2 {
        let mut server = Process::start(data.path(), &[]);
        oracle.hear(send(server.url.clone(), life, 200).await);
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

/// The longest file of a kind.
fn longest(data: &Path, extension: &str) -> PathBuf {
    let files = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.ends_with(extension) || (extension == "MANIFEST" && name.starts_with(extension))
    };
    files.filter(is_it).max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_disk_forgets_or_alters_is_named() {
    type Damage = fn(&Path);
    let rows: [(&str, Damage); 5] = [
        ("a byte in the middle of a table", |data| {
            let path = longest(data, ".sst");
            let mut bytes = std::fs::read(&path).unwrap();
            let middle = bytes.len() / 3;
            bytes[middle] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
        }),
        ("a table that is gone", |data| std::fs::remove_file(longest(data, ".sst")).unwrap()),
        ("a write-ahead log without its end", |data| {
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
        ("a manifest without its end", |data| {
            let path = longest(data, "MANIFEST");
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
    ];
    for (what, damage) in rows {
        let (data, oracle) = ledger().await;
        oracle.verify(data.path());
        damage(data.path());
        let (code, said, err) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
        println!("{what}: verify {code}: {said}{err}");
        assert!(code == 1 || code == 3, "{what}: {said}{err}");
        let mut command = cairn();
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
        command.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").env("CAIRN_STORAGE__MIN_FREE_BYTES", "1B");
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut server = command.stdout(log.reopen().unwrap()).spawn().unwrap();
        // It does not start, or it starts and says that it is not the ledger that was signed.
        let words = ["nothing is signed", "Corruption", "an event is missing"];
        eventually("a word of it", async || {
            let said = std::fs::read_to_string(log.path()).unwrap();
            let ended = server.try_wait().unwrap().map(|status| status.code());
            assert!(ended.is_none() || ended == Some(Some(3)), "{what}: {ended:?} {said}");
            ended.is_some() || words.iter().any(|word| said.contains(word))
        })
        .await;
        let _ = server.kill();
        server.wait().unwrap();
        println!("{what}: serve: {}", std::fs::read_to_string(log.path()).unwrap());
    }
}
