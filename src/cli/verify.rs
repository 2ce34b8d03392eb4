//! `cairn verify`: verifies chains and the log, in a data directory or on a running server. `docs/verification.md`
//! specifies the checks.

use std::path::{Path, PathBuf};

use cairn_proof::chain::{AgentKey, Break, Sequence};
use cairn_proof::evidence::RecorderReport;
use cairn_proof::tree::Head;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::args::{LedgerArgs, VerifyArgs};
use super::checkpoints;
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print, print_line};
use super::export::parse_time;
use super::ledger::Reader;
use super::progress::progress_bar;
use super::verify_log::{self, LogVerification};
use crate::audit::verify::{self, LogVerdict, Observer, RowFault, Summary};
use crate::config::Loaded;
use crate::recorder;
use crate::text::plural;

/// What to verify: the validated arguments.
enum Verification {
    /// The log of a running server, read over HTTP.
    Log(LogVerification),
    /// Chains, verified by a running server.
    Server { client: Client, agent_id: Option<String>, json: bool },
    /// The index, in the data directory or of a running server.
    Index { loaded: Box<Loaded>, server: Option<Client>, json: bool },
    /// The chain of one agent in the data directory.
    Agent { loaded: Box<Loaded>, agent_id: String, json: bool },
    /// Everything in the data directory.
    All { loaded: Box<Loaded>, checkpoint: Option<PathBuf>, jobs: usize, period: Period, json: bool },
}

impl Verification {
    fn new(args: VerifyArgs) -> Result<Verification, Failure> {
        let VerifyArgs {
            package,
            agent_id,
            index,
            log,
            follow,
            checkpoint,
            server,
            connect,
            json,
            ledger,
            jobs,
            since,
            until,
            all: _,
        } = args;
        if let Some(file) = package {
            let file = file.display();
            return Err(Failure::usage(format!(
                "to verify the chain of an agent, run: cairn verify --agent-id {file}; to verify an evidence package: \
                 cairn verify-export {file} --key KEY"
            )));
        }
        if let Some(url) = log {
            let (keys, state, every) = (follow.key, follow.state, follow.every);
            let log = LogVerification { url, connect, keys, state, every, checkpoint, agent_id, json };
            return Ok(Verification::Log(log));
        }
        if follow.is_used() {
            return Err(Failure::usage("--key, --state and --every require --log URL"));
        }
        let loaded = load(&ledger)?;
        if index {
            let server = server.map(|url| Client::at(&url, &connect)).transpose()?;
            return Ok(Verification::Index { loaded, server, json });
        }
        Ok(match (server, agent_id) {
            (Some(url), agent_id) => Verification::Server { client: Client::at(&url, &connect)?, agent_id, json },
            (None, Some(agent_id)) => Verification::Agent { loaded, agent_id, json },
            (None, None) => {
                let cores = || std::thread::available_parallelism().map_or(1, usize::from);
                Verification::All {
                    loaded,
                    checkpoint,
                    period: (parse_time("--since", since.as_deref())?, parse_time("--until", until.as_deref())?),
                    jobs: jobs.map_or_else(cores, |jobs| usize::from(jobs.get())),
                    json,
                }
            }
        })
    }
}

fn load(ledger: &LedgerArgs) -> Result<Box<Loaded>, Failure> {
    ledger.load().map(Box::new)
}

/// Verifies chains and the log.
pub fn run(args: VerifyArgs) -> CommandResult {
    match Verification::new(args)? {
        Verification::Log(request) => verify_log::run(&request),
        Verification::Server { client, agent_id, json } => verify_on_server(&client, agent_id.as_deref(), json),
        Verification::Index { loaded, server, json } => verify_index(&loaded, server.as_ref(), json),
        Verification::Agent { loaded, agent_id, json } => verify_agent(&loaded, &agent_id, json),
        Verification::All { loaded, checkpoint, jobs, period, json } => {
            verify_all(&loaded, checkpoint.as_deref(), jobs, period, json)
        }
    }
}

fn verify_agent(loaded: &Loaded, agent_id: &str, json: bool) -> CommandResult {
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
        reader.refresh()?;
        verdict = verify()?;
    }
    let verdict = verdict.ok_or_else(|| format!("there is no agent {agent_id:?}"))?;
    report(&verdict.to_json(), json)
}

