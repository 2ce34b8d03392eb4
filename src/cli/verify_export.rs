//! `cairn verify-export`: verifies an evidence package. `docs/auditors.md` describes the result.

use std::fs::File;
use std::io::{self, Read};

use cairn_proof::evidence::{self, Outcome};

use super::args::VerifyExportArgs;
use super::checkpoints::trusted_keys;
use super::exit::{CommandResult, Exit, print_line};
use super::progress::progress_bar;

/// Verifies an evidence package. Needs only the file and the keys that the auditor trusts.
pub fn run(args: &VerifyExportArgs) -> CommandResult {
    let keys = trusted_keys(&args.key)?;
    let named = |error: io::Error| format!("{}: {error}", args.file.display());
    let file: Box<dyn Read> = match args.file.as_os_str() == "-" {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(&args.file).map_err(named)?),
    };
    let bar = progress_bar("events and proofs", None);
    let verdict = evidence::verify(file, &keys, || bar.inc(1));
    bar.finish_and_clear();
    let verdict = verdict.map_err(named)?;
    let verdict = if args.recorder { verdict.with_recorder() } else { verdict };
    let text = if args.json { verdict.to_json().to_string() } else { verdict.to_string() };
    let is_valid = verdict.outcome() == Outcome::Valid;
    print_line(text, if is_valid { Exit::Success } else { Exit::Invalid })
}
