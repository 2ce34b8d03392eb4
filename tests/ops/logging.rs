//! The process log: a collector that does not read it stops nothing, refusals are in it, and a terminal gets short lines.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, Process, cairn, eventually, metric, repository};
use crate::support::modules::Modules;

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

#[tokio::test(flavor = "multi_thread")]
async fn refused_events_are_logged_once_whichever_way_they_came() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    let client = reqwest::Client::new();
    let calls = [
        ("/v1/events", "{}", 400),
        ("/v1/batch", r#"[{"agent_id":"a"},{"agent_id":7},{"agent_id":8}]"#, 207),
        ("/v1/batch", "no", 400),
        ("/api/v1/capture-event", "[]", 400),
        ("/api/v1/capture-session", "no", 400),
        ("/v1/traces", "{\"resourceSpans\":7}", 400),
    ];
    for (path, body, status) in calls {
        let request = client.post(format!("{}{path}", server.url)).header("content-type", "application/json");
        assert_eq!(request.body(body).send().await.unwrap().status(), status, "{path} {body}");
    }
    let lines = || server.log().lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>();
    let routes = ["/v1/events", "/v1/batch", "/api/v1/capture-event", "/api/v1/capture-session", "/v1/traces"];
    let logged = |route: &str| {
        let of_route = lines().into_iter().filter(|line| line["route"] == *route);
        of_route.map(|line| (line["message"].clone(), line["reason"].clone())).collect::<Vec<_>>()
    };
    eventually("the last line", async || !logged("/v1/traces").is_empty()).await;
    for route in routes {
        let found = logged(route);
        assert_eq!(found.len(), 1, "{route}: {found:?}");
        let message = "events refused, see cairn_ingest_refused_events_total";
        assert!(found[0].0 == message && found[0].1.as_str().is_some_and(|reason| reason.len() > 8), "{found:?}");
    }
}

/// The texts in double quotes that a document tells its reader to search in the process log.
fn quoted_lines(text: &str) -> Vec<String> {
    let is_line = |quoted: &&str| {
        quoted.contains(' ')
            && quoted.starts_with(|c: char| c.is_ascii_lowercase())
            && !quoted.contains(['{', '$', ':'])
    };
    text.lines().flat_map(|line| line.split('"').skip(1).step_by(2).filter(is_line)).map(str::to_owned).collect()
}

#[test]
fn every_line_that_runbooks_and_alerts_quote_is_one_of_the_program() {
    let sources: String = Modules::read(&repository("src")).files().iter().map(|file| file.text.clone()).collect();
    let mut found = 0;
    for document in ["deploy/monitoring/runbooks.md", "deploy/README.md", "docs/failures.md", "docs/agnost.md"] {
        let text = std::fs::read_to_string(repository(document)).unwrap();
        for quoted in quoted_lines(&text) {
            assert!(sources.contains(&quoted), "{document} quotes {quoted:?}, which nothing logs");
            found += 1;
        }
    }
    // In YAML, quotes also surround values.
    let alerts = std::fs::read_to_string(repository("deploy/monitoring/alerts.yaml")).unwrap();
    for (_, rest) in alerts.match_indices("process log for \"").map(|(at, start)| alerts.split_at(at + start.len())) {
        let quoted = rest.split('"').next().unwrap();
        assert!(sources.contains(quoted), "alerts.yaml quotes {quoted:?}, which nothing logs");
        found += 1;
    }
    assert!(found >= 4, "{found}");
}

/// The output of a server on a terminal, while `act` sends something to its address.
fn on_terminal(environment: &[(&str, &str)], act: impl FnOnce(&str)) -> String {
    let data = TempDir::new().unwrap();
    let program = cairn().get_program().to_str().unwrap().to_owned();
    let serve = format!("exec {program} serve --listen 127.0.0.1:0 --data-dir {}", data.path().join("d").display());
    let output = data.path().join("output");
    let mut command = Command::new("script");
    command.args(["--quiet", "--flush", "--return", "--command", &serve]).arg(&output);
    command.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").env("CAIRN_LOG__ANNOUNCE_INTERVAL", "50ms");
    command.env("CAIRN_RECORDER__ENABLED", "false");
    command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let read = || std::fs::read_to_string(&output).unwrap_or_default().replace("\r\n", "\n");
    let wait = |text: &str| {
        let started = Instant::now();
        while !read().contains(text) {
            assert!(started.elapsed() < Duration::from_secs(20), "{text} is not in {}", read());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait("metrics  http://");
    let text = read();
    let url = text.split("is listening on ").nth(1).unwrap().lines().next().unwrap().to_owned();
    act(&url);
    wait("checkpoint of 2 events signed");
    // The pause is the subject: some announcements, which a terminal does not show.
    std::thread::sleep(Duration::from_millis(300));
    let text = read();
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn a_terminal_shows_short_lines_when_something_changes() {
    let post = |url: &str| {
        for _ in 0..2 {
            let event = r#"{"agent_id":"my-agent"}"#;
            let client = reqwest::blocking::Client::new();
            let request = client.post(format!("{url}/v1/events")).header("content-type", "application/json");
            assert_eq!(request.body(event).send().unwrap().status(), 201);
        }
    };
    let text = on_terminal(&[("NO_COLOR", "1")], post);
    assert!(!text.contains('\u{1b}'), "colours: {text:?}");
    assert_eq!(text.matches("first event of an agent agent_id=\"my-agent\"").count(), 1, "{text}");
    assert_eq!(text.matches("checkpoint of 2 events signed").count(), 1, "{text}");
    assert!(!text.contains("verifier_keys") && !text.contains("cairn is ready"), "{text}");
    assert!(text.contains("Try it:\n  curl http://127.0.0.1:") && text.contains(", 0 events\n"), "{text}");
    assert!(on_terminal(&[], post).contains('\u{1b}'));
}
