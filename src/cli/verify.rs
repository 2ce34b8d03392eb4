//! `cairn verify`

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::blocking::Client;
use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::ledger::Reader;
use super::{Exit, complain, said};
use crate::audit::verify::{self, Observer};
use crate::chain::{AgentKey, Break};
use crate::config::Loaded;

type Error = Box<dyn std::error::Error>;

/// An error with its causes: the library's own words leave out that nobody listens there.
struct Chain<'a>(&'a dyn std::error::Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Verifies chains, in the data directory or by asking a server.
pub fn run(args: &VerifyArgs) -> Exit {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    if args.server.as_ref().is_some_and(|server| !server.starts_with("http://") && !server.starts_with("https://")) {
        return complain(Exit::Usage, &"--server: expected a URL such as http://localhost:7600");
    }
    let result = match (&args.server, &args.agent_id) {
        (Some(server), agent_id) => on_server(server, agent_id.as_deref(), args),
        (None, Some(agent_id)) => one(&loaded, agent_id, args.json),
        (None, None) => all(&loaded, args.json),
    };
    result.unwrap_or_else(|error| complain(Exit::Failed, &Chain(&*error)))
}

fn one(loaded: &Loaded, agent_id: &str, json: bool) -> Result<Exit, Error> {
    let reader = Reader::open(&loaded.config.storage.data_dir)?;
    let verify = || {
        let bar = progress_bar();
        let verdict = verify::agent(&reader.store, AgentKey::of(agent_id), |events| {
            bar.inc(events);
            true
        });
        bar.finish_and_clear();
        verdict
    };
    let mut verdict = verify()?;
    if verdict.as_ref().is_some_and(|verdict| verdict.broken.is_some()) {
        reader.look_again()?;
        verdict = verify()?;
    }
    let verdict = verdict.ok_or_else(|| format!("there is no agent {agent_id:?}"))?;
    Ok(report(&verdict.to_json(), json))
}

/// The verdict stands whether or not somebody reads to its end what is printed of it.
fn exit_of(is_valid: bool) -> Exit {
    if is_valid { Exit::Fine } else { Exit::Broken }
}

/// Prints a verdict as `GET /v1/verify` answers it.
fn report(verdict: &Value, json: bool) -> Exit {
    let is_valid = verdict["valid"] == json!(true);
    let agent = verdict["agent_id"].as_str().unwrap_or("?");
    let line = if json {
        verdict.to_string()
    } else if is_valid {
        let head = verdict["head_hash"].as_str().unwrap_or("?");
        format!("{agent}: valid, {} events, head {head}", verdict["events_verified"])
    } else {
        format!("{agent}: BROKEN: {}", verdict["error"].as_str().unwrap_or("?"))
    };
    said(writeln!(io::stdout(), "{line}"), exit_of(is_valid))
}

fn all(loaded: &Loaded, json: bool) -> Result<Exit, Error> {
    let reader = Reader::open(&loaded.config.storage.data_dir)?;
    let verify = || {
        let mut printer = Printer { bar: progress_bar(), json, lines: Vec::new() };
        let summary = verify::all(&reader.store, &mut printer);
        printer.bar.finish_and_clear();
        summary.map(|summary| (summary, printer.lines))
    };
    let (mut summary, mut lines) = verify()?;
    if summary.broken > 0 {
        reader.look_again()?;
        (summary, lines) = verify()?;
    }
    let is_valid = summary.broken == 0;
    lines.push(if json {
        let (agents, events, broken) = (summary.agents, summary.events, summary.broken);
        json!({"valid": is_valid, "agents": agents, "events_verified": events, "broken": broken}).to_string()
    } else {
        let verdict = if is_valid { "all valid".to_owned() } else { format!("{} BROKEN", summary.broken) };
        format!("{} agents, {} events verified: {verdict}", summary.agents, summary.events)
    });
    let written = lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"));
    Ok(said(written, exit_of(is_valid)))
}

/// Shows progress, and keeps what there is to say of breaks.
struct Printer {
    bar: ProgressBar,
    json: bool,
    lines: Vec<String>,
}

impl Observer for Printer {
    fn progress(&mut self, events: u64) {
        self.bar.inc(events);
    }

    fn broken(&mut self, agent_id: &str, found: &Break) {
        let line = if self.json {
            json!({"valid": false, "agent_id": agent_id, "error": found.to_string(), "sequence": found.sequence.0})
                .to_string()
        } else {
            format!("{agent_id}: BROKEN: {found}")
        };
        self.lines.push(line);
    }
}

/// Progress on a terminal, none in a pipe.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    // The template is a constant, and a wrong one only costs the looks.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {human_pos} events, {per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// A chain of a million events takes a while to walk.
const ANSWER_WAIT: Duration = Duration::from_secs(600);

fn on_server(server: &str, agent_id: Option<&str>, args: &VerifyArgs) -> Result<Exit, Error> {
    let client = Client::builder().timeout(ANSWER_WAIT).build()?;
    let read_key = |path: &PathBuf| {
        std::fs::read_to_string(path).map_err(|error| format!("--api-key-file {}: {error}", path.display()))
    };
    let key = args.api_key_file.as_ref().map(read_key).transpose()?;
    let server = server.trim_end_matches('/');
    let ask = |path: &str, query: &[(&str, &str)]| -> Result<(Value, Option<String>), Error> {
        let mut request = client.get(format!("{server}{path}")).query(query);
        if let Some(key) = &key {
            request = request.bearer_auth(key.trim());
        }
        let response = request.send()?;
        let status = response.status();
        let link = response.headers().get(reqwest::header::LINK).and_then(|link| Some(link.to_str().ok()?.to_owned()));
        let body = response.text()?;
        if !status.is_success() {
            return Err(format!("{server}{path} answered {status}: {body}").into());
        }
        Ok((serde_json::from_str(&body)?, link))
    };
    if let Some(agent_id) = agent_id {
        return Ok(report(&ask("/v1/verify", &[("agent_id", agent_id)])?.0, args.json));
    }
    let mut exit = Exit::Fine;
    let mut page = "/v1/agents?limit=1000".to_owned();
    loop {
        let (agents, next) = ask(&page, &[])?;
        for agent in agents.as_array().into_iter().flatten() {
            let agent_id = agent["agent_id"].as_str().unwrap_or_default();
            match report(&ask("/v1/verify", &[("agent_id", agent_id)])?.0, args.json) {
                Exit::Fine => {}
                Exit::Broken => exit = Exit::Broken,
                failed => return Ok(failed),
            }
        }
        // <path>; rel="next"
        match next.as_deref().and_then(|link| link.strip_prefix('<')?.split_once('>')) {
            Some((path, _)) => page = path.to_owned(),
            None => return Ok(exit),
        }
    }
}
