//! The configuration: every key is documented, and every mistake is reported with its key and source.

use cairn::config::Config;
use cairn::relay::DestinationConfig;
use figment::Figment;
use figment::providers::{Format, Serialized, Yaml};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::harness::{cairn, repository, run_text};

/// The names of all settings, with dots between the levels.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, value) in value.as_object().unwrap() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        // An empty section counts as a key.
        if value.as_object().is_some_and(|it| !it.is_empty()) { keys(value, &path, found) } else { found.push(path) }
    }
}

#[test]
fn the_example_file_documents_every_key_with_its_default() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let text = std::fs::read_to_string(repository("config/cairn.yaml")).unwrap();
    // Settings whose default is a part of `limits.memory` are commented out.
    let is_setting = |line: &&str| line.trim_start().strip_prefix('#').is_some_and(|rest| !rest.starts_with(' '));
    let text: Vec<String> =
        text.lines().map(|line| if is_setting(&line) { line.replacen('#', "", 1) } else { line.to_owned() }).collect();
    let text = text.join("\n");
    let file: Value = Figment::from(Yaml::string(&text)).extract().unwrap();
    let (mut defined, mut documented) = (Vec::new(), Vec::new());
    keys(&defaults, "", &mut defined);
    keys(&file, "", &mut documented);
    defined.sort();
    documented.sort();
    assert_eq!(defined, documented);
    let read: Config = Figment::from(Yaml::string(&text)).extract().unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), defaults, "a default in the file is not the program's");
    let round: Config = Figment::from(Serialized::defaults(Config::default())).extract().unwrap();
    assert_eq!(serde_json::to_value(round).unwrap(), defaults);
    let reference = std::fs::read_to_string(repository("docs/configuration.md")).unwrap();
    for key in defined {
        assert!(reference.contains(&format!("`{key}`")), "docs/configuration.md does not describe {key}");
    }
}

#[test]
fn the_relay_examples_document_every_key_of_a_destination_with_its_default() {
    let defaults = serde_json::to_value(DestinationConfig::default()).unwrap();
    // Those without a default, or with one that depends on the type.
    let differ = ["name", "type", "endpoint", "org_id", "path"];
    let (mut documented, mut defined) = (Vec::new(), Vec::new());
    for name in ["config/relay-agnost.yaml", "config/relay-others.yaml"] {
        let path = repository(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let file: Value = Figment::from(Yaml::string(&text)).extract().unwrap();
        for destination in file["relay"]["destinations"].as_array().unwrap() {
            keys(destination, "", &mut documented);
            for (key, value) in destination.as_object().unwrap() {
                assert!(differ.contains(&key.as_str()) || *value == defaults[key], "{name}: {key}");
            }
        }
        assert_eq!(run_text(&["config", "validate", "--config", path.to_str().unwrap()]).0, 0, "{name}");
    }
    keys(&defaults, "", &mut defined);
    let reference = std::fs::read_to_string(repository("docs/configuration.md")).unwrap();
    for key in defined {
        assert!(documented.contains(&key), "no example has {key}");
        assert!(reference.contains(&format!("`{key}`")), "docs/configuration.md does not describe {key}");
    }
}

/// Runs `cairn config validate` with a file and environment variables; returns exit status and output.
fn validate(file: &str, environment: &[(&str, &str)]) -> (i32, String) {
    validate_exactly(if file.is_empty() { "{}" } else { file }, environment)
}

/// The same with this content, even none.
pub fn validate_exactly(file: &str, environment: &[(&str, &str)]) -> (i32, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("my.yaml");
    std::fs::write(&path, file).unwrap();
    let output = cairn().args(["config", "validate", "--config"]).arg(&path).envs(environment.iter().copied()).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().unwrap(), text)
}

