//! The structure of the sources: short files and functions, downward imports without cycles, and one place for each
//! mechanism.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::support::harness::repository;
use crate::support::modules::{Modules, SourceFile};

/// The modules that each top-level module, and each submodule of the ledger, may import. Every module may also import
/// `cairn_proof`, `text` and `runtime`.
const IMPORTS: [(&str, &[&str]); 19] = [
    ("text", &[]),
    ("runtime", &[]),
    ("http", &[]),
    ("auth", &["http"]),
    ("ledger::store", &[]),
    ("ledger::format", &["ledger::store"]),
    ("ledger::read", &["ledger::format", "ledger::store"]),
    ("ledger::ids", &["ledger::read", "ledger::format", "ledger::store"]),
    ("ledger::erase", &["ledger::read", "ledger::format", "ledger::store"]),
    ("ledger::shard", &["ledger::ids", "ledger::read", "ledger::format", "ledger::store"]),
    ("ledger", &[]),
    ("ingest", &["auth", "http", "ledger"]),
    ("tlog", &["ledger"]),
    ("recorder", &["ledger", "tlog"]),
    ("relay", &["http", "ledger"]),
    ("audit", &["auth", "http", "ledger", "tlog", "recorder"]),
    ("config", &["auth", "http", "ingest", "ledger", "recorder", "relay", "tlog"]),
    ("serve", &["auth", "http", "ingest", "ledger", "tlog", "recorder", "relay", "audit", "config"]),
    ("cli", &["auth", "http", "ingest", "ledger", "tlog", "recorder", "relay", "audit", "config", "serve"]),
];
const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 80;
const BANNED_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "manager", "misc"];

/// The entry of [`IMPORTS`] that a file belongs to.
fn layer(module: &[String]) -> String {
    let submodules = ["store", "format", "read", "ids", "erase", "shard"];
    match module {
        [first, second, ..] if first == "ledger" && submodules.contains(&&**second) => format!("{first}::{second}"),
        [first, ..] => first.clone(),
        [] => String::new(),
    }
}

/// The source files of both crates.
fn product() -> [Modules; 2] {
    [Modules::read(&repository("src")), Modules::read(&repository("crates/cairn-proof/src"))]
}

#[test]
fn no_file_is_longer_than_400_lines_or_has_a_meaningless_name() {
    for folder in ["src", "crates", "tests", "benches", "fuzz"] {
        for SourceFile { path, text, .. } in Modules::read(&repository(folder)).files() {
            assert!(text.lines().count() <= MAX_FILE_LINES, "{} is too long", path.display());
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(!BANNED_NAMES.contains(&name), "{}", path.display());
        }
    }
}

#[test]
fn no_function_is_longer_than_80_lines() {
    struct Functions<'f>(&'f PathBuf, usize);
    impl Functions<'_> {
        fn check(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
            let lines = span.end().line - span.start().line + 1;
            assert!(lines <= MAX_FUNCTION_LINES, "{}: {name} has {lines} lines", self.0.display());
            self.1 += 1;
        }
    }
    impl<'a> Visit<'a> for Functions<'_> {
        fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
            self.check(&function.sig.ident, function.sig.span().join(function.block.span()).unwrap());
            syn::visit::visit_item_fn(self, function);
        }

        fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
            self.check(&function.sig.ident, function.sig.span().join(function.block.span()).unwrap());
            syn::visit::visit_impl_item_fn(self, function);
        }
    }
    let mut seen = 0;
    for modules in product() {
        for file in modules.files() {
            let mut functions = Functions(&file.path, 0);
            functions.visit_file(&file.syntax);
            seen += functions.1;
        }
    }
    assert!(seen > 1000, "only {seen} functions found");
}

