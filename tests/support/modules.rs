//! The module graph of a crate: which file imports which, from the parsed sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::Visit;

/// A source file of a crate.
pub struct SourceFile {
    pub path: PathBuf,
    pub text: String,
    pub syntax: syn::File,
    /// The path of its module from the crate root.
    pub module: Vec<String>,
}

impl SourceFile {
    /// The text without comments and without items that are compiled for tests only.
    pub fn product_text(&self) -> String {
        let mut lines = Vec::new();
        let mut until: Option<usize> = None;
        let tests: BTreeMap<usize, usize> = self.syntax.items.iter().filter_map(test_lines).collect();
        for (number, line) in self.text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            until = until.filter(|end| number <= *end).or(tests.get(&number).copied());
            if until.is_none() && !line.trim_start().starts_with("//") {
                lines.push(line);
            }
        }
        lines.join("\n")
    }
}

/// The first and last line of an item that is compiled for tests only; `None` for other items.
fn test_lines(item: &syn::Item) -> Option<(usize, usize)> {
    use syn::spanned::Spanned;
    is_test(item).then(|| (item.span().start().line, item.span().end().line))
}

fn is_test(item: &syn::Item) -> bool {
    let attributes = match item {
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

/// The source files of a crate, by module.
pub struct Modules {
    root: PathBuf,
    files: Vec<SourceFile>,
    by_module: BTreeMap<Vec<String>, usize>,
}

impl Modules {
    /// Parses every `.rs` file in a folder and its subfolders.
    pub fn read(root: &Path) -> Modules {
        let mut modules = Modules { root: root.to_owned(), files: Vec::new(), by_module: BTreeMap::new() };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    modules.add(path);
                }
            }
        }
        assert!(!modules.files.is_empty());
        modules
    }

    fn add(&mut self, path: PathBuf) {
        let text = std::fs::read_to_string(&path).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let inside = path.strip_prefix(&self.root).unwrap().with_extension("");
        let mut module: Vec<String> = inside.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
            module.pop();
        }
        self.by_module.insert(module.clone(), self.files.len());
        self.files.push(SourceFile { path, text, syntax, module });
    }

    /// All source files.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The file with this index.
    pub fn file(&self, index: usize) -> &SourceFile {
        &self.files[index]
    }

    /// The path of the file with this index, relative to the repository.
    pub fn name(&self, index: usize) -> String {
        self.name_of(&self.files[index])
    }

    /// The path of a file, relative to the repository.
    pub fn name_of(&self, file: &SourceFile) -> String {
        let repository = crate::support::harness::repository("");
        file.path.strip_prefix(repository).unwrap().display().to_string()
    }

    /// Pairs of indices: the first file imports the second. `with_tests` includes the imports of unit tests. Re-exports
    /// are followed to the file that defines the item.
    pub fn imports(&self, with_tests: bool) -> BTreeSet<(usize, usize)> {
        let mut found = BTreeSet::new();
        for (index, file) in self.files.iter().enumerate() {
            let mut paths = Paths { found: Vec::new(), module: file.module.clone() };
            let items = file.syntax.items.iter().filter(|item| with_tests || !is_test(item));
            items.for_each(|item| paths.visit_item(item));
            let imported = paths.found.iter().filter_map(|path| self.defined_in(path, 0));
            found.extend(imported.filter(|to| *to != index).map(|to| (index, to)));
        }
        found
    }

    /// The index of the file that defines the item with this absolute path.
    fn defined_in(&self, path: &[String], depth: usize) -> Option<usize> {
        let length = (0..=path.len()).rev().find(|length| self.by_module.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(length);
        let file = self.by_module[module];
        let Some(name) = rest.first() else { return Some(file) };
        if depth < 8 {
            let exports = exports(&self.files[file]);
            if let Some(target) = exports.get(name)
                && target != path
            {
                return self.defined_in(target, depth + 1);
            }
        }
        // A path that starts with no module names an item of the crate root, or an external crate.
        (!module.is_empty() || self.defines(file, name)).then_some(file)
    }

    fn defines(&self, file: usize, name: &str) -> bool {
        self.files[file].syntax.items.iter().any(|item| match item {
            syn::Item::Struct(item) => item.ident == name,
            syn::Item::Enum(item) => item.ident == name,
            syn::Item::Fn(item) => item.sig.ident == name,
            syn::Item::Const(item) => item.ident == name,
            _ => false,
        })
    }
}

/// The re-exports of a file: each name with the absolute path of the item.
fn exports(file: &SourceFile) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for item in &file.syntax.items {
        if let syn::Item::Use(item) = item
            && !matches!(item.vis, syn::Visibility::Inherited)
        {
            let mut leaves = Vec::new();
            leaves_of(&item.tree, &mut Vec::new(), &mut leaves);
            for (path, name) in leaves {
                if let Some(path) = absolute(&path, &file.module) {
                    found.insert(name, path);
                }
            }
        }
    }
    found
}

/// Collects the paths of a use tree, each with the name that it is imported as.
fn leaves_of(tree: &syn::UseTree, path: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
    match tree {
        syn::UseTree::Path(tree) => {
            path.push(tree.ident.to_string());
            leaves_of(&tree.tree, path, found);
            path.pop();
        }
        syn::UseTree::Name(tree) => {
            let name = tree.ident.to_string();
            let mut whole = path.clone();
            if name != "self" {
                whole.push(name.clone());
            }
            let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name };
            found.push((whole, name));
        }
        syn::UseTree::Rename(tree) => {
            let mut whole = path.clone();
            whole.push(tree.ident.to_string());
            found.push((whole, tree.rename.to_string()));
        }
        syn::UseTree::Glob(_) => found.push((path.clone(), "*".to_owned())),
        syn::UseTree::Group(tree) => tree.items.iter().for_each(|tree| leaves_of(tree, path, found)),
    }
}

/// The absolute path, from the crate root, of a path in `module`. Paths without `crate`, `self` or `super` are relative
/// to the module. `None` if `super` leaves the crate.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base = module.to_vec();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        _ => {}
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// Collects every path of a file that may name an item of another file.
struct Paths {
    found: Vec<Vec<String>>,
    module: Vec<String>,
}

impl Paths {
    fn add(&mut self, path: &[String]) {
        self.found.extend(absolute(path, &self.module));
    }
}

impl<'a> Visit<'a> for Paths {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        // Inside an inline module, `super` is the file itself.
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let mut leaves = Vec::new();
        leaves_of(&item.tree, &mut Vec::new(), &mut leaves);
        leaves.iter().for_each(|(path, _)| self.add(path));
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        if path.segments.len() > 1 {
            let parts: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.add(&parts);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        let tokens = item.tokens.to_string();
        for start in ["crate :: ", "super :: "] {
            for (at, _) in tokens.match_indices(start) {
                let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | ' ');
                let path: String = tokens[at..].chars().take_while(|c| is_path(*c)).collect();
                let parts: Vec<String> = path.split("::").map(|part| part.trim().to_owned()).collect();
                self.add(&parts);
            }
        }
        syn::visit::visit_macro(self, item);
    }
}