#[test]
fn a_mistake_is_reported_with_its_key_value_source_and_a_suggestion() {
    type Case = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);
    let cases: &[Case] = &[
        ("storage:\n  data_dri: x\n", &[], &["storage.data_dri: unknown key; did you mean data_dir?", "my.yaml"]),
        ("lisen: 127.0.0.1:1\n", &[], &["lisen: unknown key; did you mean listen?", "my.yaml"]),
        (
            "queue:\n  max_wait: soon\n",
            &[],
            &["queue.max_wait: expected a duration such as 250ms or 10s, found \"soon\"", "my.yaml"],
        ),
        ("queue:\n  bytes: many\n", &[], &["queue.bytes: expected a size such as 64MiB, found \"many\"", "my.yaml"]),
        ("shards: 0\n", &[], &["shards: expected a number from 1 to 256, found 0", "my.yaml"]),
        ("shards: few\n", &[], &["shards: expected a number from 1 to 256, found \"few\"", "my.yaml"]),
        ("shutdown:\n  grace: 2days\n", &[], &["shutdown.grace: expected at most 1day, found 2days"]),
        ("queue:\n  events: -5\n", &[], &["queue.events: expected a number from 1 to 1000000, found -5"]),
        ("storage: /data\n", &[], &["storage: expected a section with settings, one on each line, found \"/data\""]),
        ("log:\n  format: JSON\n", &[], &["log.format: expected auto, json or text, found \"JSON\""]),
        (
            "listen: 127.0.0.1:1\nadmin:\n  listen: 127.0.0.1:1\n",
            &[],
            &["admin.listen: expected an address other than listen"],
        ),
        (
            "ingest:\n  otlp:\n    select: agents\n",
            &[],
            &["ingest.otlp.select: expected all or agent, found \"agents\""],
        ),
        (
            "ingest:\n  otlp:\n    listen: 0.0.0.0:4318\n",
            &[],
            &["ingest.otlp.listen: expected a loopback address, or auth.api_keys"],
        ),
        (
            "ingest:\n  otlp:\n    listen: 127.0.0.1:7600\n",
            &[],
            &["ingest.otlp.listen: expected an address other than listen and admin.listen"],
        ),
        (
            "ingest:\n  otlp:\n    enabled: false\n    listen: 127.0.0.1:4318\n",
            &[],
            &["ingest.otlp.enabled: expected true, or no ingest.otlp.listen, found false"],
        ),
        ("limits:\n  otlp_records: 0\n", &[], &["limits.otlp_records: expected a number, at least 1, found 0"]),
        ("auth:\n  api_keys_file: /nowhere\n", &[], &["auth.api_keys_file: /nowhere: No such file"]),
        ("", &[("CAIRN_STORAGE_DATA_DIR", "x")], &["did you mean storage.data_dir", "CAIRN_STORAGE__DATA_DIR?"]),
        ("storage.data_dir: x\n", &[], &["did you mean storage.data_dir, one level per line"]),
        ("zzz: 1\n", &[], &["zzz: unknown key; valid keys are listen, socket_mode, tls, http, admin"]),
        (
            "",
            &[("CAIRN_LIMITS__BODY_BYTES", "2KiB")],
            &["limits.event_bytes: expected at most limits.body_bytes", "CAIRN_LIMITS__BODY_BYTES"],
        ),
        ("", &[("CAIRN_SHARDS", "999")], &["shards: expected a number from 1 to 256, found 999", "CAIRN_SHARDS"]),
        (
            "",
            &[("CAIRN_STORAGE__DATA_DRI", "x")],
            &["storage.data_dri: unknown key; did you mean data_dir?", "CAIRN_STORAGE__DATA_DRI"],
        ),
        (
            "",
            &[("CAIRN_LIMITS__EVENT_BYTES", "40MiB")],
            &["limits.event_bytes: expected at most limits.body_bytes", "CAIRN_LIMITS__EVENT_BYTES"],
        ),
        ("socket_mode: 0o660\n", &[], &["socket_mode: expected permissions in octal digits"]),
        ("listen: 0.0.0.0:7600\n", &[], &["listen: expected a loopback address, or auth.api_keys", "my.yaml"]),
        (
            "listen: here\n",
            &[],
            &[
                "listen: expected an address such as 127.0.0.1:7600, localhost:7600 or unix:",
                "found \"here\"",
                "my.yaml",
            ],
        ),
        ("log:\n  level: loud=nonsense=1\n", &[], &["log.level: expected error, warn", "my.yaml"]),
        ("log:\n  level: 'info,'\n", &[], &["log.level: expected error, warn"]),
        ("log:\n  level: info,cairn=\n", &[], &["log.level: expected error, warn"]),
        ("log:\n  level: '[span]=debug'\n", &[], &["log.level: expected error, warn"]),
        ("log:\n  level: info,debgu\n", &[], &["log.level: expected error, warn"]),
        ("log:\n  level: inof\n", &[], &["log.level: expected error, warn", "inof"]),
        ("auth:\n  api_keys: hush\n", &[], &["auth.api_keys: expected a list of strings", "my.yaml"]),
        (
            "",
            &[("CAIRN_AUTH__API_KEYS", "hush")],
            &["auth.api_keys: expected a list of strings", "CAIRN_AUTH__API_KEYS"],
        ),
        ("limits:\n  idle_timeout: 0s\n", &[], &["limits.idle_timeout: expected more than 0s", "my.yaml"]),
        ("shards: [\n", &[], &["my.yaml: not valid YAML: ", " at line 2 column 1"]),
        ("storage:\n  sync: true\n sync: hush\n", &[], &["my.yaml: not valid YAML: ", "line 3 column"]),
        ("listen:\n\t- 127.0.0.1:1\n", &[], &["my.yaml: not valid YAML: ", "line 2 column"]),
        ("hush\n", &[], &["my.yaml: expected settings, one on each line"]),
        ("- listen: hush\n", &[], &["my.yaml: expected settings, one on each line"]),
        ("null\n", &[], &["my.yaml: expected settings, one on each line"]),
        ("tls:\n  cert_file: /c.pem\n", &[], &["tls.key_file: required with tls.cert_file"]),
        ("tls:\n  key_file: /k.pem\n", &[], &["tls.cert_file: required with tls.key_file"]),
        ("tls:\n  client_ca_file: /ca.pem\n", &[], &["tls.cert_file: required with tls.client_ca_file"]),
        (
            "storage:\n  data_dir: ~/cairn\nlisten: unix:~/c.sock\nlog: {key_file: /k/$(POD)/k}\n",
            &[("CAIRN_AUTH__API_KEYS_FILE", "${HOME}/keys")],
            &[
                "storage.data_dir: expected a path without ~, which only a shell replaces by the home directory (in ",
                "listen: expected a path without ~",
                "log.key_file: expected a value, found $(POD), which nothing has replaced (in ",
                "auth.api_keys_file: expected a value, found ${HOME}, which nothing has replaced (in CAIRN_AUTH__API_KEYS_FILE",
            ],
        ),
        (
            "listen: localhost:7601\n",
            &[],
            &["admin.listen: expected an address other than listen, found 127.0.0.1:7601"],
        ),
        ("admin:\n  listen: unix:/a.sock\n", &[], &["admin.listen: expected an address of TCP, found unix:/a.sock"]),
        // Everything that is wrong, of every kind and in every place.
        (
            "lisen: x\nshards: few\nqueue: {max_wait: soon, evnts: 1}\nlimits: {batch_events: 0, idle_timeout: later}\n\
             relay: {destinations: [{nam: a, type: kafka}]}\nshutdown: {grace: 2days}\n",
            &[("CAIRN_STORAGE__SYNC", "maybe"), ("CAIRN_NONSENSE", "1")],
            &[
                "lisen: unknown key; did you mean listen? (in ",
                "shards: expected a number from 1 to 256, found \"few\" (in ",
                "queue.max_wait: expected a duration",
                "queue.evnts: unknown key; did you mean events? (in ",
                "limits.batch_events: expected a number",
                "limits.idle_timeout: expected a duration",
                "relay.destinations[0].nam: unknown key; did you mean name? (in ",
                "relay.destinations[0].type: expected agnost, webhook or file, found \"kafka\"",
                "shutdown.grace: expected at most 1day",
                "storage.sync: expected true or false, found \"maybe\" (in CAIRN_STORAGE__SYNC)",
                "nonsense: unknown key",
            ],
        ),
        (
            "auth:\n  api_keys: [hush]\nshards: 1\nauth: {}\n",
            &[],
            &["auth: expected once, found more than once (in", "my.yaml"],
        ),
        (
            "log: {level: info, level: debug}\nrelay: {destinations: [{}, {name: a, name: b}]}\n",
            &[],
            &["log.level: expected once, found", "relay.destinations[1].name: expected once, found"],
        ),
        (
            "relay:\n  destinations:\n    - type: kafka\n",
            &[],
            &["relay.destinations[0].type: expected agnost, webhook or file, found \"kafka\"", "my.yaml"],
        ),
        (
            "relay:\n  destinations: [{name: a}]\n",
            &[],
            &[
                "relay.destinations[0].org_id: expected a UUID, or org_id_file with the path of a file that contains one",
                "my.yaml",
            ],
        ),
        (
            "",
            &[("CAIRN_RELAY__AGNOST__ORG_ID", "hush")],
            &["relay.agnost.org_id: expected a UUID", "CAIRN_RELAY__AGNOST__ORG_ID"],
        ),
        ("relay:\n  agnost: {org_id: [hush]}\n", &[], &["relay.agnost.org_id: expected a string", "my.yaml"]),
        (
            "",
            &[("CAIRN_RELAY__AGNOST__ORG_ID_FILE", "/nowhere")],
            &["relay.agnost.org_id_file: expected a file with a UUID, found /nowhere: No such file"],
        ),
        (
            "relay:\n  agnost: {org_id: 6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11}\n  destinations: [{org_id: 6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11}]\n",
            &[],
            &["relay.agnost.name: expected a name that no other destination has, found agnost (in default)"],
        ),
        (
            "relay:\n  agnost: {org_id: 6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11, org_id_file: /f, endpoint: 'http://u:hush@h', concurrency: 0, timeout: 0s, ca_file: /nowhere, retry: {initial: 2s, max: 1s}}\n",
            &[],
            &[
                "relay.agnost.org_id: expected either org_id or org_id_file, found both",
                "relay.agnost.endpoint: expected an http or https URL without user",
                "relay.agnost.concurrency: expected a number from 1 to 1024, found 0",
                "relay.agnost.timeout: expected more than 0s",
                "relay.agnost.ca_file: expected a file with certificates (PEM), found /nowhere",
                "relay.agnost.retry.max: expected at least retry.initial, 2s, found 1s",
            ],
        ),
        ("", &[("CAIRN_RELAY__AGNOST", "hush")], &["relay.agnost: expected a section with settings"]),
        ("auth:\n  api_keys: [12345678]\n", &[], &["auth.api_keys[0]: expected a string"]),
        (
            "",
            &[("CAIRN_RELAY__AGNOST__ORG_ID", "")],
            &["relay.agnost.org_id: expected a UUID with hyphens, found nothing"],
        ),
        ("relay:\n  destinations: {org_id: hush}\n", &[], &["relay.destinations: expected a list of destinations"]),
        ("relay:\n  agnost: {endpoint: 'http://h/?key=hush'}\n", &[], &["relay.agnost.endpoint: expected an http"]),
        (
            "relay:\n  agnost: {retry: {intial: 1s}}\n",
            &[],
            &["relay.agnost.retry.intial: unknown key; did you mean initial?"],
        ),
    ];
    let mut missing = Vec::new();
    for (file, environment, expected) in cases {
        let (code, output) = validate(file, environment);
        assert_eq!(code, 2, "{file}{environment:?}: {output}");
        assert!(!output.contains("hush") && !output.contains("12345678"), "a secret: {output}");
        let absent = expected.iter().filter(|part| !output.contains(**part));
        missing.extend(absent.map(|part| format!("{file}{environment:?} printed\n{output}\nnot {part}")));
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    // A part that cannot be read is not reported a second time as missing.
    let (_, output) = validate("listen: 0.0.0.0:7600\nauth:\n  api_keys: hush\n", &[]);
    assert_eq!(output.lines().count(), 1, "{output}");
    let (code, output) = validate("shards: 0\nlimits:\n  batch_events: 0\n", &[]);
    assert_eq!((code, output.lines().count()), (2, 2), "both mistakes are reported: {output}");
}

