//! `cairn completions` and `cairn man`: what the arguments know of themselves, for shells and readers.

use std::io;
use std::path::Path;

use clap::CommandFactory;

use super::args::{Arguments, CompletionsArgs, ManArgs};
use super::{Exit, complain, said};

/// Prints a shell's script.
pub fn completions(args: &CompletionsArgs) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "cairn", &mut script);
    said(io::Write::write_all(&mut io::stdout(), &script), Exit::Fine)
}

/// Prints the manual page, or writes all of them.
pub fn man(args: &ManArgs) -> Exit {
    match &args.folder {
        None => said(clap_mangen::Man::new(Arguments::command()).render(&mut io::stdout()), Exit::Fine),
        Some(folder) => write_all(folder),
    }
}

fn write_all(folder: &Path) -> Exit {
    match clap_mangen::generate_to(Arguments::command(), folder) {
        Ok(()) => Exit::Fine,
        Err(error) => complain(Exit::Failed, &format!("{}: {error}", folder.display())),
    }
}
