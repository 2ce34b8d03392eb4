//! `cairn completions` and `cairn man`: shell completions and manual pages, generated from the arguments.

use std::fs;
use std::io;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::args::{Arguments, CompletionsArgs, ManArgs};
use super::exit::{CommandResult, Exit, print};

const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "success"),
    (
        "1",
        "verified, and broken or not proven; for cairn status, also: nothing can be signed; for cairn repair: some rows cannot be derived",
    ),
    ("2", "usage or configuration error"),
    ("3", "operational error"),
    ("4", "cairn serve ended cleanly, but events were not relayed, and shutdown.fail_if_unsent is true"),
];

const ENVIRONMENT: [(&str, &str); 4] = [
    ("CAIRN_CONFIG", "the YAML file with settings, unless --config names one"),
    (
        "CAIRN_SECTION__KEY",
        "a setting, such as CAIRN_STORAGE__DATA_DIR for storage.data_dir; overrides the file. cairn config print lists all of them",
    ),
    ("NO_COLOR", "if not empty, the process log has no colours on a terminal"),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "set by systemd for a service of Type=notify with WatchdogSec; used by cairn serve",
    ),
];

const FILES: [(&str, &str); 5] = [
    ("/etc/cairn/cairn.yaml", "settings of the packaged service"),
    ("/var/lib/cairn/data", "storage.data_dir of the packaged service: the ledger"),
    ("/var/lib/cairn/data/log.key", "the signing keys of the log, unless log.key_file names another file"),
    (
        "/var/lib/cairn/data/log.checkpoint",
        "the checkpoint that was signed last, unless log.checkpoint_file names another file",
    ),
    ("/usr/share/doc/cairn", "documents, all settings with their defaults, alerts and a dashboard"),
];

/// The help of the program `cairn-verify`, whose manual page has the name of that of `cairn verify`.
const VERIFIER_HELP: &str = include_str!("../../crates/cairn-proof/src/bin/cairn-verify.txt");

/// Prints the completion script of a shell.
pub fn completions(args: &CompletionsArgs) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Arguments::command(), "cairn", &mut script);
    print(script, Exit::Success)
}

/// Prints the manual page, or writes the pages of all commands into a directory.
pub fn man(args: &ManArgs) -> CommandResult {
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &args.folder else {
        return print(page(&command)?, Exit::Success);
    };
    let mut commands = vec![&command];
    while let Some(command) = commands.pop() {
        let file = folder.join(Man::new(command.clone()).get_filename());
        fs::write(&file, page(command)?).map_err(|error| format!("{}: {error}", file.display()))?;
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()));
    }
    Ok(Exit::Success)
}

/// The manual page of a command, in the order of man-pages(7).
fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).source(concat!("cairn ", env!("CARGO_PKG_VERSION"))).manual("Cairn");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::new();
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let (examples, notes): (Vec<_>, Vec<_>) =
        help.split("\n\n").filter(|part| !part.is_empty()).partition(|part| part.starts_with("Example"));
    // The exit statuses of all commands are below.
    let notes = notes.into_iter().filter(|note| !note.starts_with("Exit status: 0 success"));
    for (index, note) in notes.enumerate() {
        roff.control(if index == 0 { "SH" } else { "PP" }, (index == 0).then_some("NOTES"));
        roff.text([roman(note)]);
    }
    definitions(&mut roff, "EXIT STATUS", &EXIT_STATUS);
    definitions(&mut roff, "ENVIRONMENT", &ENVIRONMENT);
    definitions(&mut roff, "FILES", &FILES);
    for example in examples {
        preformatted(&mut roff, "EXAMPLES", example.split_once('\n').map_or("", |(_, commands)| commands));
    }
    if command.get_name() == "verify" {
        preformatted(&mut roff, "THE PROGRAM CAIRN-VERIFY", VERIFIER_HELP);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("cairn(1), /usr/share/doc/cairn/docs/README.md")]);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// A section of terms with what they mean.
fn definitions(roff: &mut Roff, heading: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [heading]);
    for (term, meaning) in entries {
        roff.control("TP", []);
        roff.text([bold(*term)]);
        roff.text([roman(*meaning)]);
    }
}

/// A section of lines that are shown as they are.
fn preformatted(roff: &mut Roff, heading: &str, lines: &str) {
    roff.control("SH", [heading]);
    roff.control("nf", []);
    for line in lines.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}
