//! SIGHUP: settings that can change while the server runs take effect, and the others are named in the log.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use crate::support::harness::{Answer, Process, cairn, eventually};
use crate::support::upstream::{Reply, Upstream};

/// A server with a configuration file.
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

    /// Writes the configuration, sends SIGHUP, and waits until the log has new lines that contain `expected`. Returns
    /// the new lines.
    async fn reload(&self, text: &str, expected: &str) -> String {
        let before = self.process.log().len();
        std::fs::write(&self.file, text).unwrap();
        let pid = self.process.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        let new_lines = || self.process.log().split_off(before);
        eventually(&format!("{expected:?} in the log"), async || new_lines().contains(expected)).await;
        new_lines()
    }

    async fn post(&self, key: &str, event: &serde_json::Value) -> Answer {
        let request = self.client.post(format!("{}/v1/events", self.process.url)).bearer_auth(key);
        let request = request.header("content-type", "application/json").body(event.to_string());
        Answer::of(request.send().await.unwrap()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_sighup_changed_settings_take_effect_and_those_that_need_a_restart_are_named() {
    let folder = TempDir::new().unwrap();
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    let org = "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11";
    let relay = |upstream: &Upstream| format!("relay:\n  agnost: {{org_id: {org}, endpoint: '{}'}}\n", upstream.url());
    let server = Server::start(folder.path(), &format!("auth: {{api_keys: [old]}}\n{}", relay(&first)));
    let event = json!({"agent_id": "a", "action_input": "x".repeat(2000)});
    assert_eq!(server.post("old", &event).await.status, 201);
    eventually("the event at the first upstream", async || first.event_count() == 1).await;

    // Keys, limits, the log level, and the endpoint of the relay.
    let changed = format!(
        "auth: {{api_keys: [new]}}\nlimits: {{event_bytes: 1KiB, body_bytes: 1KiB}}\nlog: {{level: debug}}\n{}",
        relay(&second)
    );
    let log = server.reload(&changed, "configuration reloaded").await;
    for key in ["auth.api_keys", "limits.body_bytes", "limits.event_bytes", "log.level", "relay.agnost.endpoint"] {
        assert!(log.contains(key), "{key} in {log}");
    }
    assert!(!log.contains("need a restart") && !log.contains(org), "{log}");
    assert_eq!(server.post("old", &event).await.status, 401);
    assert_eq!(server.post("new", &event).await.status, 413);
    assert_eq!(server.post("new", &json!({"agent_id": "a"})).await.status, 201);
    eventually("the event at the second upstream", async || second.event_count() == 1).await;
    assert_eq!(first.event_count(), 1, "the first upstream receives no more events, and no event is sent twice");

    // Settings that need a restart are named, with those that derive from them; the others take effect.
    let text = format!("shards: 2\nqueue: {{events: 5}}\nauth: {{api_keys: [newer]}}\n{}", relay(&second));
    // At each reload until the restart.
    for _ in 0..2 {
        let log = server.reload(&text, "need a restart").await;
        assert!(log.contains(r#""keys":"queue.bytes, queue.events, shards, storage.memory_bytes""#), "{log}");
    }
    assert_eq!(server.post("newer", &event).await.status, 201);

    // An invalid file changes nothing.
    for (invalid, reason) in [
        ("limits: {body_bytes: 0}\n", "limits.event_bytes"),
        ("nonsense: 1\n", "nonsense: unknown key"),
        ("auth: {api_keys: [a b c]}\n", "auth.api_keys[0]"),
        ("relay: {agnost: {org_id: x}}\n", "relay.agnost.org_id"),
        ("tls: {cert_file: /nowhere}\n", "tls.key_file"),
        (": :\n- \n", "cairn.yaml"),
        // A file that is not a configuration may be a secret, so its text is not logged.
        ("hunter2\n", "expected settings"),
    ] {
        let log = server.reload(invalid, "nothing was changed").await;
        assert!(log.contains(reason) && !log.contains("hunter2"), "{log}");
        assert_eq!(server.post("newer", &event).await.status, 201);
    }
    eventually("all events", async || second.event_count() == 9).await;
    second.assert_no_violations();

    // A destination that is removed and configured again continues where it stopped.
    server.reload("auth: {api_keys: [newer]}\n", "configuration reloaded").await;
    assert_eq!(server.post("newer", &event).await.status, 201);
    second.reply_with(|_, _| Reply::Accept);
    server.reload(&format!("auth: {{api_keys: [newer]}}\n{}", relay(&second)), "configuration reloaded").await;
    eventually("the last event", async || second.event_count() == 10).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_cannot_be_removed_while_a_public_address_is_in_use() {
    let data = TempDir::new().unwrap();
    let mut config = crate::support::harness::config(data.path());
    config.listen = "0.0.0.0:0".parse().unwrap();
    config.auth.api_keys = vec!["k".to_owned()];
    let server = cairn::serve::Server::start(&config, |store| store, cairn::runtime::system_clock()).await.unwrap();
    let live = std::sync::Arc::clone(server.live());
    for change in [
        |config: &mut cairn::config::Config| config.listen = "127.0.0.1:0".parse().unwrap(),
        // TLS takes effect at a restart only, too.
        |config: &mut cairn::config::Config| config.tls.client_ca_file = Some("ca.crt".into()),
    ] {
        let mut new = config.clone();
        new.auth.api_keys.clear();
        change(&mut new);
        let error = live.apply(&new).unwrap_err();
        assert!(error.contains("stays bound until a restart"), "{error}");
    }
    let mut new = config.clone();
    (new.auth.api_keys, new.auth.allow_anonymous) = (Vec::new(), true);
    assert_eq!(live.apply(&new).unwrap().applied, ["auth.allow_anonymous", "auth.api_keys"]);
    drop(live);
    server.run(std::future::ready(())).await.unwrap();
}
