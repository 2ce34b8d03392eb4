//! Servers to test against, in this process ([`TestServer`]) or as a child process that can be killed ([`Process`]),
//! and functions that run the command line and the independent reference.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use cairn::config::Config;
use cairn::ledger::shard::commit::Commit;
use cairn::ledger::store::Store;
use cairn::runtime::{Clock, system_clock};
use cairn::serve::{Live, ServeError, Server};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a test waits for a condition before it fails.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// A configuration for a server on free ports that stores its data in `data_dir`.
pub fn config(data_dir: &Path) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config { listen: any.into(), ..Config::default() };
    // Most tests count events. Those of the recorder turn it on.
    config.recorder.enabled = false;
    config.admin.listen = any.into();
    config.storage.data_dir = data_dir.to_owned();
    config.storage.min_free_bytes = bytesize::ByteSize::b(1);
    // Most upstreams of tests that are away do not come back.
    config.shutdown.relay_time = Duration::from_millis(300);
    config
}

/// A server in this process. Dropping it starts its shutdown without waiting for it; see [`TestServer::stop`].
pub struct TestServer {
    pub client: Client,
    pub url: String,
    pub admin_url: String,
    pub otlp_url: Option<String>,
    /// Weak, because a strong reference keeps the ledger open after the server has stopped.
    live: Weak<Live>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

/// An HTTP response whose body was read completely.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    /// Reads the body of a response.
    pub async fn of(response: Response) -> Answer {
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    /// The body as JSON. Panics if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    /// The member `error` of the body. Panics if there is none.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {}", self.text)).to_owned()
    }
}

impl TestServer {
    /// Starts a server. Panics if it does not start.
    pub async fn start(config: &Config) -> TestServer {
        TestServer::start_with(config, |store| store).await.unwrap()
    }

    /// Starts a server that writes its commits with the [`Commit`] that `commit` returns.
    pub async fn start_with(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
    ) -> Result<TestServer, ServeError> {
        TestServer::start_at(config, commit, system_clock()).await
    }

    /// As [`TestServer::start_with`], with a clock of the test.
    pub async fn start_at(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
        clock: Clock,
    ) -> Result<TestServer, ServeError> {
        let server = Server::start(config, commit, clock).await?;
        let url = format!("http://{}", server.addresses()[0]);
        let admin_url = format!("http://{}", server.admin_address().unwrap());
        let otlp_url = server.otlp_addresses().first().map(|address| format!("http://{address}"));
        let live = Arc::downgrade(server.live());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async {
            let stopped = async {
                let _ = stopped.await;
            };
            server.run(stopped).await.map(|_| ())
        });
        Ok(TestServer { client: Client::new(), url, admin_url, otlp_url, live, stop: Some(stop), task })
    }

    /// Checks now whether files with keys or certificates have changed, which the server otherwise does every few
    /// seconds.
    pub fn reload_changed_files(&self) {
        tokio::task::block_in_place(|| self.live.upgrade().unwrap().reload_changed_files());
    }

    /// Shuts the server down as SIGTERM does, and waits until it has stopped.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap()
    }

    /// Waits for a server that stops because of an error.
    pub async fn wait_for_exit(self) -> Result<(), ServeError> {
        tokio::time::timeout(TIMEOUT, self.task).await.expect("the server did not stop").unwrap()
    }

    /// A POST request with a JSON body that was not sent yet.
    pub fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.client.post(format!("{}{path}", self.url));
        request.header("content-type", "application/json").body(body)
    }

    /// Posts JSON and reads the answer.
    pub async fn send(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.post(path, body.to_string()).send().await.unwrap()).await
    }

    /// Posts an event, asserts that it is stored, and returns it as it was answered.
    pub async fn store(&self, event: &Value) -> Value {
        let answer = self.send("/v1/events", event).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }

    /// Sends a GET request and reads the answer.
    pub async fn get(&self, path_and_query: &str) -> Answer {
        let response = self.client.get(format!("{}{path_and_query}", self.url)).send().await.unwrap();
        Answer::of(response).await
    }

    /// The events that `GET /v1/events` lists for a query.
    pub async fn list(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json().as_array().unwrap().clone()
    }

    /// The metrics in Prometheus text format.
    pub async fn metrics(&self) -> String {
        self.client.get(format!("{}/metrics", self.admin_url)).send().await.unwrap().text().await.unwrap()
    }
}

/// The value of a metric in Prometheus text format. `name_and_labels` has to match the text exactly. `None` if it is
/// absent.
pub fn metric(text: &str, name_and_labels: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ')?.parse().ok())
}

