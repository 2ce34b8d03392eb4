//! `cairn-verify`: verifies an evidence package or a copy of a log, without a server and without network access.
//!
//! `docs/auditors.md` describes its use and the meaning of the verdicts.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cairn_proof::evidence::follow::{Follower, LogError, LogSource};
use cairn_proof::evidence::{self, Outcome};
use cairn_proof::files::{self, LogDirectory, LogStream};
use cairn_proof::tree::checkpoint;
use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;

/// Also a part of the manual page.
const HELP: &str = include_str!("cairn-verify.txt");

/// The command line, parsed but not validated.
#[derive(Default)]
struct Args {
    command: Option<String>,
    input: Option<PathBuf>,
    keys: Vec<String>,
    state: Option<PathBuf>,
    checkpoint: Option<PathBuf>,
    agent_id: Option<String>,
    recorder: bool,
    json: bool,
}

/// Why the program exits without a verdict.
enum Failure {
    Usage(String),
    Operational(String),
    /// The help or the version was printed: exit status 0.
    Done,
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        Failure::Usage(error.to_string())
    }
}

impl From<LogError> for Failure {
    fn from(error: LogError) -> Failure {
        Failure::Operational(cairn_proof::sanitize::sanitize(&error.to_string()))
    }
}

fn main() -> ExitCode {
    let (code, message) = match run() {
        Ok(true) | Err(Failure::Done) => return ExitCode::SUCCESS,
        Ok(false) => return ExitCode::from(1),
        Err(Failure::Usage(message)) => (2, format!("{message}; see cairn-verify --help")),
        Err(Failure::Operational(message)) => (3, message),
    };
    eprintln!("cairn-verify: {message}");
    ExitCode::from(code)
}

/// Runs the command. Returns whether the package or the log is valid.
fn run() -> Result<bool, Failure> {
    let args = parse()?;
    let usage = |message: &str| Failure::Usage(message.to_owned());
    let mut keys = Vec::new();
    for key in &args.keys {
        keys.extend(files::verifier_keys(key).map_err(Failure::Usage)?);
    }
    if let Some(command) = args.command.as_deref().filter(|command| !matches!(*command, "package" | "log")) {
        return Err(Failure::Usage(format!("unknown command {command:?}: expected package or log")));
    }
    let input = args.input.as_deref().ok_or_else(|| usage("a file or directory is missing"))?;
    match args.command.as_deref() {
        Some("package") => verify_package(input, &keys, &args),
        Some("log") if keys.is_empty() => {
            Err(usage("--key is missing: a log cannot be verified without a trusted key"))
        }
        Some("log") if input.as_os_str() == "-" => {
            let path = args.checkpoint.as_ref().ok_or_else(|| usage("log - requires --checkpoint FILE"))?;
            let note = std::fs::read(path).map_err(|error| io_failure(path, &error))?;
            verify_log(LogStream::new(note, BufReader::new(io::stdin())), &args, keys, Vec::new())
        }
        Some("log") => {
            let mut checkpoints = Vec::new();
            if let Some(path) = &args.checkpoint {
                let note = std::fs::read(path).map_err(|error| io_failure(path, &error))?;
                let with_path = |why| Failure::Operational(format!("--checkpoint {}: {why}", path.display()));
                let (head, _) = checkpoint::open(&note, &keys).map_err(with_path)?;
                checkpoints.push((path.display().to_string(), head));
            }
            verify_log(LogDirectory::new(input), &args, keys, checkpoints)
        }
        _ => Err(usage("expected package or log")),
    }
}

fn parse() -> Result<Args, Failure> {
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return print(HELP.trim_end()).map(|()| Err(Failure::Done))?,
            Short('V') | Long("version") => {
                return print(concat!("cairn-verify ", env!("CARGO_PKG_VERSION"))).map(|()| Err(Failure::Done))?;
            }
            Long("key") => args.keys.push(parser.value()?.string()?),
            Long("state") => args.state = Some(parser.value()?.into()),
            Long("checkpoint") => args.checkpoint = Some(parser.value()?.into()),
            Long("agent-id") => args.agent_id = Some(parser.value()?.string()?),
            Long("recorder") => args.recorder = true,
            Long("json") => args.json = true,
            Value(value) if args.command.is_none() => args.command = Some(value.string()?),
            Value(value) if args.input.is_none() => args.input = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(args)
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::Operational(format!("{}: {error}", path.display()))
}

/// Prints a line. A closed pipe (as with `| head`) is not an error.
fn print(text: &str) -> Result<(), Failure> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Operational(error.to_string())),
        _ => Ok(()),
    }
}

fn verify_package(path: &Path, keys: &[String], args: &Args) -> Result<bool, Failure> {
    let file: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(|error| io_failure(path, &error))?),
    };
    let verdict = evidence::verify(file, keys, || {}).map_err(|error| io_failure(path, &error))?;
    let verdict = if args.recorder { verdict.with_recorder() } else { verdict };
    print(&if args.json { verdict.to_json().to_string() } else { verdict.to_string() })?;
    Ok(verdict.outcome() == Outcome::Valid)
}

fn verify_log<S: LogSource>(
    source: S,
    args: &Args,
    keys: Vec<String>,
    checkpoints: Vec<(String, cairn_proof::tree::Head)>,
) -> Result<bool, Failure> {
    let mut follower = Follower::new(source, keys, args.agent_id.clone(), checkpoints);
    if let Some(path) = &args.state {
        let state = files::read_state(path).map_err(Failure::Operational)?;
        follower.resume(state).map_err(|why| Failure::Operational(format!("--state {}: {why}", path.display())))?;
    }
    let report = follower.read(|_, _| {})?;
    if let (Some(path), Some(state)) = (&args.state, follower.state()) {
        files::write_state(path, &state).map_err(Failure::Operational)?;
    }
    print(&if args.json { report.to_json().to_string() } else { report.to_string() })?;
    Ok(report.is_valid())
}