#[test]
fn imports_only_point_downward() {
    let modules = Modules::read(&repository("src"));
    let mut seen = 0;
    for (from, to) in modules.imports(true) {
        let (from_layer, to_layer) = (layer(&modules.file(from).module), layer(&modules.file(to).module));
        if from_layer == to_layer || ["", "main"].contains(&&*from_layer) {
            continue;
        }
        let (_, allowed) = IMPORTS
            .iter()
            .find(|(name, _)| *name == from_layer)
            .unwrap_or_else(|| panic!("{from_layer} has no entry in IMPORTS"));
        // `ledger` may import its submodules; a module that may import `ledger` may import them, too.
        let top = to_layer.split("::").next().unwrap();
        let is_allowed = allowed.contains(&&*to_layer)
            || allowed.contains(&top) && !from_layer.starts_with("ledger")
            || from_layer == "ledger" && top == "ledger"
            || ["text", "runtime"].contains(&top) && !["text", "runtime"].contains(&&*from_layer);
        let (from, to) = (modules.file(from).path.display(), modules.file(to).path.display());
        assert!(is_allowed, "{from} ({from_layer}) must not import {to} ({to_layer})");
        seen += 1;
    }
    assert!(seen > 100, "only {seen} imports found");
}

#[test]
fn the_imports_of_files_have_no_cycles() {
    for modules in product() {
        let mut edges: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (from, to) in modules.imports(false) {
            edges.entry(from).or_default().insert(to);
        }
        assert!(edges.len() > 10);
        let reachable = |start: usize| {
            let (mut found, mut open) = (BTreeSet::new(), vec![start]);
            while let Some(file) = open.pop() {
                open.extend(edges.get(&file).into_iter().flatten().filter(|next| found.insert(**next)));
            }
            found
        };
        let all: BTreeMap<usize, BTreeSet<usize>> = edges.keys().map(|&file| (file, reachable(file))).collect();
        let cyclic: Vec<String> = all
            .iter()
            .filter(|(file, found)| found.contains(file))
            .map(|(file, found)| {
                let with: Vec<_> =
                    found.iter().filter(|other| all.get(other).is_some_and(|back| back.contains(file))).collect();
                let names: Vec<_> = with.iter().map(|other| modules.name(**other)).collect();
                format!("{} with {}", modules.name(*file), names.join(", "))
            })
            .collect();
        assert!(cyclic.is_empty(), "files in cycles:\n{}", cyclic.join("\n"));
    }
}

#[test]
fn each_mechanism_is_used_in_one_place_only() {
    let files: Vec<(String, String)> = product()
        .iter()
        .flat_map(|modules| modules.files().iter().map(|file| (modules.name_of(file), file.product_text())))
        .collect();
    let only = |what: &str, allowed_prefixes: &[&str]| {
        let found: Vec<_> = files.iter().filter(|(_, text)| text.contains(what)).map(|(name, _)| name).collect();
        assert!(!found.is_empty(), "nothing contains {what}: the rule checks nothing");
        for name in found {
            assert!(allowed_prefixes.iter().any(|prefix| name.starts_with(prefix)), "{what} in {name}");
        }
    };
    only("rocksdb::", &["src/ledger/store/"]);
    only("env::var", &["src/config/"]);
    only("Env::", &["src/config/"]);
    only("reqwest", &["src/cli/client.rs", "src/cli/exit.rs", "src/relay/"]);
    only("catch_unwind", &["src/runtime/supervisor.rs"]);
    only("thread::Builder", &["src/runtime/supervisor.rs"]);
    only(
        "SystemTime",
        &["src/runtime/clock.rs", "src/ledger/shard/metrics.rs", "src/relay/upstream.rs", "src/cli/status.rs"],
    );
    only("base16ct", &["crates/cairn-proof/src/hex.rs"]);
    only(
        "fs::rename(",
        &["crates/cairn-proof/src/files.rs", "src/cli/key.rs", "src/cli/export.rs", "src/relay/file.rs"],
    );
    only("std::fs", &["src/", "crates/cairn-proof/src/files.rs", "crates/cairn-proof/src/bin/"]);
    for impure in ["std::net", "std::time::", "async fn", "Instant", "SystemTime"] {
        for (name, text) in files.iter().filter(|(name, _)| name.starts_with("crates/cairn-proof/")) {
            assert!(!text.contains(impure), "{impure} in {name}");
        }
    }
    assert!(files.iter().all(|(name, text)| !text.contains(":02x}") || name.ends_with("hex.rs")), "a second hex codec");
}

#[test]
fn sha_256_is_computed_by_the_sha2_crate_only() {
    let lock = std::fs::read_to_string(repository("Cargo.lock")).unwrap();
    assert!(!lock.contains("tape-sha256") && lock.contains("name = \"sha2\""));
}
