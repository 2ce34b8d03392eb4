//! The service manager: a server reports when it accepts events, that it runs, and that it ends.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::harness::Process;

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
    assert!(std::process::Command::new("kill").arg(server.child.id().to_string()).status().unwrap().success());
    message(&socket, "STOPPING=1");
    assert!(server.child.wait().unwrap().success());
}
