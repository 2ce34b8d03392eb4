//! The process log: a collector that does not read it stops nothing.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, cairn, eventually, metric};

/// A server whose log the test reads or not.
struct Server {
    child: Child,
    url: String,
    admin_url: String,
}

impl Server {
    /// Starts a server that listens to a free port, with its standard output in a pipe.
    async fn start(data: &TempDir, environment: &[(&str, &str)]) -> Server {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (listen, admin) = (free(), free());
        let mut command: Command = cairn();
        command.args(["serve", "--listen", &listen, "--data-dir"]).arg(data.path());
        command.env("CAIRN_ADMIN__LISTEN", &admin).envs(environment.iter().copied()).stdout(Stdio::piped());
        let child = command.spawn().unwrap();
        Server { child, url: format!("http://{listen}"), admin_url: format!("http://{admin}") }
    }

    async fn answers(&self) -> bool {
        let request = reqwest::Client::new().post(format!("{}/v1/events", self.url));
        let request = request.header("content-type", "application/json").timeout(Duration::from_secs(2));
        let stored = request.body(json!({"agent_id": "a"}).to_string()).send().await;
        let health = reqwest::Client::new().get(format!("{}/healthz", self.admin_url)).timeout(Duration::from_secs(2));
        stored.is_ok_and(|answer| answer.status() == 201)
            && health.send().await.is_ok_and(|answer| answer.status() == 200)
    }

    async fn dropped_lines(&self) -> f64 {
        let answer = Answer::of(reqwest::get(format!("{}/metrics", self.admin_url)).await.unwrap()).await;
        metric(&answer.text, "cairn_log_lines_dropped_total").unwrap()
    }

    /// Sends SIGTERM, and returns how long the end took.
    fn terminate(mut self) -> Duration {
        let started = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        while self.child.try_wait().unwrap().is_none() {
            assert!(started.elapsed() < Duration::from_secs(20), "SIGTERM is ignored");
            std::thread::sleep(Duration::from_millis(20));
        }
        started.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing_and_its_lines_are_counted() {
    let data = TempDir::new().unwrap();
    // A thousand lines a second: more than a pipe and the queue of lines hold.
    let mut server = Server::start(&data, &[("CAIRN_LOG__ANNOUNCE_INTERVAL", "100us")]).await;
    let mut log = BufReader::new(server.child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("cairn is ready") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0);
    }
    eventually("dropped lines", async || server.dropped_lines().await > 0.0).await;
    for _ in 0..20 {
        assert!(server.answers().await, "the server waits for its log");
    }
    // Once the log is read again, it says what it does not have.
    let dropped = tokio::task::spawn_blocking(move || {
        let lines = (&mut log).lines().map_while(Result::ok);
        let entries = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let dropped = entries.map(|entry| entry["dropped"].as_u64()).find_map(|dropped| dropped);
        (dropped, log)
    });
    let (dropped, log) = tokio::time::timeout(Duration::from_secs(30), dropped).await.unwrap().unwrap();
    assert!(dropped.is_some_and(|dropped| dropped > 0), "{dropped:?}");
    let before = server.dropped_lines().await;
    eventually("dropped lines again", async || server.dropped_lines().await > before).await;
    assert!(server.terminate() < Duration::from_secs(5));
    drop(log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_whose_reader_has_ended_stops_nothing() {
    for format in ["text", "json"] {
        let data = TempDir::new().unwrap();
        let mut server = Server::start(&data, &[("CAIRN_LOG__FORMAT", format)]).await;
        let mut first = [0; 1];
        server.child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        eventually("the server answers", async || server.answers().await).await;
        assert!(server.child.try_wait().unwrap().is_none());
        assert!(server.terminate() < Duration::from_secs(5), "{format}");
    }
}
