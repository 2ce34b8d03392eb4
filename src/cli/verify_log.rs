//! `cairn verify --log`: reads every leaf of the log of a running server, and checks it against the signed checkpoints.

use std::path::PathBuf;
use std::time::Duration;

use cairn_proof::evidence::follow::{Follower, LogError, LogSource};
use cairn_proof::files;
use cairn_proof::tree::checkpoint;

use super::args::ConnectArgs;
use super::checkpoints::trusted_keys;
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print_line};
use super::progress::progress_bar;

/// The validated arguments of `cairn verify --log`.
pub struct LogVerification {
    /// The URL of the server.
    pub url: String,
    /// How to connect to it.
    pub connect: ConnectArgs,
    /// The trusted keys as they were given: keys, or files with keys.
    pub keys: Vec<String>,
    /// The state file, which stores how far the log was read.
    pub state: Option<PathBuf>,
    /// The pause between two reads; one read if absent.
    pub every: Option<Duration>,
    /// A file with a checkpoint that was stored outside the server.
    pub checkpoint: Option<PathBuf>,
    /// The agent whose last sequence is reported.
    pub agent_id: Option<String>,
    /// Whether to print JSON.
    pub json: bool,
}

impl LogSource for Client {
    fn name(&self) -> &str {
        self.url()
    }

    fn read(&self, path: &str, max_bytes: u64) -> Result<Vec<u8>, LogError> {
        self.bytes(&format!("/log/{path}"), max_bytes).map_err(|failure| failure.to_string().into())
    }

    fn minimum_index(&self) -> Result<u64, LogError> {
        // Earlier versions drop nothing. Where only the log can be read, one that has dropped leaves cannot be followed.
        Ok(self.get("/v1/merkle/root", &[]).ok().and_then(|root| root["minimum_index"].as_u64()).unwrap_or(0))
    }
}

/// Reads the log once, or repeatedly with `--every`.
pub fn run(request: &LogVerification) -> CommandResult {
    let client = Client::at(&request.url, &request.connect)?;
    let keys = trusted_keys(&request.keys)?;
    let mut known = Vec::new();
    if let Some(path) = &request.checkpoint {
        let named = |error: &dyn std::fmt::Display| format!("--checkpoint {}: {error}", path.display());
        let note = std::fs::read(path).map_err(|error| named(&error))?;
        let (head, _) = checkpoint::open(&note, &keys).map_err(|error| named(&error))?;
        known.push((path.display().to_string(), head));
    }
    let mut follower = Follower::new(client, keys, request.agent_id.clone(), known);
    resume(&mut follower, request)?;
    loop {
        let result = read(&mut follower, request);
        match (request.every, result) {
            (Some(pause), Ok(Exit::Success)) => std::thread::sleep(pause),
            // A log that cannot be reached may become reachable again. Leaves that were read but not compared with a
            // signed checkpoint are discarded.
            (Some(pause), Err(failure)) => {
                failure.report();
                resume(&mut follower, request)?;
                std::thread::sleep(pause.max(Duration::from_secs(1)));
            }
            // A broken log stays broken.
            (_, result) => return result,
        }
    }
}

fn resume(follower: &mut Follower<Client>, request: &LogVerification) -> Result<(), Failure> {
    let state = match &request.state {
        Some(path) => files::read_state(path)?,
        None => None,
    };
    let path = request.state.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    follower.resume(state).map_err(|why| Failure::operational(format!("--state {path}: {why}")))
}

fn read(follower: &mut Follower<Client>, request: &LogVerification) -> CommandResult {
    let bar = progress_bar("leaves", Some(0));
    let report = follower.read(|read, total| {
        bar.set_length(total);
        bar.set_position(read);
    })?;
    bar.finish_and_clear();
    if let (Some(path), Some(state)) = (&request.state, follower.state()) {
        files::write_state(path, &state)?;
    }
    let text = if request.json { report.to_json().to_string() } else { report.to_string() };
    print_line(text, if report.is_valid() { Exit::Success } else { Exit::Invalid })
}
