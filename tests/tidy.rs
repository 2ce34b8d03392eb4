//! The house rules: short files, imports that only go down, one place for each dependency.

use std::path::{Path, PathBuf};

use crate::harness::repository;

/// Who may import whom. Those of [`SEES_ALL`] may import everybody.
const IMPORTS: [(&str, &[&str]); 14] = [
    ("harmless", &[]),
    ("nearest", &[]),
    ("chain", &[]),
    ("http", &["nearest"]),
    ("units", &[]),
    ("ledger", &["chain", "units"]),
    ("access", &["http"]),
    ("ingest", &["access", "chain", "http", "ledger", "units"]),
    ("relay", &["chain", "http", "ledger", "units"]),
    ("tlog", &["chain", "ledger"]),
    ("evidence", &["chain", "harmless", "tlog"]),
    ("audit", &["chain", "evidence", "http", "ledger", "tlog"]),
    ("admin", &["http", "ledger", "relay", "tlog"]),
    ("config", &["access", "chain", "http", "ingest", "ledger", "nearest", "relay", "tlog", "units"]),
];
const SEES_ALL: [&str; 4] = ["cli", "lib", "main", "serve"];
const LINES: usize = 400;
const BANNED_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "manager", "misc"];

fn rust_files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![repository(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// The part of a file that is no test.
fn product(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap()
}

/// The module that a file of `src/` belongs to: the first folder, or the file's own name.
fn module(path: &Path) -> String {
    let inside = path.strip_prefix(repository("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn no_file_is_longer_than_400_lines_or_has_a_name_that_says_nothing() {
    for folder in ["src", "tests", "benches", "fuzz"] {
        for (path, text) in rust_files(folder) {
            assert!(text.lines().count() <= LINES, "{} is too long", path.display());
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(!BANNED_NAMES.contains(&name), "{}", path.display());
        }
    }
}

#[test]
fn imports_only_go_down() {
    let mut seen = 0;
    for (path, text) in rust_files("src") {
        let module = module(&path);
        if SEES_ALL.contains(&module.as_str()) {
            continue;
        }
        let (_, allowed) =
            IMPORTS.iter().find(|(name, _)| *name == module).unwrap_or_else(|| panic!("who is {module}?"));
        for (line, used) in text.lines().flat_map(|line| line.split("crate::").skip(1).map(move |rest| (line, rest))) {
            let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            assert!(used == module || allowed.contains(&used.as_str()), "{}: {line}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} imports found");
}

#[test]
fn each_thing_has_its_one_place() {
    let only = |what: &str, places: &[&str]| {
        for (path, text) in rust_files("src") {
            let inside = path.strip_prefix(repository("src")).unwrap().to_str().unwrap().to_owned();
            let is_allowed = places.iter().any(|place| inside.starts_with(place));
            assert!(is_allowed || !product(&text).contains(what), "{what} in {inside}");
        }
    };
    only("rocksdb::", &["ledger/store"]);
    only("env::var", &["config/"]);
    only("Env::", &["config/"]);
    only("reqwest", &["cli/server.rs", "relay/"]);
    only("unsafe ", &[]);
    for pure in ["std::time::", "std::fs", "std::net", "async ", "tokio", "SystemTime", "Instant"] {
        for (path, text) in rust_files("src/chain") {
            assert!(!product(&text).contains(pure), "{pure} in {}", path.display());
        }
    }
}

#[test]
fn nothing_in_the_product_panics_on_purpose() {
    for (path, text) in rust_files("src") {
        // For tests alone.
        if path.ends_with("chain/tests.rs") || path.ends_with("chain/slow.rs") {
            continue;
        }
        let lines: Vec<&str> = product(&text).lines().collect();
        for (at, line) in lines.iter().enumerate() {
            for call in [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("] {
                let is_said = at > 0 && lines[at - 1].trim_start().starts_with("//");
                let is_const = line.trim_start().starts_with("const ");
                assert!(!line.contains(call) || is_said || is_const, "{}:{}: {line}", path.display(), at + 1);
            }
        }
    }
}
