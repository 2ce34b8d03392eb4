//! `cairn verify`

use std::io::{self, Write};
use std::path::Path;

use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::VerifyArgs;
use super::ledger::Reader;
use super::progress::progress_bar;
use super::server::Server;
use super::{Error, Exit, checkpoints, complain, follow, said};
use crate::audit::verify::{self, LogVerdict, Observer, Summary};
use crate::chain::{AgentKey, Break};
use crate::config::Loaded;
use crate::http::Causes;
use crate::tlog::checkpoint::Head;

/// Verifies chains, in the data directory or by asking a server.
pub fn run(args: &VerifyArgs) -> Exit {
    if let Some(url) = &args.log {
        return follow::run(url, args);
    }
    if args.follow.is_used() {
        return complain(Exit::Usage, &"--key, --place and --every go with --log URL");
    }
    let loaded = match args.config.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let server = match args.server.as_ref().map(|url| Server::at(url, &args.door)).transpose() {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let result = match (&server, &args.agent_id) {
        (Some(server), agent_id) => on_server(server, agent_id.as_deref(), args.json),
        (None, Some(agent_id)) => one(&loaded, agent_id, args.json),
        (None, None) => all(&loaded, args),
    };
    result.unwrap_or_else(|error| complain(Exit::Failed, &Causes(&*error)))
}

fn one(loaded: &Loaded, agent_id: &str, json: bool) -> Result<Exit, Error> {
    let reader = Reader::open(&loaded.config.storage.data_dir)?;
    let verify = || {
        let bar = progress_bar("events", None);
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

fn all(loaded: &Loaded, args: &VerifyArgs) -> Result<Exit, Error> {
    let json = args.json;
    // First the checkpoints, then the database: so it has whatever was signed.
    let checkpoints = checkpoints(loaded, args.checkpoint.as_deref())?;
    let reader = Reader::open(&loaded.config.storage.data_dir)?;
    let verify = || {
        let mut printer = Printer { bar: progress_bar("events", None), json, lines: Vec::new() };
        let heads = checkpoints.as_ref().map_or(&[][..], |found| &found.heads);
        let summary = verify::all(&reader.store, reader.meta.shards, heads, &mut printer);
        printer.bar.finish_and_clear();
        let mut summary = summary?;
        judge_checkpoints(&checkpoints, &mut summary.log);
        Ok::<_, Error>((summary, printer.lines))
    };
    let is_fine = |summary: &Summary| {
        let is_log_broken = summary.log.as_ref().is_some_and(|log| log.broken.is_some());
        summary.broken == 0 && !is_log_broken
    };
    let (mut summary, mut lines) = verify()?;
    if !is_fine(&summary) {
        reader.look_again()?;
        (summary, lines) = verify()?;
    }
    let is_valid = is_fine(&summary);
    let signed = checkpoints.map_or(0, |found| found.heads.len());
    let Summary { agents, events, broken, log } = summary;
    if json {
        let log = log.map(|log| {
            json!({"valid": log.broken.is_none(), "size": log.size, "not_yet_logged": log.unlogged,
                   "checkpoints_verified": signed, "error": log.broken})
        });
        let summary =
            json!({"valid": is_valid, "agents": agents, "events_verified": events, "broken": broken, "log": log});
        lines.push(summary.to_string());
    } else {
        let verdict = if broken == 0 { "all valid".to_owned() } else { format!("{broken} BROKEN") };
        lines.push(format!("{agents} agents, {events} events verified: {verdict}"));
        lines.extend(log.map(|log| match log.broken {
            Some(broken) => format!("log: BROKEN: {broken}"),
            None if log.unlogged > 0 => {
                format!(
                    "log: {} events, {signed} checkpoints verified: valid; {} not yet in it",
                    log.size, log.unlogged
                )
            }
            None => format!("log: {} events, {signed} checkpoints verified: valid", log.size),
        }));
    }
    let written = lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"));
    Ok(said(written, exit_of(is_valid)))
}

/// The last checkpoint that the server signed, and the one that was kept elsewhere; or what is wrong with one of them.
fn checkpoints(loaded: &Loaded, elsewhere: Option<&Path>) -> Result<Result<Checkpoints, String>, Error> {
    let (config, data_dir) = (loaded.config.log.tree(), &loaded.config.storage.data_dir);
    let own_name = config.checkpoint_path(data_dir).display().to_string();
    let own = match checkpoints::own(&config, data_dir)? {
        Ok(own) => own,
        Err(why) => return Ok(Err(why)),
    };
    let mut found =
        Checkpoints { has_own: own.is_some(), heads: own.map(|own| (own_name, own.head)).into_iter().collect() };
    if let Some(path) = elsewhere {
        match checkpoints::elsewhere(&config, data_dir, path)? {
            Ok(kept) => found.heads.push((path.display().to_string(), kept.head)),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(found))
}

/// The checkpoints that the log has to fit.
struct Checkpoints {
    /// Whether the server's own is there.
    has_own: bool,
    /// What they say, each with a name to call it by.
    heads: Vec<(String, Head)>,
}

/// Adds to the log's verdict what is wrong with the checkpoints themselves. Whoever has leaves has signed some.
fn judge_checkpoints(checkpoints: &Result<Checkpoints, String>, log: &mut Option<LogVerdict>) {
    let wrong = match checkpoints {
        Err(why) => Some(why.clone()),
        Ok(found) if !found.has_own && log.as_ref().is_some_and(|log| log.size > 0) => {
            Some("its last checkpoint is gone (log.checkpoint_file)".to_owned())
        }
        Ok(_) => None,
    };
    if let Some(wrong) = wrong {
        let log = log.get_or_insert(LogVerdict { size: 0, unlogged: 0, broken: None });
        log.broken.get_or_insert(wrong);
    }
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
