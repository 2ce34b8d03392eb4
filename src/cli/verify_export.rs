//! `cairn verify-export`

use std::fs::File;
use std::io::{self, Read, Write};

use super::args::VerifyExportArgs;
use super::progress::progress_bar;
use super::{Exit, checkpoints, complain, said};
use crate::evidence::package;
use crate::evidence::verdict::Outcome;

/// Verifies an evidence package: the file, and the keys that the auditor trusts, are all it needs.
pub fn run(args: &VerifyExportArgs) -> Exit {
    let mut keys = Vec::new();
    for key in &args.key {
        match checkpoints::verifier_keys(key) {
            Ok(found) => keys.extend(found),
            Err(error) => return complain(Exit::Usage, &error),
        }
    }
    let file: Box<dyn Read> = if args.file.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        match File::open(&args.file) {
            Ok(file) => Box::new(file),
            Err(error) => return complain(Exit::Failed, &format!("{}: {error}", args.file.display())),
        }
    };
    let bar = progress_bar("events and proofs", None);
    let verdict = package::verify(file, &keys, || bar.inc(1));
    bar.finish_and_clear();
    let verdict = match verdict {
        Ok(verdict) => verdict,
        Err(error) => return complain(Exit::Failed, &format!("{}: {error}", args.file.display())),
    };
    let text = if args.json { verdict.to_json().to_string() } else { verdict.to_string() };
    let is_valid = verdict.outcome() == Outcome::Valid;
    said(writeln!(io::stdout(), "{text}"), if is_valid { Exit::Fine } else { Exit::Broken })
}
