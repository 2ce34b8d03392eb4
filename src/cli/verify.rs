//! `cairn verify`

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::ledger::Reader;
use super::server::Server;
use super::{Error, Exit, complain, said};
use crate::audit::verify::{self, Observer};
use crate::chain::{AgentKey, Break};
use crate::config::Loaded;
use crate::http::Causes;

/// Verifies chains, in the data directory or by asking a server.
pub fn run(args: &VerifyArgs) -> Exit {
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let server = match args.server.as_ref().map(|url| Server::at(url, args.api_key_file.as_deref())).transpose() {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let result = match (&server, &args.agent_id) {
        (Some(server), agent_id) => on_server(server, agent_id.as_deref(), args.json),
        (None, Some(agent_id)) => one(&loaded, agent_id, args.json),
        (None, None) => all(&loaded, args.json),
    };
    result.unwrap_or_else(|error| complain(Exit::Failed, &Causes(&*error)))
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

fn on_server(server: &Server, agent_id: Option<&str>, json: bool) -> Result<Exit, Error> {
    let verdict = |agent_id: &str| server.get("/v1/verify", &[("agent_id", agent_id)]);
    if let Some(agent_id) = agent_id {
        return Ok(report(&verdict(agent_id)?, json));
    }
    let mut exit = Exit::Fine;
    for page in server.pages("/v1/agents?limit=1000") {
        for agent in page?.as_array().into_iter().flatten() {
            let agent_id = agent["agent_id"].as_str().unwrap_or_default();
            match report(&verdict(agent_id)?, json) {
                Exit::Fine => {}
                Exit::Broken => exit = Exit::Broken,
                failed => return Ok(failed),
            }
        }
    }
    Ok(exit)
}
