//! `cairn reload`

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::args::ReloadArgs;
use super::exit::{CommandResult, Exit, Failure, print_line};

/// Signals a server on this machine to reload its configuration. In a container there is nothing else that sends signals.
pub fn run(args: &ReloadArgs) -> CommandResult {
    let pid = args.pid.map_or_else(only_server, Ok)?;
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.ok_or_else(|| Failure::usage(format!("--pid {pid}: expected the id of a process")))?;
    kill_process(process, Signal::HUP).map_err(|error| format!("process {pid} cannot be signalled: {error}"))?;
    print_line(format_args!("process {pid} was signalled; its log says what changed"), Exit::Success)
}

/// The server, if there is one and no other.
fn only_server() -> Result<u32, String> {
    let found = servers().map_err(|error| format!("/proc: {error}"))?;
    match found[..] {
        [pid] => Ok(pid),
        [] => Err("no running server found; name its process with --pid".to_owned()),
        _ => Err(format!("several servers are running, the processes {found:?}; name one with --pid")),
    }
}

/// The processes that were started as `cairn serve`, wherever that program is.
fn servers() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Who has ended since has none.
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let program = words.next().unwrap_or_default().into_owned();
        if Path::new(&program).file_name().is_some_and(|name| name == "cairn")
            && words.next().as_deref() == Some("serve")
        {
            found.push(pid);
        }
    }
    Ok(found)
}