#[test]
fn variables_that_kubernetes_injects_for_a_service_named_cairn_are_ignored() {
    for service in ["CAIRN", "CAIRN_CENTRAL", "CAIRN_0_2", "CAIRN__BLUE"] {
        let injected = [
            ("_SERVICE_HOST", "10.0.0.1"),
            ("_SERVICE_PORT", "7600"),
            ("_SERVICE_PORT_HTTP", "7600"),
            ("_PORT", "tcp://10.0.0.1:7600"),
            ("_PORT_7600_TCP", "tcp://10.0.0.1:7600"),
            ("_PORT_7600_TCP_PROTO", "tcp"),
            ("_PORT_7600_TCP_PORT", "7600"),
            ("_PORT_7600_TCP_ADDR", "10.0.0.1"),
        ];
        for (name, value) in injected {
            let (code, output) = validate("", &[(&format!("{service}{name}"), value)]);
            assert_eq!(code, 0, "{output}");
        }
    }
    for mistaken in ["CAIRN_LISTEN_PORT", "CAIRN_LISTEN_PORT_NUMBER", "CAIRN_STORAGE__PORT", "CAIRN_SERVICES"] {
        assert_eq!(validate("", &[(mistaken, "1")]).0, 2, "{mistaken}");
    }
    assert_eq!(validate("listen: 0.0.0.0:7600\nauth:\n  api_keys: [k]\n", &[]).0, 0);
    assert_eq!(validate("listen: 0.0.0.0:7600\nauth:\n  allow_anonymous: true\n", &[]).0, 0);
}