/// Polls `condition` every 10 ms until it is true. Panics with `what` if it is false for [`TIMEOUT`].
pub async fn eventually(what: &str, condition: impl AsyncFnMut() -> bool) {
    eventually_within(TIMEOUT, what, condition).await;
}

/// As [`eventually`], for what may take longer.
pub async fn eventually_within(limit: Duration, what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A command that runs the program under test, without arguments.
pub fn cairn() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cairn"))
}

/// A command that runs the auditor's program, `cairn-verify`, which `make test` builds into the same folder.
pub fn cairn_verify() -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_cairn")).with_file_name("cairn-verify");
    assert!(program.exists(), "{} is missing: cargo build --release -p cairn-proof", program.display());
    Command::new(program)
}

/// Runs the program until it exits.
pub fn run(arguments: &[&str]) -> Output {
    cairn().args(arguments).output().unwrap()
}

/// Runs the program until it exits; returns exit status, standard output and standard error.
pub fn run_text(arguments: &[&str]) -> (i32, String, String) {
    let output = run(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A server as a child process. Killed when dropped.
pub struct Process {
    pub child: Child,
    pub url: String,
    pub admin_url: String,
    /// The lines of its log since it started to accept events.
    log_lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a server and waits until it accepts events.
    pub fn start(data_dir: &Path, environment: &[(&str, &str)]) -> Process {
        Process::start_as(cairn(), data_dir, environment)
    }

    /// Starts a server with a command that runs the program with the arguments that are appended to it.
    pub fn start_as(mut command: Command, data_dir: &Path, environment: &[(&str, &str)]) -> Process {
        command.arg("serve");
        Process::start_with(command, data_dir, environment)
    }

    /// Starts a server with a command that already has the subcommand `serve`.
    pub fn start_with(mut command: Command, data_dir: &Path, environment: &[(&str, &str)]) -> Process {
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        command.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").env("CAIRN_STORAGE__MIN_FREE_BYTES", "1B");
        command.env("CAIRN_RECORDER__ENABLED", "false");
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let (url, admin_url, log_lines) = (String::new(), String::new(), Arc::default());
        let mut server = Process { child: command.spawn().unwrap(), url, admin_url, log_lines: Arc::clone(&log_lines) };
        let mut lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
        while server.url.is_empty() {
            let line = lines.next().expect("the server ended before it accepted events").unwrap();
            let entry: Value = serde_json::from_str(&line).unwrap();
            if entry["message"] == json!("cairn is ready") {
                server.url = format!("http://{}", entry["listen"].as_str().unwrap());
                server.admin_url = format!("http://{}", entry["admin"].as_str().unwrap());
            }
        }
        // Reads all further output, so that the server never blocks on a full pipe.
        std::thread::spawn(move || lines.for_each(|line| log_lines.lock().unwrap().extend(line)));
        server
    }

    /// The log since it started to accept events.
    pub fn log(&self) -> String {
        self.log_lines.lock().unwrap().join("\n")
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Resident memory in bytes.
    pub fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The path of a file of this repository.
pub fn repository(path: impl AsRef<Path>) -> PathBuf {
    // Read at run time: the binary may have been built in another clone.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

/// Checks a chain with the independent reference (`tests/vectors/reference.py`). Returns its output, or its error.
pub fn reference_chain(events: &[Value]) -> Result<String, String> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    reference("chain", &lines)
}

/// Runs a command of the independent reference with `input` on its standard input. Returns its output, or its error.
pub fn reference(subcommand: &str, input: &str) -> Result<String, String> {
    use std::io::Write;
    let mut command = Command::new("python3");
    command.arg(repository("tests/vectors/reference.py")).arg(subcommand);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3 is needed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // Fails if the reference rejects the input before it has read everything.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Reads all events of an agent in the order of its chain, page by page.
pub async fn read_chain(client: &Client, url: &str, agent_id: &str) -> Vec<Value> {
    let mut events = Vec::new();
    let mut page = format!("/v1/events?agent_id={agent_id}&order=asc&limit=1000");
    loop {
        let response = client.get(format!("{url}{page}")).send().await.unwrap();
        let next = next_page(response.headers());
        let answer = Answer::of(response).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        events.extend(answer.json().as_array().unwrap().iter().cloned());
        match next {
            Some(next) => page = next,
            None => return events,
        }
    }
}

/// The path of the next page, from the `Link` header.
pub fn next_page(headers: &reqwest::header::HeaderMap) -> Option<String> {
    let link = headers.get("link")?.to_str().unwrap();
    let (path, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    Some(path.to_owned())
}
