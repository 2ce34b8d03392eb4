//! The service manager: a server reports when it accepts events, that it runs, and that it ends.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::harness::{Process, cairn};
use crate::support::machine::may_mount;

/// The next message that contains a text.
fn message(socket: &UnixDatagram, text: &str) -> String {
    let (started, mut buffer) = (Instant::now(), [0; 4096]);
    while started.elapsed() < Duration::from_secs(10) {
        if let Ok(length) = socket.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.contains(text) {
                return message;
            }
        }
    }
    panic!("no message contains {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_learns_when_the_server_is_ready_lives_and_ends() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "300000")];
    let mut server = Process::start(&folder.path().join("data"), &environment);
    let ready = message(&socket, "READY=1");
    assert!(ready.contains("STATUS=accepting events, 0 events stored"), "{ready}");
    let client = reqwest::Client::new();
    let request = client.post(format!("{}/v1/events", server.url)).header("content-type", "application/json");
    assert_eq!(request.body(r#"{"agent_id":"a"}"#).send().await.unwrap().status(), 201);
    message(&socket, "STATUS=accepting events, 1 event stored");
    for _ in 0..5 {
        let started = Instant::now();
        message(&socket, "WATCHDOG=1");
        assert!(started.elapsed() < Duration::from_millis(300), "in time for the watchdog");
    }
    assert!(Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
    message(&socket, "STOPPING=1");
    assert!(server.child.wait().unwrap().success());
}

/// A read-only directory, as `ProtectSystem` makes it, and the end of the server after a second.
const PROTECTED: &str = r#"
    mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"
    shift
    exec timeout 1 "$@"
"#;

#[test]
fn a_path_outside_of_the_sandbox_of_the_unit_gives_a_warning_with_the_reason() {
    if !may_mount() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let (own, elsewhere) = (folder.path().join("own"), folder.path().join("elsewhere"));
    std::fs::create_dir(&own).unwrap();
    std::fs::create_dir(&elsewhere).unwrap();
    let output = |checkpoint: &std::path::Path| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-euc", PROTECTED, "sh"])
            .arg(&elsewhere)
            .arg(cairn().get_program())
            .arg("serve");
        command.env("CAIRN_LISTEN", "127.0.0.1:0").env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0");
        command.env("CAIRN_STORAGE__DATA_DIR", own.join("data")).env("STATE_DIRECTORY", &own);
        let output = command.env("CAIRN_LOG__CHECKPOINT_FILE", checkpoint).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let inside = output(&own.join("checkpoint"));
    assert!(inside.contains("is ready") && !inside.contains("ProtectSystem"), "{inside}");
    let outside = output(&elsewhere.join("checkpoint"));
    let warning = format!("log.checkpoint_file: the service cannot write {}", elsewhere.display());
    assert!(outside.contains(&warning) && outside.contains("ProtectSystem"), "{outside}");
}
