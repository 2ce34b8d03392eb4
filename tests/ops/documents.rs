//! The documents: their code blocks are executed as written, their links are valid, and their length is limited.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::harness::{Process, cairn, cairn_verify, repository};
use crate::support::upstream::{ORG, Upstream};

/// The address of the server in the documents.
const DOCUMENTED_ADDRESS: &str = "localhost:7600";

/// A fenced code block.
struct Block {
    /// Document and line, such as `docs/events.md:12`.
    location: String,
    language: String,
    /// The reason why the block is not executed.
    no_run: Option<String>,
    text: String,
}

/// The paths of all Markdown files, relative to the repository.
fn documents() -> Vec<PathBuf> {
    let mut command = Command::new("git");
    command.args(["ls-files", "-co", "--exclude-standard", "*.md"]).current_dir(repository(""));
    let list = String::from_utf8(run_successfully(&mut command, "git ls-files").stdout).unwrap();
    let documents: Vec<PathBuf> = list.lines().map(PathBuf::from).filter(|path| repository(path).exists()).collect();
    assert!(documents.len() > 20, "only {documents:?}");
    documents
}

fn read(document: &Path) -> String {
    std::fs::read_to_string(repository(document)).unwrap()
}

/// Runs a command and asserts that it succeeds.
fn run_successfully(command: &mut Command, what: &str) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}\n{out}\n{err}");
    output
}

/// The code blocks of a document. The info string is a language, or a language and `no-run: REASON`.
fn blocks(document: &Path) -> Vec<Block> {
    let text = read(document);
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            if !open {
                let (language, no_run) = match info.split_once(" no-run:") {
                    Some((language, reason)) => (language, Some(reason.trim().to_owned())),
                    None => (info, None),
                };
                let location = format!("{}:{number}", document.display());
                blocks.push(Block { location, language: language.to_owned(), no_run, text: String::new() });
            }
            open = !open;
        } else if open {
            let block = blocks.last_mut().unwrap();
            block.text.push_str(line);
            block.text.push('\n');
        }
    }
    assert!(!open, "{}: the last code block has no end", document.display());
    blocks
}

/// Whether the value of a member differs between runs.
fn varies(key: &str) -> bool {
    const KEYS: [&str; 19] = [
        "backlog",
        "checkpoint",
        "endpoint",
        "first_activity",
        "hash",
        "head_hash",
        "id",
        "in_flight",
        "last_activity",
        "last_sent",
        "leaf_hash",
        "next_try",
        "oldest_unsent",
        "prev_hash",
        "received_at",
        "salt",
        "root",
        "sent",
        "timestamp",
    ];
    KEYS.contains(&key)
}

/// Whether both have the same members, and the same values except for those that differ between runs.
fn is_like(found: &Value, documented: &Value) -> bool {
    match (found, documented) {
        (Value::Object(found), Value::Object(documented)) => {
            found.len() == documented.len()
                && documented
                    .iter()
                    .all(|(key, value)| found.get(key).is_some_and(|found| varies(key) || is_like(found, value)))
        }
        (Value::Array(found), Value::Array(documented)) => {
            found.len() == documented.len()
                && found.iter().zip(documented).all(|(found, documented)| is_like(found, documented))
        }
        (found, documented) => found == documented,
    }
}

/// A server for one document, and the directory in which the blocks of the document run.
struct Sandbox {
    server: Process,
    data: TempDir,
    work: TempDir,
    path: String,
}

impl Sandbox {
    fn start(document: &Path, upstream: &str) -> Sandbox {
        let data = TempDir::new().unwrap();
        // The events of the recorder come at moments of their own, so only the document about it has them in its answers.
        let recorder = if document.ends_with("recorder.md") { "true" } else { "false" };
        let relay = [("CAIRN_RELAY__AGNOST__ORG_ID", ORG), ("CAIRN_RELAY__AGNOST__ENDPOINT", upstream)];
        let server = Process::start(data.path(), &[&relay[..], &[("CAIRN_RECORDER__ENABLED", recorder)]].concat());
        let work = TempDir::new().unwrap();
        std::os::unix::fs::symlink(repository("tests"), work.path().join("tests")).unwrap();
        let folder = |program: Command| Path::new(program.get_program()).parent().unwrap().display().to_string();
        let path = format!("{}:{}:{}", folder(cairn()), folder(cairn_verify()), std::env::var("PATH").unwrap());
        Sandbox { server, data, work, path }
    }

    /// Runs a script and returns its standard output.
    fn run(&self, block: &Block) -> String {
        let address = self.server.url.trim_start_matches("http://");
        let mut shell = Command::new("sh");
        shell.current_dir(self.work.path()).args(["-euc", &block.text.replace(DOCUMENTED_ADDRESS, address)]);
        shell.env("PATH", &self.path).env("CAIRN_STORAGE__DATA_DIR", self.data.path()).env("CAIRN_LISTEN", address);
        let stdout = String::from_utf8(run_successfully(&mut shell, &block.location).stdout).unwrap();
        assert!(!stdout.contains("FAILED"), "{}\n{stdout}", block.location);
        stdout
    }

