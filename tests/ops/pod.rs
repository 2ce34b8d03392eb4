//! The life of a pod without a cluster: the content of the image with a read-only root file system, user 10001, and
//! volumes as the kubelet mounts them.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Process, cairn, eventually, metric, repository};
use crate::support::machine::{is_root, may_mount};
use crate::support::upstream::{ORG, Reply, Upstream};

const USER: u32 = 10001;

/// The largest permitted size of the image.
const IMAGE_BYTES: u64 = 40_000_000;

/// Enters a container: a root file system in which only the volumes are writable, and a user without privileges.
const ENTER: &str = r#"
    root=$1; volume=$2; secrets=$3; shift 3
    mount --make-rprivate /
    mount --bind "$root" "$root"
    mount --bind "$volume" "$root/var/lib/cairn"
    mount --bind "$secrets" "$root/etc/cairn/secrets"
    mount --bind /proc "$root/proc"
    mount --bind /dev "$root/dev"
    mount -t tmpfs -o size=64m,mode=1777 none "$root/tmp"
    mount -o remount,bind,ro "$root"
    exec setpriv --no-new-privs chroot --userspec=10001:10001 --groups=10001 "$root" /cairn "$@"
"#;

/// A node with the image and the volumes of one pod.
struct Node {
    folder: TempDir,
}

impl Node {
    fn new() -> Node {
        let node = Node { folder: TempDir::new().unwrap() };
        let program = node.path("program");
        std::fs::copy(cairn().get_program(), &program).unwrap();
        succeeded(Command::new("strip").arg(&program).output().unwrap());
        let script = repository("deploy/image/root.sh");
        succeeded(Command::new("sh").arg(script).args([&program, &node.path("image")]).output().unwrap());
        // The mount point of the secrets in the chart.
        std::fs::create_dir_all(node.path("image/etc/cairn/secrets")).unwrap();
        std::fs::create_dir(node.path("secrets")).unwrap();
        std::fs::write(node.path("secrets/org-id"), ORG).unwrap();
        set(&node.path("secrets/org-id"), 0o440, 0, USER);
        node.mount_new_volume();
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Mounts an unused volume: its root folder belongs to root, and the group of the pod may write to it.
    fn mount_new_volume(&self) {
        let _ = std::fs::remove_dir_all(self.path("volume"));
        std::fs::create_dir(self.path("volume")).unwrap();
        set(&self.path("volume"), 0o2775, 0, USER);
    }

    /// Changes group and modes of all files as the kubelet does when it mounts a volume for a pod with `fsGroup`.
    fn mount_again(&self) {
        let mut folders = vec![self.path("volume")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                let (is_folder, mode) = (entry.is_dir(), entry.metadata().unwrap().permissions().mode() & 0o777);
                chown(&entry, None, Some(USER)).unwrap();
                set_mode(&entry, if is_folder { mode | 0o2770 } else { mode | 0o660 });
                folders.extend(is_folder.then_some(entry));
            }
        }
    }

    /// Starts the container of a pod with this name.
    fn start(&self, pod: &str, upstream: &Upstream) -> Process {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-euc", ENTER, "sh"]);
        command.args([self.path("image"), self.path("volume"), self.path("secrets")]).arg("serve");
        command.args(["--config", "/etc/cairn/cairn.yaml"]);
        let environment = [
            ("CAIRN_INGEST__DEFAULT_LABELS__POD", pod),
            ("CAIRN_RELAY__AGNOST__ORG_ID_FILE", "/etc/cairn/secrets/org-id"),
            ("CAIRN_RELAY__AGNOST__ENDPOINT", &upstream.url()),
            ("CAIRN_RELAY__AGNOST__RETRY__INITIAL", "10ms"),
            ("CAIRN_RELAY__AGNOST__RETRY__MAX", "100ms"),
            ("CAIRN_LOG__ANNOUNCE_INTERVAL", "1h"),
            ("CAIRN_SHUTDOWN__GRACE", "4s"),
            ("CAIRN_SHUTDOWN__RELAY_TIME", "1s"),
        ];
        Process::start_with(command, Path::new("/var/lib/cairn/data"), &environment)
    }
}

