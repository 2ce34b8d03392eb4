//! `cairn completions` and `cairn man`: shell completions and manual pages, generated from the arguments.

use clap::CommandFactory;

use super::args::{Arguments, CompletionsArgs, ManArgs};
use super::exit::{CommandResult, Exit, print};

/// Prints the completion script of a shell.
pub fn completions(args: &CompletionsArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "cairn", &mut script);
    print(script, Exit::Success)
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub fn man(args: &ManArgs) -> CommandResult {
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
        return print(page, Exit::Success);
    };
    clap_mangen::generate_to(Arguments::command(), folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(Exit::Success)
}
