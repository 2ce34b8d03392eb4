//! `cairn reload`

use std::io::{self, Write};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::args::ReloadArgs;
use super::{Exit, complain, said};

/// Has a server on this machine read its configuration again. In a container there is nothing else that sends signals.
pub fn run(args: &ReloadArgs) -> Exit {
    let pid = match args.pid.map_or_else(only_server, Ok) {
        Ok(pid) => pid,
        Err(why) => return complain(Exit::Failed, &why),
    };
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return complain(Exit::Usage, &format!("--pid {pid}: expected the id of a process"));
    };
    match kill_process(process, Signal::HUP) {
        Ok(()) => said(writeln!(io::stdout(), "process {pid} was told; its log says what came of it"), Exit::Fine),
        Err(error) => complain(Exit::Failed, &format!("process {pid} cannot be told: {error}")),
    }
}

/// The server, if there is one and no other.
fn only_server() -> Result<u32, String> {
    let found = servers().map_err(|error| format!("/proc: {error}"))?;
    match found[..] {
        [pid] => Ok(pid),
        [] => Err("no server is seen here; --pid says which process it is".to_owned()),
        _ => Err(format!("there are several servers, the processes {found:?}; --pid says which of them")),
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
