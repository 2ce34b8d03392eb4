//! Commands that read: their temporary files, and the servers that they trust.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use tempfile::TempDir;

use crate::log::checkpoints::{frequent_checkpoints, verifier_keys, wait_until_signed};
use crate::support::harness::{TestServer, cairn, config};

/// Runs `cairn status` with a directory for temporary files; returns its exit status and its output.
fn status(data: &Path, temporary: &Path) -> (Option<i32>, String) {
    let mut status = cairn();
    let output = status.args(["status", "--data-dir"]).arg(data).env("TMPDIR", temporary).output().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_names_the_temporary_directory_and_removes_what_killed_readers_have_left() {
    let (data, temporary) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let server = TestServer::start(&config(data.path())).await;
    server.store(&json!({"agent_id": "a"})).await;
    let (code, output) = status(data.path(), Path::new("/nowhere"));
    let is_named = output.contains("temporary files /nowhere") && output.contains("TMPDIR");
    assert!(code == Some(3) && is_named && !output.contains("storage.data_dir"), "{output}");

    let long_ago = SystemTime::now() - Duration::from_secs(60);
    let create = |name: &str, at: SystemTime| {
        let path = temporary.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("LOG"), "").unwrap();
        let folder = File::open(&path).unwrap();
        folder.set_modified(at).unwrap();
        folder
    };
    create("cairn-read-killed", long_ago);
    create("cairn-read-just-created", SystemTime::now());
    create("cairn-reader-earlier-version", long_ago);
    create("cairn-reader-killed-days-ago", long_ago - Duration::from_secs(3 * 86_400));
    create("of-another-program", long_ago);
    let running = create("cairn-read-running", long_ago);
    running.lock().unwrap();
    assert_eq!(status(data.path(), temporary.path()).0, Some(0));
    let left =
        std::fs::read_dir(temporary.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = left.collect();
    left.sort_unstable();
    let expected =
        ["cairn-read-just-created", "cairn-read-running", "cairn-reader-earlier-version", "of-another-program"];
    assert_eq!(left, expected);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirection_to_another_server_is_not_followed() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&frequent_checkpoints(data.path())).await;
    server.store(&json!({"agent_id": "a"})).await;
    wait_until_signed(&server, 1).await;
    let key = verifier_keys(data.path()).remove(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let redirecting = format!("http://{}", listener.local_addr().unwrap());
    let target = server.url.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
            let len = stream.read(&mut request).unwrap();
            let path = String::from_utf8_lossy(&request[..len]).split(' ').nth(1).unwrap_or("/").to_owned();
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: {target}{path}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    for arguments in [
        &["verify", "--log", &redirecting, "--key", &key][..],
        &["verify", "--agent-id", "a", "--server", &redirecting],
        &["export", "--agent-id", "a", "--server", &redirecting],
    ] {
        let output = cairn().args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let is_named = errors.contains("302") && errors.contains(&server.url) && errors.contains("not followed");
        assert!(output.status.code() == Some(3) && is_named, "{arguments:?}: {errors}");
    }
    server.stop().await.unwrap();
}
