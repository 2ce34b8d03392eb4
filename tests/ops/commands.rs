//! Commands that are given the wrong directory, the wrong process or too few permissions say so and change nothing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cairn::http::Address;
use serde_json::json;
use tempfile::TempDir;

use crate::support::harness::{Process, TestServer, cairn, config, eventually, run_text};
use crate::support::machine::is_root;

/// Every file below a directory, with its content and its owner.
fn files(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                let owner = entry.metadata().unwrap().uid();
                found.insert(entry.path(), (std::fs::read(entry.path()).unwrap_or_default(), owner));
            }
        }
    }
    found
}

/// Stores some events in a ledger, and stops its server cleanly.
async fn fill(data_dir: &Path) {
    let server = TestServer::start(&config(data_dir)).await;
    for _ in 0..3 {
        server.store(&json!({"agent_id": "a"})).await;
    }
    server.stop().await.unwrap();
}

#[test]
fn a_command_that_is_not_serve_creates_no_ledger() {
    let folder = TempDir::new().unwrap();
    let (empty, missing) = (folder.path().join("empty"), folder.path().join("missing"));
    std::fs::create_dir(&empty).unwrap();
    for data_dir in [&empty, &missing] {
        let data_dir = data_dir.to_str().unwrap();
        for command in [
            &["key", "new-log"][..],
            &["key", "rotate"],
            &["key", "show"],
            &["repair", "--apply"],
            &["repair", "--dry-run"],
            &["verify", "--all"],
            &["status"],
            &["events"],
            &["export", "--agent-id", "a"],
        ] {
            let (code, output, error) = run_text(&[command, &["--data-dir", data_dir]].concat());
            assert_eq!((code, output.as_str()), (3, ""), "{command:?}: {error}");
            assert!(error.contains(data_dir) || command[0] == "export", "the message names the directory: {error}");
        }
    }
    assert!(files(&empty).is_empty() && !missing.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn serve_refuses_a_directory_with_anything_but_a_ledger_in_it() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    let start = |argument: &Path| {
        let command = [&["serve", "--listen", "127.0.0.1:0", "--data-dir"], &[argument.to_str().unwrap()][..]].concat();
        let output = cairn().args(command).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for name in ["notes.txt", "src", "current", "000004.log", "000009.sst"] {
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join(name), "mine").unwrap();
        let (code, log) = start(&data);
        assert!(code == Some(2) && log.contains("and no ledger: set storage.data_dir to an empty directory"), "{log}");
        assert!(log.contains(&format!("contains \\\"{name}\\\"")), "{log}");
        assert_eq!(files(&data).len(), 1, "nothing was created");
        std::fs::remove_dir_all(&data).unwrap();
    }
    // What is on a new volume, what a first start left that was killed, and files that the configuration names.
    std::fs::create_dir_all(data.join("lost+found")).unwrap();
    std::fs::create_dir_all(data.join("sockets")).unwrap();
    for name in [".snapshot", "LOCK", "LOG", "MANIFEST-000001", "000001.dbtmp", "keys"] {
        std::fs::write(data.join(name), "").unwrap();
    }
    std::fs::write(data.join("keys"), "a-key-of-the-test\n").unwrap();
    let mut config = config(&data);
    config.auth.api_keys_file = Some(data.join("keys"));
    config.listen.0.push(Address::Unix(data.join("sockets/cairn.sock")));
    TestServer::start(&config).await.stop().await.unwrap();
    // A ledger stays one, whatever else is in its directory.
    std::fs::write(data.join("notes.txt"), "mine").unwrap();
    TestServer::start(&config).await.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_a_directory_touches_no_file_of_the_first() {
    let data = TempDir::new().unwrap();
    let socket = data.path().join("cairn.sock");
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let start = |data_dir: &Path| {
        let mut command = cairn();
        command.args(["serve", "--data-dir"]).arg(data_dir);
        command.env("CAIRN_LISTEN", &listen).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0");
        command.env("CAIRN_RECORDER__ENABLED", "false");
        command
    };
    let mut first = start(data.path()).stdout(Stdio::null()).spawn().unwrap();
    let client = reqwest::Client::builder().unix_socket(socket.clone()).build().unwrap();
    let answers = async || client.get("http://localhost/v1/agents").send().await.is_ok_and(|it| it.status() == 200);
    eventually("an answer", answers).await;
    // The first checkpoint is written soon after the start.
    eventually("a checkpoint", async || data.path().join("log.checkpoint").exists()).await;
    let mut before = BTreeMap::new();
    let is_quiet = async || {
        let last = std::mem::replace(&mut before, files(data.path()));
        last == before
    };
    eventually("a directory in which nothing changes", is_quiet).await;
    for listen in [listen.as_str(), "127.0.0.1:0"] {
        let output = start(data.path()).env("CAIRN_LISTEN", listen).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let after = files(data.path());
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(before == after, "a file has changed");
    assert!(answers().await, "the first server still answers");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_changes_a_ledger_below_a_directory_that_its_owner_may_not_pass() {
    if !is_root() {
        return;
    }
    const USER: u32 = 61_234;
    // As systemd arranges it: /var/lib/cairn -> private/cairn, and /var/lib/private for root only.
    let folder = TempDir::new().unwrap();
    let (private, link) = (folder.path().join("private"), folder.path().join("cairn"));
    let data = private.join("cairn/data");
    std::fs::create_dir_all(&data).unwrap();
    symlink("private/cairn", &link).unwrap();
    fill(&data).await;
    let mut paths: Vec<PathBuf> = files(&private).into_keys().collect();
    paths.extend([private.join("cairn"), data.clone()]);
    paths.iter().for_each(|path| chown(path, Some(USER), Some(USER)).unwrap());
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700)).unwrap();
    let file = folder.path().join("cairn.yaml");
    let data_dir = link.join("data");
    std::fs::write(&file, format!("storage:\n  data_dir: {}\n", data_dir.display())).unwrap();

    for command in [&["key", "rotate"][..], &["key", "new-log"], &["repair", "--apply"]] {
        let (code, output, error) = run_text(&[command, &["--config", file.to_str().unwrap()]].concat());
        assert_eq!(code, 0, "{command:?}: {output}{error}");
        if command[1] == "new-log" {
            let expected = format!("{}: a ledger of 3 events.\n", data_dir.display());
            assert!(output.starts_with(&expected), "{output}");
        }
        let of_others: Vec<PathBuf> =
            files(&private).into_iter().filter(|(_, (_, owner))| *owner != USER).map(|(path, _)| path).collect();
        assert_eq!(of_others, Vec::<PathBuf>::new(), "{command:?}");
    }
    // The messages name the directory as the user knows it.
    std::fs::remove_file(data.join("CURRENT")).unwrap();
    let (code, _, error) = run_text(&["key", "new-log", "--config", file.to_str().unwrap()]);
    assert!(code == 3 && error.contains(&format!("there is no ledger in {}", data_dir.display())), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_signals_no_process_that_is_not_a_server() {
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let (code, _, error) = run_text(&["reload", "--pid", &other.id().to_string()]);
    assert!(code == 2 && error.contains("this process does not run `cairn serve`"), "{error}");
    assert!(other.try_wait().unwrap().is_none(), "SIGHUP would have ended it");
    other.kill().unwrap();
    other.wait().unwrap();
    for pid in ["0", "1", "4294967295"] {
        assert_eq!(run_text(&["reload", "--pid", pid]).0, 2, "{pid}");
    }
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    assert_eq!(run_text(&["reload", "--pid", &server.child.id().to_string()]).0, 0);
    eventually("the reload", async || server.log().contains("configuration reloaded")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_ledger_needs_no_secret_of_its_server() {
    let data = TempDir::new().unwrap();
    fill(data.path()).await;
    let file = data.path().join("cairn.yaml");
    let settings = "listen: 0.0.0.0:7600\nauth: {api_keys_file: /nowhere/keys}\ntls: {cert_file: /nowhere/c.pem}\n\
                    relay: {agnost: {org_id_file: /nowhere/org}}\nlog: {level: debug}\n";
    std::fs::write(&file, format!("storage: {{data_dir: {}}}\n{settings}", data.path().display())).unwrap();
    let file = file.to_str().unwrap();
    assert_eq!(run_text(&["config", "validate", "--config", file]).0, 2);
    for command in
        [&["verify", "--all"][..], &["events"], &["status"], &["key", "show"], &["export", "--agent-id", "a"]]
    {
        let (code, _, error) = run_text(&[command, &["--config", file]].concat());
        assert_eq!(code, 0, "{command:?}: {error}");
    }
    // Its own settings are checked.
    std::fs::write(file, "storage: {data_dri: /x}\n").unwrap();
    let (code, _, error) = run_text(&["status", "--config", file]);
    assert!(code == 2 && error.contains("storage.data_dri: unknown key"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn localhost_is_the_loopback_address_of_both_families() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.listen = "localhost:0".parse().unwrap();
    config.admin.listen = "localhost:0".parse().unwrap();
    let server = TestServer::start(&config).await;
    for url in [&server.url, &server.admin_url] {
        let port = url.strip_prefix("http://localhost:").unwrap_or_else(|| panic!("{url}"));
        assert_ne!(port, "0");
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            let path = if *url == server.url { "/v1/agents" } else { "/healthz" };
            let answer = reqwest::get(format!("http://{host}:{port}{path}")).await.unwrap();
            assert_eq!(answer.status(), 200, "{host}");
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_commands_ask_a_server_as_they_read_a_directory() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for n in 0..30 {
        server.store(&json!({"agent_id": format!("agent-{}", n % 3), "action_name": n.to_string()})).await;
    }
    eventually("a signed log", async || server.get("/v1/merkle/root").await.text.contains("\"tree_size\":30")).await;
    let data_dir = data.path().to_str().unwrap();
    for options in [&[][..], &["--last", "7"], &["--agent-id", "agent-1"], &["--last", "100", "--json"]] {
        let local = run_text(&[&["events", "--data-dir", data_dir], options].concat());
        let remote = run_text(&[&["events", "--server", &server.url], options].concat());
        assert_eq!((local.0, remote.0), (0, 0), "{}", remote.2);
        match options.contains(&"--json") {
            // The server and the client write the members in different orders.
            true => {
                let read = |text: &str| -> Vec<serde_json::Value> {
                    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
                };
                assert_eq!(read(&local.1), read(&remote.1));
            }
            false => assert_eq!(local.1, remote.1),
        }
    }
    // `--follow` prints what is there, and then what arrives, each event once.
    let mut follow = cairn();
    follow.args(["events", "--follow", "--last", "2", "--json", "--server", &server.url]).stdout(Stdio::piped());
    let mut follow = follow.spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((next()["action_name"].clone(), next()["action_name"].clone()), (json!("28"), json!("29")));
    for n in 30..33 {
        server.store(&json!({"agent_id": "agent-1", "action_name": n.to_string()})).await;
        assert_eq!(next()["action_name"], n.to_string());
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
    eventually("a signed log", async || server.get("/v1/merkle/root").await.text.contains("\"tree_size\":33")).await;
    let (code, output, error) = run_text(&["status", "--server", &server.url]);
    assert!(
        code == 0 && output.contains("events:           33\nlast checkpoint:  33 events of cairn/"),
        "{output}{error}"
    );
    let (code, output, _) = run_text(&["status", "--server", &server.url, "--json"]);
    let status: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert!(code == 0 && status["events"] == 33 && status["checkpoint"]["tree_size"] == 33, "{output}");
    // An export says what it wrote, but not into the package.
    let file = data.path().join("package.json");
    let (_, output, said) =
        run_text(&["export", "--agent-id", "agent-1", "--data-dir", data_dir, "-o", file.to_str().unwrap()]);
    assert!(
        output.is_empty() && said.contains("package.json: 13 events of agent agent-1; `cairn verify-export`"),
        "{said}"
    );
    let (_, output, said) = run_text(&["export", "--agent-id", "agent-1", "--data-dir", data_dir]);
    assert!(output.starts_with('{') && said.is_empty(), "{said}");
}

#[test]
fn verify_names_the_command_for_evidence_packages() {
    let (code, _, error) = run_text(&["verify", "evidence.json"]);
    assert!(
        code == 2 && error.contains("to verify an evidence package: cairn verify-export evidence.json --key KEY"),
        "{error}"
    );
}