#[test]
fn config_print_shows_each_value_with_its_source_and_without_secrets() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("my.yaml");
    std::fs::write(
        &path,
        "auth:\n  api_keys: [very-secret]\nqueue:\n  max_wait: 250ms\n\
                relay:\n  destinations: [{org_id: 6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11}]\n",
    )
    .unwrap();
    let mut command = cairn();
    command.args(["config", "print", "--data-dir", "/somewhere", "--config"]).arg(&path).env("CAIRN_SHARDS", "3");
    let output = command.output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    assert!(!output.contains("very-secret") && !output.contains("6f2f6b9a"), "{output}");
    let line =
        |start: &str| output.lines().find(|line| line.trim().starts_with(start)).unwrap_or_else(|| panic!("{output}"));
    assert!(line("shards: 3").ends_with("# CAIRN_SHARDS"), "{output}");
    assert!(line("max_wait: 250ms").ends_with("my.yaml"), "{output}");
    assert!(line("data_dir: /somewhere").ends_with("# a flag"), "{output}");
    assert!(line("events: 10000").ends_with("# default"), "{output}");
    // The printed configuration is valid again.
    let again = folder.path().join("again.yaml");
    std::fs::write(&again, output.replace("\"********\"", "6f2f6b9a-3d0c-4b7e-9a57-0d6f1f0c2b11")).unwrap();
    assert_eq!(run_text(&["config", "validate", "--config", again.to_str().unwrap()]).0, 0);
}

