//! The configuration file: which one is read, and what is said about it.

use tempfile::TempDir;

use crate::ops::config::validate_exactly;
use crate::support::harness::{cairn, run_text};

#[test]
fn validate_says_which_file_it_read_and_whether_anything_is_in_it() {
    let (code, output) = validate_exactly("shards: 2\n", &[]);
    assert!(code == 0 && output.contains("my.yaml: the configuration is valid\n"), "{output}");
    for blank in ["# nothing\n", "---\n# nothing\n", "{}\n"] {
        let (code, output) = validate_exactly(blank, &[]);
        assert!(
            code == 0 && output.contains("my.yaml: the configuration is valid, but the file sets nothing"),
            "{output}"
        );
    }
    // A template that failed wrote nothing.
    for empty in ["", " \n\n"] {
        let (code, output) = validate_exactly(empty, &[]);
        assert!(code == 2 && output.contains("my.yaml: the file is empty"), "{output}");
    }
    let (code, output, _) = run_text(&["config", "validate"]);
    assert!(code == 0 && output.contains("no file"), "{output}");
}

#[test]
fn the_file_is_named_by_the_argument_or_the_environment() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (folder.path().join("one.yaml"), folder.path().join("two.yaml"));
    std::fs::write(&one, "shards: 2\n").unwrap();
    std::fs::write(&two, "shards: 3\n").unwrap();
    let print = |arguments: &[&str], file: &std::path::Path| {
        let output = cairn().args(["config", "print"]).args(arguments).env("CAIRN_CONFIG", file).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(print(&[], &one).contains("shards: 2"));
    assert!(print(&["--config", two.to_str().unwrap()], &one).contains("shards: 3"), "the argument has precedence");
    assert!(print(&[], std::path::Path::new("")).contains("shards: 1"), "an empty variable is none");
    // A pipe can be read once.
    let command =
        format!("cat {} | {} config print --config /dev/stdin", two.display(), cairn().get_program().display());
    let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("shards: 3"), "{output:?}");
}