/// Verifies the index, as far as it is on disk or, on a server, completely.
fn verify_index(loaded: &Loaded, server: Option<&Client>, json: bool) -> CommandResult {
    let verdict = match server {
        Some(client) => client.get("/v1/verify", &[("index", "true")])?,
        None => {
            let reader = Reader::open(&loaded.config.storage.data_dir)?;
            let bar = progress_bar("events", None);
            let verdict = verify::index(&reader.store, reader.meta.shards, |events| {
                bar.inc(events);
                true
            });
            bar.finish_and_clear();
            verdict?.to_json()
        }
    };
    let is_valid = verdict["valid"] == json!(true);
    let rows = verdict["rows"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let mut lines: Vec<String> = match json {
        true => vec![verdict.to_string()],
        false => {
            rows.iter().map(|row| format!("index: row {} is {}", text(&row["row"]), text(&row["error"]))).collect()
        }
    };
    if !json {
        let (events, wrong) = (&verdict["events_indexed"], &verdict["wrong_rows"]);
        let verdict = if is_valid { "valid".to_owned() } else { format!("{} WRONG", plural(wrong, "row")) };
        let on_disk = if server.is_some() { "" } else { " on disk" };
        lines.push(format!("index of {}{on_disk}: {verdict}", plural(events, "event")));
    }
    print(lines.iter().map(|line| format!("{line}\n")).collect::<String>(), exit_of(is_valid))
}

fn exit_of(is_valid: bool) -> Exit {
    if is_valid { Exit::Success } else { Exit::Invalid }
}

/// Prints a verdict, which has the form of the response of `GET /v1/verify`.
fn report(verdict: &Value, json: bool) -> CommandResult {
    let is_valid = verdict["valid"] == json!(true);
    let agent = verdict["agent_id"].as_str().unwrap_or("?");
    let line = if json {
        verdict.to_string()
    } else if is_valid {
        let head = verdict["head_hash"].as_str().unwrap_or("?");
        let events = plural(&verdict["events_verified"], "event");
        match verdict["events_dropped"].as_u64() {
            Some(dropped) => format!("{agent}: valid, {events} after {dropped} that retention dropped, head {head}"),
            None => format!("{agent}: valid, {events}, head {head}"),
        }
    } else {
        format!("{agent}: BROKEN: {}", verdict["error"].as_str().unwrap_or("?"))
    };
    print_line(line, exit_of(is_valid))
}

/// A period: times of receipt in ms since 1970, the first inclusive, the last exclusive.
type Period = (Option<u64>, Option<u64>);

/// What the recorder says about a period.
fn recorded(reader: &Reader, (since, until): Period) -> Result<RecorderReport, Failure> {
    let (mut report, mut before, mut is_after) = (RecorderReport::default(), None, false);
    recorder::read(&reader.store, reader.meta.instance, Sequence(1), |_, record| {
        let ms = record.received_ms().unwrap_or(0);
        if since.is_some_and(|since| ms < since) {
            before = Some(record.canonical().to_vec());
        } else if !is_after {
            is_after = until.is_some_and(|until| ms >= until);
            // One event before the period and one after it show whether the server was up at its ends.
            if !is_after || report.events > 0 {
                before.take().into_iter().for_each(|before: Vec<u8>| report.add(&before));
                report.add(record.canonical());
            }
        }
        Ok(())
    })?;
    Ok(report)
}

fn verify_all(loaded: &Loaded, checkpoint: Option<&Path>, jobs: usize, period: Period, json: bool) -> CommandResult {
    // The checkpoints are read before the database, so that the database contains everything they sign.
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
    let has_no_breaks = |summary: &Summary| {
        let is_log_broken = summary.log.as_ref().is_some_and(|log| log.error().is_some());
        summary.broken == 0 && summary.wrong_rows == 0 && !is_log_broken
    };
    let (mut summary, mut lines) = verify()?;
    if !has_no_breaks(&summary) {
        reader.refresh()?;
        (summary, lines) = verify()?;
    }
    let is_valid = has_no_breaks(&summary);
    let checkpoint_count = checkpoints.map_or(0, |found| found.heads.len());
    // A chain that cannot be read is broken, and reported as such.
    let recorded = recorded(&reader, period).ok().filter(|report| report.events > 0);
    lines.extend(describe(summary, is_valid, checkpoint_count, recorded.as_ref(), json));
    print(lines.iter().map(|line| format!("{line}\n")).collect::<String>(), exit_of(is_valid))
}

/// The last lines of the output.
fn describe(
    summary: Summary,
    is_valid: bool,
    checkpoints: usize,
    recorded: Option<&RecorderReport>,
    json: bool,
) -> Vec<String> {
    let Summary { agents, events, dropped, broken, wrong_rows, log, is_erasing, events_whole: _ } = summary;
    if json {
        let log = log.map(|log| {
            json!({"valid": log.error().is_none(), "size": log.size, "not_yet_logged": log.unlogged,
                   "checkpoints_verified": checkpoints, "error": log.error()})
        });
        let summary = json!({"valid": is_valid, "agents": agents, "events_verified": events,
                   "events_dropped": dropped, "broken": broken, "wrong_rows": wrong_rows, "log": log, "recorder": recorded.map(RecorderReport::to_json)});
        return vec![summary.to_string()];
    }
    let verdict = if broken == 0 { "all valid".to_owned() } else { format!("{broken} BROKEN") };
    let mut lines = vec![format!("{}, {} verified: {verdict}", plural(agents, "agent"), plural(events, "event"))];
    if dropped > 0 {
        lines.push(format!("{} before them dropped by retention", plural(dropped, "event")));
    }
    if wrong_rows > 0 {
        lines.push(format!(
            "{} not what the events give: `cairn repair --dry-run` shows what can be repaired",
            if wrong_rows == 1 { "1 row is".to_owned() } else { format!("{wrong_rows} rows are") }
        ));
    }
    lines.extend(log.map(|log| match log.error() {
        Some(broken) => format!("log: BROKEN: {broken}"),
        None => {
            let not_yet = (log.unlogged > 0).then(|| format!("; {} not yet in the log", log.unlogged));
            let (size, checkpoints) = (plural(log.size, "event"), plural(checkpoints, "checkpoint"));
            format!("log: {size}, {checkpoints} verified: valid{}", not_yet.unwrap_or_default())
        }
    }));
    if is_erasing {
        lines.push(
            "an erasure is not completed: a running server completes it, and the index is verified after that"
                .to_owned(),
        );
    }
    lines.extend(recorded.map(|report| format!("recorder: {report}")));
    lines
}

/// Reads the last checkpoint that the server signed and the one in the file `external`. The inner error says why one of
/// them is invalid.
fn checkpoints(loaded: &Loaded, external: Option<&Path>) -> Result<Result<Checkpoints, String>, Failure> {
    let (config, data_dir) = (loaded.config.log.tree(), &loaded.config.storage.data_dir);
    let own_name = config.checkpoint_path(data_dir).display().to_string();
    let own = match checkpoints::own(&config, data_dir)? {
        Ok(own) => own,
        Err(why) => return Ok(Err(why)),
    };
    let mut found =
        Checkpoints { has_own: own.is_some(), heads: own.map(|own| (own_name, own.head)).into_iter().collect() };
    if let Some(path) = external {
        match checkpoints::external(&config, data_dir, path)? {
            Ok(checkpoint) => found.heads.push((path.display().to_string(), checkpoint.head)),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(found))
}

/// The checkpoints with which the log must agree.
struct Checkpoints {
    /// Whether the last checkpoint of the server exists.
    has_own: bool,
    /// The signed trees, each with the name of its file for messages.
    heads: Vec<(String, Head)>,
}

/// Adds problems with the checkpoints to the verdict of the log. A log with leaves must have a last checkpoint.
fn judge_checkpoints(checkpoints: &Result<Checkpoints, String>, log: &mut Option<LogVerdict>) {
    let problem = match checkpoints {
        Err(why) => Some(why.clone()),
        Ok(found) if !found.has_own && log.as_ref().is_some_and(|log| log.size > 0) => {
            Some("its last checkpoint is missing (log.checkpoint_file)".to_owned())
        }
        Ok(_) => None,
    };
    if let Some(problem) = problem {
        let log = log.get_or_insert(LogVerdict { size: 0, unlogged: 0, broken: None, wrong_rows: 0 });
        log.broken.get_or_insert(problem);
    }
}

/// Shows progress, and collects the lines about breaks.
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

    fn row(&mut self, fault: &RowFault) {
        self.lines.push(describe_row(fault, self.json));
    }
}

/// The line about a row that differs from what the events give.
fn describe_row(fault: &RowFault, json: bool) -> String {
    if json { fault.to_json().to_string() } else { fault.to_string() }
}

fn verify_on_server(client: &Client, agent_id: Option<&str>, json: bool) -> CommandResult {
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
