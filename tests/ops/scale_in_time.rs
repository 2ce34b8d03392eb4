//! Full load for `TEST_SOAK_SECONDS`, 20 by default (`make soak`: ten minutes): memory, open files and threads do not
//! grow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Process, run_text};

/// The resources that a process uses at one moment.
#[derive(Debug, Clone, Copy)]
struct Usage {
    memory_bytes: u64,
    /// Open table files, whose number the database limits.
    tables: u64,
    /// All other open files and sockets.
    files: u64,
    threads: u64,
}

/// The number of table files that the database keeps open, and some more for compactions.
const TABLES: u64 = 512 + 32;

impl Usage {
    fn of(server: &Process) -> Usage {
        let list = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", server.child.id())).unwrap().flatten();
        let is_table = |path: &std::path::PathBuf| path.to_string_lossy().contains(".sst");
        let open = list("fd").filter_map(|entry| entry.path().read_link().ok());
        let (tables, files): (Vec<_>, Vec<_>) = open.partition(is_table);
        let (tables, files) = (tables.len() as u64, files.len() as u64);
        Usage { memory_bytes: server.memory_bytes(), tables, files, threads: list("task").count() as u64 }
    }
}

/// Sends requests of `batch` events until `stop` is set, and counts the acknowledged events.
async fn send(url: String, sender: usize, batch: usize, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) {
    let client = reqwest::Client::new();
    let path = if batch == 1 { "/v1/events" } else { "/v1/batch" };
    for round in 0_usize.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let event = |n| {
            json!({"agent_id": format!("a{}", (sender * 7 + round + n) % 500), "session_id": format!("s{round}"),
                               "action_type": "TOOL_CALL", "action_input": {"n": n, "text": "what an agent says"}})
        };
        let body = if batch == 1 { event(0) } else { (0..batch).map(event).collect() };
        let request = client.post(format!("{url}{path}")).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        if answer.status() == 201 {
            acknowledged.fetch_add(batch as u64, Ordering::Relaxed);
        } else {
            assert_eq!(answer.status(), 503);
            // The pause is the subject: a client that waits before it sends again.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        answer.bytes().await.unwrap();
    }
}

/// Sends one request of each kind, over a new connection each, until `stop` is set.
async fn read(url: String, admin_url: String, stop: Arc<AtomicBool>) {
    let paths =
        ["/v1/events?agent_id=a7&limit=50", "/v1/events?label.x=1", "/v1/agents", "/v1/stats", "/log/checkpoint"];
    while !stop.load(Ordering::Relaxed) {
        let urls = paths.iter().map(|path| format!("{url}{path}")).chain([format!("{admin_url}/metrics")]);
        for url in urls {
            let answer = reqwest::get(&url).await.unwrap();
            assert!(answer.status() == 200 || answer.status() == 503, "{url}: {}", answer.status());
            answer.bytes().await.unwrap();
        }
        // The pause is the subject: a client that polls.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn full_load_keeps_memory_files_and_threads_constant() {
    let seconds: u64 = std::env::var("TEST_SOAK_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    let data = TempDir::new().unwrap();
    let environment = [("CAIRN_STORAGE__MAX_BYTES", "100GiB"), ("CAIRN_LOG__LEVEL", "warn,cairn::cli=info")];
    let server = Process::start(data.path(), &environment);
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let senders = (0..20).map(|sender| {
        let batch = if sender < 4 { 100 } else { 1 };
        tokio::spawn(send(server.url.clone(), sender, batch, Arc::clone(&stop), Arc::clone(&acknowledged)))
    });
    let mut tasks: Vec<_> = senders.collect();
    tasks.push(tokio::spawn(read(server.url.clone(), server.admin_url.clone(), Arc::clone(&stop))));
    let started = Instant::now();
    let mut samples = Vec::new();
    while started.elapsed() < Duration::from_secs(seconds) {
        // The pause is the subject: the use of resources is sampled every 500 ms.
        tokio::time::sleep(Duration::from_millis(500)).await;
        samples.push(Usage::of(&server));
        assert!(tasks.iter().all(|task| !task.is_finished()), "a sender has ended: {}", server.log());
        if samples.len() % 60 == 0 {
            let events = acknowledged.load(Ordering::Relaxed);
            println!("{:?}: {events} events, {:?}", started.elapsed(), samples.last().unwrap());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    // Caches and buffers fill within two minutes, the first third of a long run. After that nothing grows.
    let filling = if seconds < 300 { 64 << 20 } else { 0 };
    let third = samples.len() / 3;
    let highest = |part: &[Usage], of: fn(&Usage) -> u64| part.iter().map(of).max().unwrap();
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    for (what, of, slack) in [
        ("memory", (|it| it.memory_bytes) as fn(&Usage) -> u64, (24 << 20) + filling),
        ("files", |it| it.files, 16),
        ("threads", |it| it.threads, 4),
    ] {
        let (before, after) = (highest(middle, of), highest(last, of));
        println!("{what}: at most {before} in the second third, {after} in the last");
        assert!(after <= before + slack, "{what} grows");
    }
    assert!(highest(&samples, |it| it.memory_bytes) < 224 << 20, "more memory than the limit");
    let tables = highest(&samples, |it| it.tables);
    println!("tables: at most {tables}");
    assert!(tables <= TABLES, "{tables} tables are open");
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let stats = reqwest::get(format!("{}/v1/stats", server.url)).await.unwrap().text().await.unwrap();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!(stats["total_events"], acknowledged);
    drop(server);
    let (code, stdout, err) = run_text(&["verify", "--all", "--data-dir", data.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{stdout}{err}");
    println!("{seconds} s, {acknowledged} events, 0 lost");
}
