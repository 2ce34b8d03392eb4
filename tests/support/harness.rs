//! Servers to test against: one in this process, and one in a process of its own that can be killed.

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

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration for a server on free ports, with its data in `data_dir`.
pub fn config(data_dir: &Path) -> Config {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config { listen: any.into(), ..Config::default() };
    config.admin.listen = any;
    config.storage.data_dir = data_dir.to_owned();
    config.storage.min_free_bytes = bytesize::ByteSize::b(1);
    config
}

/// A server in this process.
pub struct Running {
    pub client: Client,
    pub url: String,
    pub admin_url: String,
    pub otlp_url: Option<String>,
    /// Not for long: it would keep the ledger open.
    live: Weak<Live>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
}

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: Response) -> Answer {
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {}", self.text))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {}", self.text)).to_owned()
    }
}

impl Running {
    pub async fn start(config: &Config) -> Running {
        Running::start_with(config, |store| store).await.unwrap()
    }

    /// Starts a server whose batches are put on disk by what `commit` makes.
    pub async fn start_with(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
    ) -> Result<Running, ServeError> {
        Running::start_at(config, commit, system_clock()).await
    }

    /// The same, with a clock of the test's own.
    pub async fn start_at(
        config: &Config,
        commit: impl FnOnce(Arc<Store>) -> Arc<dyn Commit>,
        clock: Clock,
    ) -> Result<Running, ServeError> {
        let server = Server::start(config, commit, clock).await?;
        let url = format!("http://{}", server.addresses().unwrap()[0]);
        let admin_url = format!("http://{}", server.admin_address().unwrap());
        let otlp_url = server.otlp_address().unwrap().map(|address| format!("http://{address}"));
        let live = Arc::downgrade(server.live());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Ok(Running { client: Client::new(), url, admin_url, otlp_url, live, stop: Some(stop), task })
    }

    /// Has it look at its files with secrets now, as it does every few seconds.
    pub fn look_at_files(&self) {
        tokio::task::block_in_place(|| self.live.upgrade().unwrap().look_at_files());
    }

    /// Shuts the server down as SIGTERM does.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        let _ = self.stop.take().unwrap().send(());
        self.task.await.unwrap()
    }

    /// Waits for a server that ends by itself.
    pub async fn ended(self) -> Result<(), ServeError> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server should end").unwrap()
    }

    pub fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> RequestBuilder {
        let request = self.client.post(format!("{}{path}", self.url));
        request.header("content-type", "application/json").body(body)
    }

    pub async fn send(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.post(path, body.to_string()).send().await.unwrap()).await
    }

    /// Posts an event that has to be stored.
    pub async fn store(&self, event: &Value) -> Value {
        let answer = self.send("/v1/events", event).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }

    pub async fn get(&self, path_and_query: &str) -> Answer {
        let response = self.client.get(format!("{}{path_and_query}", self.url)).send().await.unwrap();
        Answer::of(response).await
    }

    pub async fn list(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/events?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json().as_array().unwrap().clone()
    }

    pub async fn metrics(&self) -> String {
        self.client.get(format!("{}/metrics", self.admin_url)).send().await.unwrap().text().await.unwrap()
    }
}

/// The value of a metric in Prometheus text, with its labels as they stand there.
pub fn metric(text: &str, name_and_labels: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name_and_labels)?.strip_prefix(' ')?.parse().ok())
}

/// Waits until `is_so`, looking again and again.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The program under test.
pub fn cairn() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cairn"))
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    cairn().args(arguments).output().unwrap()
}

/// What a run of the program printed, and its exit status.
pub fn run_text(arguments: &[&str]) -> (i32, String, String) {
    let output = run(arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A server in a process of its own. Killed when dropped.
pub struct Process {
    pub child: Child,
    pub url: String,
    pub admin_url: String,
    /// What it has said on standard output.
    said: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts a server and waits until it takes events.
    pub fn start(data_dir: &Path, environment: &[(&str, &str)]) -> Process {
        Process::start_as(cairn(), data_dir, environment)
    }

    /// Starts a server by a command that runs the program with the arguments behind it.
    pub fn start_as(mut command: Command, data_dir: &Path, environment: &[(&str, &str)]) -> Process {
        command.arg("serve");
        Process::start_with(command, data_dir, environment)
    }

    /// The same, by a command that has arguments already.
    pub fn start_with(mut command: Command, data_dir: &Path, environment: &[(&str, &str)]) -> Process {
        command.args(["--listen", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
        command.env("CAIRN_ADMIN__LISTEN", "127.0.0.1:0").env("CAIRN_STORAGE__MIN_FREE_BYTES", "1B");
        command.envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let (url, admin_url, said) = (String::new(), String::new(), Arc::default());
        let mut server = Process { child: command.spawn().unwrap(), url, admin_url, said: Arc::clone(&said) };
        let mut lines = BufReader::new(server.child.stdout.take().unwrap()).lines();
        while server.url.is_empty() {
            let line = lines.next().expect("the server ended").unwrap();
            let said: Value = serde_json::from_str(&line).unwrap();
            if said["message"] == json!("cairn takes events") {
                server.url = format!("http://{}", said["listen"].as_str().unwrap());
                server.admin_url = format!("http://{}", said["admin"].as_str().unwrap());
            }
        }
        // Goes on reading, so that the server never waits for us.
        std::thread::spawn(move || lines.for_each(|line| said.lock().unwrap().extend(line)));
        server
    }

    /// What it has said in its log since it took events.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().join("\n")
    }

    /// `kill -9`
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

/// A file of this repository.
pub fn repository(path: &str) -> PathBuf {
    // Asked when it runs: a binary may have been built in another clone.
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join(path)
}

/// Has the independent reference check a chain, one event a line. Returns what it printed.
pub fn reference_chain(events: &[Value]) -> Result<String, String> {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    reference("chain", &lines)
}

/// Runs the independent reference on `input`.
pub fn reference(verb: &str, input: &str) -> Result<String, String> {
    use std::io::Write;
    let mut command = Command::new("python3");
    command.arg(repository("tests/vectors/reference.py")).arg(verb);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python3 is needed");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may refuse before it has read everything.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// All events of an agent in the order of its chain, by the pages of the API.
pub async fn whole_chain(client: &Client, url: &str, agent_id: &str) -> Vec<Value> {
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

/// The next page that a Link header names.
pub fn next_page(headers: &reqwest::header::HeaderMap) -> Option<String> {
    let link = headers.get("link")?.to_str().unwrap();
    let (path, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
    assert_eq!(rest, "; rel=\"next\"");
    Some(path.to_owned())
}
