//! `cairn reload`: sends SIGHUP to a server on this machine.

use std::io;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::args::ReloadArgs;
use super::exit::{CommandResult, Exit, Failure, print_line};

/// Signals a server on this machine to reload its configuration. The container image has no other program that can send
/// signals.
pub fn run(args: &ReloadArgs) -> CommandResult {
    let found = servers().map_err(|error| format!("/proc: {error}"))?;
    let pid = match args.pid {
        Some(pid) if found.contains(&pid) => pid,
        // SIGHUP ends most other programs.
        Some(pid) => return Err(Failure::usage(format!("--pid {pid}: this process does not run `cairn serve`"))),
        None => only(&found)?,
    };
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or("expected a process id")?;
    kill_process(process, Signal::HUP).map_err(|error| format!("failed to send SIGHUP to process {pid}: {error}"))?;
    print_line(format_args!("sent SIGHUP to process {pid}; the result is in its log"), Exit::Success)
}

/// The only one of these processes.
fn only(servers: &[u32]) -> Result<u32, String> {
    match servers {
        [pid] => Ok(*pid),
        [] => Err("no running server found; set its process id with --pid".to_owned()),
        _ => Err(format!("several servers are running with the process ids {servers:?}; choose one with --pid")),
    }
}

/// The ids of the processes that were started as `cairn serve`, from any directory.
fn servers() -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The command line of a process that has exited cannot be read.
        let command_line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut arguments = command_line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let program = arguments.next().unwrap_or_default().into_owned();
        if Path::new(&program).file_name().is_some_and(|name| name == "cairn")
            && arguments.next().as_deref() == Some("serve")
        {
            found.push(pid);
        }
    }
    Ok(found)
}
