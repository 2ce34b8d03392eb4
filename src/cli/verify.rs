//! `cairn verify`

use std::path::{Path, PathBuf};

use cairn_proof::chain::{AgentKey, Break};
use cairn_proof::tree::Head;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{ConfigArgs, VerifyArgs};
use super::checkpoints;
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print, print_line};
use super::ledger::Reader;
use super::progress::progress_bar;
use super::verify_log::{self, LogVerification};
use crate::audit::verify::{self, LogVerdict, Observer, Summary};
use crate::config::Loaded;

/// What to verify: the arguments, validated.
enum Verification {
    /// The log of a running server, from outside.
    Log(LogVerification),
    /// Chains, by asking a running server.
    Server { client: Client, agent_id: Option<String>, json: bool },
    /// The chain of one agent in the data directory.
    Agent { loaded: Box<Loaded>, agent_id: String, json: bool },
    /// Everything in the data directory.
    All { loaded: Box<Loaded>, checkpoint: Option<PathBuf>, jobs: usize, json: bool },
}

impl Verification {
    fn new(args: VerifyArgs) -> Result<Verification, Failure> {
        let VerifyArgs { agent_id, log, follow, checkpoint, server, connect, json, config, jobs, all: _ } = args;
        if let Some(url) = log {
            let (keys, state, every) = (follow.key, follow.state, follow.every);
            let log = LogVerification { url, connect, keys, state, every, checkpoint, agent_id, json };
            return Ok(Verification::Log(log));
        }
        if follow.is_used() {
            return Err(Failure::usage("--key, --state and --every need --log URL"));
        }
        let loaded = load(&config)?;
        Ok(match (server, agent_id) {
            (Some(url), agent_id) => Verification::Server { client: Client::at(&url, &connect)?, agent_id, json },
            (None, Some(agent_id)) => Verification::Agent { loaded, agent_id, json },
            (None, None) => {
                let cores = || std::thread::available_parallelism().map_or(1, usize::from);
                Verification::All {
                    loaded,
                    checkpoint,
                    jobs: jobs.map_or_else(cores, |jobs| usize::from(jobs.get())),
                    json,
                }
            }
        })
    }
}

fn load(config: &ConfigArgs) -> Result<Box<Loaded>, Failure> {
    config.load().map(Box::new)
}

/// Verifies chains and the log.
pub fn run(args: VerifyArgs) -> CommandResult {
    match Verification::new(args)? {
        Verification::Log(request) => verify_log::run(&request),
        Verification::Server { client, agent_id, json } => on_server(&client, agent_id.as_deref(), json),
        Verification::Agent { loaded, agent_id, json } => one(&loaded, &agent_id, json),
        Verification::All { loaded, checkpoint, jobs, json } => all(&loaded, checkpoint.as_deref(), jobs, json),
    }
}

fn one(loaded: &Loaded, agent_id: &str, json: bool) -> CommandResult {
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
    report(&verdict.to_json(), json)
}

fn exit_of(is_valid: bool) -> Exit {
    if is_valid { Exit::Success } else { Exit::Invalid }
}

/// Prints a verdict as `GET /v1/verify` answers it.
fn report(verdict: &Value, json: bool) -> CommandResult {
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
    print_line(line, exit_of(is_valid))
}

fn all(loaded: &Loaded, checkpoint: Option<&Path>, jobs: usize, json: bool) -> CommandResult {
    // First the checkpoints, then the database: so it has whatever was signed.
    let checkpoints = checkpoints(loaded, checkpoint)?;
    let reader = Reader::open(&loaded.config.storage.data_dir)?;
    let verify = || {
        let mut printer = Printer { bar: progress_bar("events", None), json, lines: Vec::new() };
        let heads = checkpoints.as_ref().map_or(&[][..], |found| &found.heads);
        let summary = verify::all(&reader.store, reader.meta.shards, heads, jobs, &mut printer);
        printer.bar.finish_and_clear();
        let mut summary = summary?;
        judge_checkpoints(&checkpoints, &mut summary.log);
        Ok::<_, Failure>((summary, printer.lines))
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
    lines.extend(describe(summary, is_valid, signed, json));
    print(lines.iter().map(|line| format!("{line}\n")).collect::<String>(), exit_of(is_valid))
}

/// The last lines of the output.
fn describe(summary: Summary, is_valid: bool, signed: usize, json: bool) -> Vec<String> {
    let Summary { agents, events, broken, log } = summary;
    if json {
        let log = log.map(|log| {
            json!({"valid": log.broken.is_none(), "size": log.size, "not_yet_logged": log.unlogged,
                   "checkpoints_verified": signed, "error": log.broken})
        });
        let summary =
            json!({"valid": is_valid, "agents": agents, "events_verified": events, "broken": broken, "log": log});
        return vec![summary.to_string()];
    }
    let verdict = if broken == 0 { "all valid".to_owned() } else { format!("{broken} BROKEN") };
    let mut lines = vec![format!("{agents} agents, {events} events verified: {verdict}")];
    lines.extend(log.map(|log| match log.broken {
        Some(broken) => format!("log: BROKEN: {broken}"),
        None if log.unlogged > 0 => {
            format!("log: {} events, {signed} checkpoints verified: valid; {} not yet in it", log.size, log.unlogged)
        }
        None => format!("log: {} events, {signed} checkpoints verified: valid", log.size),
    }));
    lines
}

/// The last checkpoint that the server signed, and the one that was kept elsewhere; or what is wrong with one of them.
fn checkpoints(loaded: &Loaded, elsewhere: Option<&Path>) -> Result<Result<Checkpoints, String>, Failure> {
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

fn on_server(client: &Client, agent_id: Option<&str>, json: bool) -> CommandResult {
    let verdict = |agent_id: &str| client.get("/v1/verify", &[("agent_id", agent_id)]);
    if let Some(agent_id) = agent_id {
        return report(&verdict(agent_id)?, json);
    }
    let mut exit = Exit::Success;
    for page in client.pages("/v1/agents?limit=1000") {
        for agent in page?.as_array().into_iter().flatten() {
            let agent_id = agent["agent_id"].as_str().unwrap_or_default();
            if report(&verdict(agent_id)?, json)? == Exit::Invalid {
                exit = Exit::Invalid;
            }
        }
    }
    Ok(exit)
}