/// Runs the program in the container of a server, as `kubectl exec`, a probe and a preStop hook do.
fn exec(server: &Process, arguments: &[&str]) -> Output {
    let (pid, user) = (server.child.id().to_string(), USER.to_string());
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--mount", "--root", "--wd", "--setuid", &user, "--setgid", &user, "/cairn"]);
    command.args(arguments);
    if arguments[0] != "reload" {
        command.args(["--config", "/etc/cairn/cairn.yaml"]);
    }
    // The server of the test has a free port, not the default one.
    command.env("CAIRN_ADMIN__LISTEN", server.admin_url.trim_start_matches("http://")).output().unwrap()
}

/// Asserts that a command succeeded; returns its standard output.
fn succeeded(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn set(path: &Path, mode: u32, user: u32, group: u32) {
    chown(path, Some(user), Some(group)).unwrap();
    set_mode(path, mode);
}

/// Stops a server as the kubelet does; returns the elapsed time and the log.
fn terminate(mut server: Process) -> (Duration, String) {
    let started = Instant::now();
    succeeded(Command::new("kill").arg(server.child.id().to_string()).output().unwrap());
    let status = server.child.wait().unwrap();
    assert!(status.success(), "{status}: {}", server.log());
    (started.elapsed(), server.log())
}

async fn get(url: &str) -> (u16, String) {
    let answer = reqwest::get(url).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn post(url: &str, body: &Value) {
    let request = reqwest::Client::new().post(url).header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
}

async fn events(server: &Process) -> Vec<Value> {
    let (_, text) = get(&format!("{}/v1/events?order=asc&limit=1000", server.url)).await;
    serde_json::from_str(&text).unwrap()
}

/// The verifier keys in the process log.
async fn announced_keys(server: &Process) -> Value {
    let line = || server.log().lines().find(|line| line.contains("verifier_keys")).map(str::to_owned);
    eventually("an announcement", async || line().is_some()).await;
    serde_json::from_str::<Value>(&line().unwrap()).unwrap()["verifier_keys"].clone()
}

async fn backlog(server: &Process) -> Option<f64> {
    let (_, text) = get(&format!("{}/metrics", server.admin_url)).await;
    metric(&text, "cairn_relay_backlog_events{destination=\"agnost\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_serves_and_the_next_pod_continues_on_its_volume() {
    if !may_mount() {
        return;
    }
    let (node, upstream) = (Node::new(), Upstream::start().await);
    upstream.reply_with(|_, _| Reply::Status(503, None));
    let batch =
        |first: usize| -> Value { (first..first + 400).map(|n| json!({"agent_id": "a", "action_input": n})).collect() };

    // An empty volume, and an upstream that is away, which does not affect the probes.
    let server = node.start("agent-0", &upstream);
    post(&format!("{}/v1/batch", server.url), &batch(0)).await;
    eventually("the backlog", async || backlog(&server).await == Some(400.0)).await;
    assert_eq!(get(&format!("{}/healthz", server.admin_url)).await.0, 200);
    assert_eq!(get(&format!("{}/readyz", server.admin_url)).await.0, 200);
    assert_eq!(succeeded(exec(&server, &["health"])), "ok\n");
    assert_eq!(succeeded(exec(&server, &["health", "--ready"])), "ready\n");
    let output = succeeded(exec(&server, &["verify", "--all"]));
    assert!(output.contains("1 agent, 400 events verified: all valid"), "{output}");
    let mode = |name: &str| node.path(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("volume/data") & 0o777, mode("volume/data/log.key")),
        (0o700, 0o600),
        "accessible only for the user"
    );
    succeeded(exec(&server, &["reload", "--pid", &server.child.id().to_string()]));
    eventually("the log line of the reload", async || server.log().contains("configuration reloaded")).await;
    let keys = announced_keys(&server).await;
    let (took, log) = terminate(server);
    assert!(took < Duration::from_secs(4), "the shutdown does not wait for an upstream that is away: {took:?}");
    assert!(log.contains("events were not relayed: they are lost with the volume unless it is kept"), "{log}");

    // The next pod, on the same volume.
    node.mount_again();
    assert_eq!(mode("volume/data/log.key"), 0o660);
    let server = node.start("agent-1", &upstream);
    assert_eq!(events(&server).await.len(), 400);
    assert_eq!(announced_keys(&server).await, keys, "the same log");
    post(&format!("{}/v1/batch", server.url), &batch(400)).await;
    let stored = events(&server).await;
    let pods = |pod: &str| stored.iter().filter(|event| event["labels"]["pod"] == pod).count();
    assert_eq!((pods("agent-0"), pods("agent-1")), (400, 400));
    assert!(stored.iter().enumerate().all(|(index, event)| event["sequence"] == index as u64 + 1));
    // SIGTERM, when the main container has ended: the backlog is sent first.
    upstream.reply_with(|_, _| Reply::Accept);
    let (_, log) = terminate(server);
    assert!(!log.contains("not relayed"), "{log}");
    let last = log.lines().rfind(|line| line.contains("the log's checkpoint")).unwrap_or_default();
    assert!(last.contains("\"size\":800"), "the process log contains the last checkpoint: {last}");
    assert_eq!(upstream.event_count(), 800);
    upstream.assert_no_violations();

    // A new volume is a new log.
    node.mount_new_volume();
    let server = node.start("agent-2", &upstream);
    assert_ne!(announced_keys(&server).await, keys);
    assert_eq!(events(&server).await, Vec::<Value>::new());
    terminate(server);
}

/// The number of connections to a local port, including those that the server has not accepted yet.
fn connections(url: &str) -> usize {
    const TIME_WAIT: &str = "06";
    const LISTEN: &str = "0A";
    let port: u16 = url.rsplit(':').next().unwrap().parse().unwrap();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let to_port = sockets.filter(|socket| socket[1].ends_with(&format!(":{port:04X}")));
    to_port.filter(|socket| ![TIME_WAIT, LISTEN].contains(&socket[3])).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn drain_waits_until_no_events_arrive_and_not_longer() {
    let data = TempDir::new().unwrap();
    let server = Process::start(data.path(), &[]);
    let drain = |arguments: &[&str]| {
        let mut command = cairn();
        command.arg("drain").args(arguments).env("CAIRN_ADMIN__LISTEN", server.admin_url.trim_start_matches("http://"));
        let started = Instant::now();
        let status = command.status().unwrap();
        (status.code(), started.elapsed())
    };
    let (code, took) = drain(&["--after", "600ms"]);
    assert!(
        code == Some(0) && took >= Duration::from_millis(600) && took < Duration::from_secs(4),
        "{code:?} {took:?}"
    );
    let sending = {
        let url = server.url.clone();
        tokio::spawn(async move {
            let event = json!({"agent_id": "a"});
            for _ in 0..20 {
                post(&format!("{url}/v1/events"), &event).await;
                // The pause is the subject: events arrive for two seconds.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
    };
    let (code, took) = tokio::task::block_in_place(|| drain(&["--after", "1s"]));
    assert!(code == Some(0) && took >= Duration::from_millis(2500), "events came for two seconds: {took:?}");
    sending.await.unwrap();
    // A stopped process does not answer, but it is not gone: each request of `drain` has a time-out of two seconds.
    let signal =
        |name: &str| succeeded(Command::new("kill").args([name, &server.child.id().to_string()]).output().unwrap());
    let stalled = std::thread::scope(|scope| {
        signal("-STOP");
        let before = connections(&server.admin_url);
        let draining = scope.spawn(|| drain(&["--after", "600ms", "--within", "20s"]));
        // The second request follows the time-out of the first one.
        let second = eventually("a second request", async || connections(&server.admin_url) >= before + 2);
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(second));
        let resumed = Instant::now();
        signal("-CONT");
        let (code, took) = draining.join().unwrap();
        (code, took, resumed.elapsed())
    });
    assert!(stalled.0 == Some(0) && stalled.1 >= Duration::from_millis(2800), "{stalled:?}");
    assert!(stalled.2 >= Duration::from_millis(600), "the time without an answer does not count as quiet: {stalled:?}");
    let (code, took) = drain(&["--after", "1m", "--within", "300ms"]);
    assert!(code == Some(0) && took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    drop(server);
    let free = cairn().args(["drain", "--after", "1m"]).env("CAIRN_ADMIN__LISTEN", "127.0.0.1:1").output().unwrap();
    assert_eq!(free.status.code(), Some(3), "no server to wait for");
    let health = cairn().arg("health").env("CAIRN_ADMIN__LISTEN", "127.0.0.1:1").output().unwrap();
    assert_eq!(health.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&health.stderr).contains("http://127.0.0.1:1/healthz"), "{health:?}");
}

#[test]
fn files_that_root_writes_in_a_ledger_belong_to_its_owner() {
    if !is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    // The temporary folder is accessible only for root by default.
    set(folder.path(), 0o755, 0, 0);
    std::fs::create_dir(&data).unwrap();
    terminate(Process::start(&data, &[]));
    let files = || std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path());
    files().for_each(|file| set(&file, 0o600, USER, USER));
    set(&data, 0o700, USER, USER);
    for subcommand in [["key", "rotate"], ["repair", "--apply"], ["key", "new-log"]] {
        succeeded(cairn().args(subcommand).arg("--data-dir").arg(&data).output().unwrap());
        for file in files() {
            let metadata = file.metadata().unwrap();
            let (owner, mode) = (metadata.uid(), metadata.permissions().mode() & 0o777);
            assert!(owner == USER && mode & 0o077 == 0, "{subcommand:?}: {} {owner} {mode:o}", file.display());
        }
    }
}

#[test]
fn the_image_is_small_and_contains_one_program() {
    if !may_mount() {
        return;
    }
    let node = Node::new();
    let (mut bytes, mut folders, mut programs) = (0, vec![node.path("image")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => bytes += metadata.len(),
            }
            let is_library = entry.file_name().to_string_lossy().contains(".so");
            if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 && !is_library {
                programs.push(entry.file_name());
            }
        }
    }
    println!("the image: {:.1} MB", bytes as f64 / 1e6);
    assert!(bytes < IMAGE_BYTES, "{bytes} bytes");
    assert_eq!(programs, ["cairn"], "no shell and no other program");
}

#[test]
fn completions_and_man_pages_contain_every_command() {
    let commands = [
        "serve",
        "config",
        "verify",
        "export",
        "verify-export",
        "relay",
        "dead-letter",
        "key",
        "health",
        "drain",
        "reload",
    ];
    for shell in ["bash", "zsh", "fish"] {
        let script = succeeded(cairn().args(["completions", shell]).output().unwrap());
        commands.iter().for_each(|command| assert!(script.contains(command), "{shell}: {command}"));
    }
    let bash = cairn().args(["completions", "bash"]).output().unwrap();
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("cairn"), bash.stdout).unwrap();
    succeeded(Command::new("bash").arg("-n").arg(folder.path().join("cairn")).output().unwrap());
    let page = succeeded(cairn().arg("man").output().unwrap());
    commands.iter().for_each(|command| assert!(page.contains(&command.replace('-', "\\-")), "{command}"));
    succeeded(cairn().args(["man", "--folder"]).arg(folder.path()).output().unwrap());
    for command in commands {
        let page = std::fs::read_to_string(folder.path().join(format!("cairn-{command}.1"))).unwrap();
        for section in [".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH FILES", ".SH \"SEE ALSO\""] {
            assert!(page.contains(section), "{command}: {section}");
        }
        assert_eq!(
            page.contains(".SH EXAMPLES"),
            !["config", "relay", "dead-letter", "key"].contains(&command),
            "{command}"
        );
    }
    // `cairn verify` and the program `cairn-verify` have one page.
    let page = std::fs::read_to_string(folder.path().join("cairn-verify.1")).unwrap();
    assert!(page.contains("cairn\\-verify package FILE"), "{page}");
    assert_eq!(cairn().args(["man", "--folder", "/not/there"]).output().unwrap().status.code(), Some(3));
}
