//! SIGHUP: what can change while the server runs does, and the rest is named.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::support::harness::{Answer, PATIENCE, Process, cairn, eventually};
use crate::support::upstream::{Fate, Upstream};

/// A server with a configuration in a file.
struct Server {
    process: Process,
    file: std::path::PathBuf,
    client: reqwest::Client,
}

impl Server {
    fn start(folder: &Path, text: &str) -> Server {
        let file = folder.join("cairn.yaml");
        std::fs::write(&file, text).unwrap();
        let mut command = cairn();
        command.arg("serve").arg("--config").arg(&file);
        let process = Process::start_with(command, &folder.join("data"), &[]);
        Server { process, file, client: reqwest::Client::new() }
    }

    /// Writes another configuration, sends SIGHUP, and waits until the log has said something with `word` in it that it
    /// had not said before.
    async fn reload(&self, text: &str, word: &str) -> String {
        let before = self.process.said().len();
        std::fs::write(&self.file, text).unwrap();
        let pid = self.process.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        let started = Instant::now();
        loop {
            let said = self.process.said().split_off(before);
            if said.contains(word) {
                return said;
            }
            assert!(started.elapsed() < PATIENCE, "it never said {word:?}: {said}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn post(&self, key: &str, event: &serde_json::Value) -> Answer {
        let request = self.client.post(format!("{}/v1/events", self.process.url)).bearer_auth(key);
        let request = request.header("content-type", "application/json").body(event.to_string());
        Answer::of(request.send().await.unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_change_does_at_sighup_and_the_rest_is_named() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let org = "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11";
    let relay = |upstream: &Upstream| format!("relay:\n  agnost: {{org_id: {org}, endpoint: '{}'}}\n", upstream.url());
    let server = Server::start(folder.path(), &format!("auth: {{api_keys: [old]}}\n{}", relay(&first)));
    let event = json!({"agent_id": "a", "action_input": "x".repeat(2000)});
    assert_eq!(server.post("old", &event).await.status, 201);
    eventually("the first upstream has it", async || first.event_count() == 1).await;

    // Keys, limits, the level of the log, and where events go.
    let changed = format!(
        "auth: {{api_keys: [new]}}\nlimits: {{event_bytes: 1KiB, body_bytes: 1KiB}}\nlog: {{level: debug}}\n{}",
        relay(&second)
    );
    let said = server.reload(&changed, "the configuration was read again").await;
    for key in ["auth.api_keys", "limits.body_bytes", "limits.event_bytes", "log.level", "relay.agnost.endpoint"] {
        assert!(said.contains(key), "{key} in {said}");
    }
    assert!(!said.contains("need a restart") && !said.contains(org), "{said}");
    assert_eq!(server.post("old", &event).await.status, 401);
    assert_eq!(server.post("new", &event).await.status, 413);
    assert_eq!(server.post("new", &json!({"agent_id": "a"})).await.status, 201);
    eventually("the second upstream has it", async || second.event_count() == 1).await;
    assert_eq!(first.event_count(), 1, "nothing goes where it went, and nothing goes twice");

    // What needs a restart is named, and nothing else waits for it.
    let text = format!("shards: 2\nqueue: {{events: 5}}\nauth: {{api_keys: [newer]}}\n{}", relay(&second));
    // Each time, until there is one.
    for _ in 0..2 {
        let said = server.reload(&text, "need a restart").await;
        assert!(said.contains(r#""keys":"queue.events, shards""#), "{said}");
    }
    assert_eq!(server.post("newer", &event).await.status, 201);

    // A file that is wrong changes nothing.
    for (wrong, why) in [
        ("limits: {body_bytes: 0}\n", "limits.event_bytes"),
        ("nonsense: 1\n", "nonsense: unknown key"),
        ("auth: {api_keys: [a b c]}\n", "auth.api_keys[0]"),
        ("relay: {agnost: {org_id: x}}\n", "relay.agnost.org_id"),
        ("tls: {cert_file: /nowhere}\n", "tls.key_file"),
        (": :\n- \n", "cairn.yaml"),
        // A file that is none of ours may be a secret.
        ("hunter2\n", "expected settings"),
    ] {
        let said = server.reload(wrong, "nothing changes").await;
        assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
        assert_eq!(server.post("newer", &event).await.status, 201);
    }
    eventually("all of it", async || second.event_count() == 9).await;
    second.assert_no_violations();

    // Taken out, and put back where it was: it goes on where it stopped.
    server.reload("auth: {api_keys: [newer]}\n", "the configuration was read again").await;
    assert_eq!(server.post("newer", &event).await.status, 201);
    second.decide(|_, _| Fate::Take);
    server
        .reload(&format!("auth: {{api_keys: [newer]}}\n{}", relay(&second)), "the configuration was read again")
        .await;
    eventually("the rest", async || second.event_count() == 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_open_to_others_does_not_lose_its_keys_before_it_is_left() {
    let data = TempDir::new().unwrap();
    let mut config = crate::support::harness::config(data.path());
    config.listen = "0.0.0.0:0".parse().unwrap();
    config.auth.api_keys = vec!["k".to_owned()];
    let server = cairn::serve::Server::start(&config, |store| store, cairn::runtime::system_clock()).await.unwrap();
    let live = std::sync::Arc::clone(server.live());
    for change in [
        |config: &mut cairn::config::Config| config.listen = "127.0.0.1:0".parse().unwrap(),
        // TLS needs a restart, too.
        |config: &mut cairn::config::Config| config.tls.client_ca_file = Some("ca.crt".into()),
    ] {
        let mut new = config.clone();
        new.auth.api_keys.clear();
        change(&mut new);
        let error = live.change(&new).unwrap_err();
        assert!(error.contains("is in use until the next start"), "{error}");
    }
    let mut new = config.clone();
    (new.auth.api_keys, new.auth.allow_anonymous) = (Vec::new(), true);
    assert_eq!(live.change(&new).unwrap().in_force, ["auth.allow_anonymous", "auth.api_keys"]);
    drop(live);
    server.run(std::future::ready(())).await.unwrap();
}
