//! The README's own code blocks, run as they are written.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::harness::{Process, cairn, repository};
use crate::support::upstream::{ORG, Upstream};

/// Where the README says that the server listens.
const WRITTEN: &str = "localhost:7600";

/// The code blocks of the README in one language, each with the block behind it if that is JSON.
fn blocks(readme: &str, language: &str) -> Vec<(String, Option<String>)> {
    let parts: Vec<&str> = readme.split("```").collect();
    // Every second part is a block; its first line is the language.
    let block = |at: usize| parts.get(at).and_then(|part| part.split_once('\n'));
    (1..parts.len())
        .step_by(2)
        .filter_map(|at| {
            let (found, text) = block(at)?;
            let answer = block(at + 2).filter(|(language, _)| *language == "json").map(|(_, text)| text.to_owned());
            (found == language).then(|| (text.to_owned(), answer))
        })
        .collect()
}

/// Values that differ from run to run.
fn varies(key: &str) -> bool {
    matches!(
        key,
        "id" | "hash"
            | "prev_hash"
            | "received_at"
            | "timestamp"
            | "head_hash"
            | "first_activity"
            | "last_activity"
            | "endpoint"
            | "sent"
            | "backlog"
            | "in_flight"
            | "oldest_unsent"
            | "last_sent"
            | "next_try"
    )
}

/// The same members, and the same values but for those that differ from run to run.
fn is_like(found: &Value, written: &Value) -> bool {
    match (found, written) {
        (Value::Object(found), Value::Object(written)) => {
            found.len() == written.len()
                && written
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|found| varies(key) || is_like(found, value)))
        }
        (Value::Array(found), Value::Array(written)) => {
            found.len() == written.len() && found.iter().zip(written).all(|(found, written)| is_like(found, written))
        }
        (found, written) => found == written,
    }
}

#[test]
fn every_call_of_the_readme_answers_what_the_readme_says() {
    let readme = std::fs::read_to_string(repository("README.md")).unwrap();
    let data = TempDir::new().unwrap();
    // The README's relay goes to an upstream of ours.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(Upstream::start());
    let endpoint = upstream.url();
    let relay = [("CAIRN_RELAY__AGNOST__ORG_ID", ORG), ("CAIRN_RELAY__AGNOST__ENDPOINT", &endpoint)];
    let server = Process::start(data.path(), &relay);
    let bin = cairn().get_program().to_owned();
    let folder = std::path::Path::new(&bin).parent().unwrap();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    // What the blocks write is theirs; what they read of the repository is there, too.
    let work = TempDir::new().unwrap();
    std::os::unix::fs::symlink(repository("tests"), work.path().join("tests")).unwrap();
    let mut answers = 0;
    for (script, written) in blocks(&readme, "sh") {
        let script = script.replace(WRITTEN, server.url.trim_start_matches("http://"));
        let mut shell = Command::new("sh");
        shell
            .current_dir(work.path())
            .args(["-euc", &script])
            .env("PATH", &path)
            .env("CAIRN_STORAGE__DATA_DIR", data.path());
        shell.env("CAIRN_LISTEN", server.url.trim_start_matches("http://"));
        let output = shell.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{script}\n{said}\n{}", String::from_utf8_lossy(&output.stderr));
        if let Some(written) = written {
            let found: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {script}\n{said}"));
            let written: Value = serde_json::from_str(&written).unwrap();
            assert!(is_like(&found, &written), "{script}\nanswered\n{found:#}\nnot\n{written:#}");
            answers += 1;
        } else {
            assert!(!said.contains("FAILED"), "{script}\n{said}");
        }
    }
    assert!(answers >= 6, "only {answers} calls with answers");
}