#[test]
fn exit_statuses_distinguish_usage_errors_from_failures_and_help_has_examples() {
    assert_eq!(run_text(&["serve", "--config", "/nowhere.yaml"]).0, 2);
    assert_eq!(run_text(&["verify"]).0, 2);
    assert_eq!(run_text(&["nonsense"]).0, 2);
    let folder = TempDir::new().unwrap();
    let empty = folder.path().to_str().unwrap();
    for command in [&["verify", "--all"][..], &["log"]] {
        let (code, _, output) = run_text(&[command, &["--data-dir", empty]].concat());
        assert_eq!(code, 3);
        assert!(output.contains("there is no ledger in"), "{output}");
    }
    assert_eq!(run_text(&["verify", "--all", "--server", "http://127.0.0.1:1"]).0, 3);
    for command in ["serve", "log", "verify"] {
        let (code, output, _) = run_text(&[command, "--help"]);
        assert!(code == 0 && output.contains("Example"), "{output}");
    }
    for action in ["validate", "print"] {
        assert!(run_text(&["config", action, "--help"]).1.contains("Example"));
    }
    let (code, output, _) = run_text(&["--version"]);
    assert_eq!((code, output), (0, format!("cairn {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn texts_in_the_environment_that_look_like_numbers_stay_texts() {
    for text in ["007", "1.10", "7", "true", "1e3"] {
        let output = cairn()
            .args(["config", "print"])
            .env("CAIRN_LOG__ORIGIN", text)
            .env("CAIRN_INGEST__OTLP__AGENT_ID", text)
            .env("CAIRN_STORAGE__DATA_DIR", text)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        let read: Value = Figment::from(Yaml::string(&printed)).extract().unwrap();
        for pointer in ["/log/origin", "/ingest/otlp/agent_id", "/storage/data_dir"] {
            assert_eq!(read.pointer(pointer), Some(&Value::from(text)), "{text}: {printed}");
        }
    }
}