    /// Validates a configuration file with `cairn config validate`.
    fn validate(&self, block: &Block) {
        let file = self.work.path().join("document.yaml");
        std::fs::write(&file, &block.text).unwrap();
        run_successfully(cairn().args(["config", "validate", "--config"]).arg(&file), &block.location);
    }
}

/// Runs the code blocks of a document in order, and compares their output with the JSON block that follows. Returns the
/// number of compared answers.
fn execute(document: &Path, upstream: &str) -> usize {
    let blocks: Vec<Block> = blocks(document).into_iter().filter(|block| block.no_run.is_none()).collect();
    if !blocks.iter().any(|block| matches!(block.language.as_str(), "sh" | "yaml")) {
        return 0;
    }
    let sandbox = Sandbox::start(document, upstream);
    let mut answers = 0;
    for (at, block) in blocks.iter().enumerate() {
        match block.language.as_str() {
            "sh" => {
                let stdout = sandbox.run(block);
                if let Some(answer) = blocks.get(at + 1).filter(|next| next.language == "json") {
                    let found: Value = serde_json::from_str(&stdout)
                        .unwrap_or_else(|error| panic!("{}: {error}\n{stdout}", block.location));
                    let documented: Value = serde_json::from_str(&answer.text).unwrap();
                    assert!(
                        is_like(&found, &documented),
                        "{}\nanswered\n{found:#}\nnot\n{documented:#}",
                        block.location
                    );
                    answers += 1;
                }
            }
            "yaml" => sandbox.validate(block),
            _ => {}
        }
    }
    answers
}

#[test]
fn the_code_blocks_of_the_documents_print_what_the_documents_show() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(Upstream::start());
    let url = upstream.url();
    let documents = documents();
    let answers: usize = std::thread::scope(|scope| {
        let runs: Vec<_> = documents.iter().map(|document| scope.spawn(|| execute(document, &url))).collect();
        runs.into_iter().map(|run| run.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))).sum()
    });
    assert!(answers >= 18, "only {answers} calls with answers");
}

#[test]
fn every_code_block_is_executed_or_has_a_reason_why_not() {
    for document in documents() {
        let blocks = blocks(&document);
        for (at, block) in blocks.iter().enumerate() {
            let follows_script = at > 0 && blocks[at - 1].language == "sh" && blocks[at - 1].no_run.is_none();
            let is_covered = match (&block.no_run, block.language.as_str()) {
                (Some(reason), _) => !reason.is_empty(),
                (None, "sh" | "yaml" | "text") => true,
                (None, "json") => follows_script,
                (None, _) => false,
            };
            assert!(is_covered, "{}: a block of {:?} that no test executes", block.location, block.language);
        }
    }
}

#[test]
fn no_document_is_longer_than_400_lines_and_the_readme_than_200() {
    for document in documents() {
        let lines = read(&document).lines().count();
        let limit = if document == Path::new("README.md") { 200 } else { 400 };
        assert!(lines <= limit, "{} has {lines} lines", document.display());
    }
}

/// The anchors of a document's headings, as code hosts compute them: in lower case, without punctuation, spaces as
/// hyphens.
fn anchors(document: &Path) -> HashSet<String> {
    let text = read(document);
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    headings
        .map(|heading| heading.to_lowercase().chars().filter(is_kept).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn every_link_between_documents_has_a_target() {
    let mut links = 0;
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').map_or((target, None), |(path, anchor)| (path, Some(anchor)));
            let path = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(repository(&path).exists(), "{}: {target} does not exist", document.display());
            if let Some(anchor) = anchor.filter(|_| path.extension().is_some_and(|extension| extension == "md")) {
                assert!(anchors(&path).contains(anchor), "{}: {target} has no such heading", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 50, "only {links} links");
}

/// Between these lines of `docs/otlp.md` are the tables that the code writes.
const TABLES: [&str; 2] = ["TEST_WRITE_TABLES=1 -->\n", "<!-- end of tables -->"];

#[test]
fn the_tables_of_the_otlp_mapping_are_those_of_the_code() {
    let document = repository("docs/otlp.md");
    let text = read(&document);
    let (before, rest) = text.split_once(TABLES[0]).unwrap();
    let (tables, after) = rest.split_once(TABLES[1]).unwrap();
    let expected = format!("\n{}\n", cairn::ingest::otlp::mapping::document::tables());
    if std::env::var_os("TEST_WRITE_TABLES").is_some() {
        std::fs::write(&document, format!("{before}{}{expected}{}{after}", TABLES[0], TABLES[1])).unwrap();
        return;
    }
    assert!(tables == expected, "write them: TEST_WRITE_TABLES=1 cargo test --release --test promises the_tables_of");
}
