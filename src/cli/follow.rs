//! `cairn verify --log`: reads every leaf of a running server's log, from outside.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tlog_tiles::{Hash as Node, check_tree};

use super::args::VerifyArgs;
use super::progress::progress_bar;
use super::server::Server;
use super::{Error, Exit, checkpoints, complain, said};
use crate::chain::{AgentKey, Hash};
use crate::evidence::follow::{LeafReader, Place};
use crate::harmless::harmless;
use crate::http::Causes;
use crate::tlog::checkpoint::{self, Head};
use crate::tlog::keys;
use crate::tlog::path::TilePath;
use crate::tlog::tree::WIDTH;

/// A longer answer is no bundle of 256 leaves.
const BUNDLE_BYTES: u64 = (WIDTH as u64) * (2 + u16::MAX as u64);
/// How many checkpoints are remembered whose leaves could not be read.
const KNOWN: usize = 100;
/// A longer answer is no checkpoint, and no proof.
const SMALL_BYTES: u64 = 1 << 20;

/// Reads the log once, or again and again.
pub fn run(url: &str, args: &VerifyArgs) -> Exit {
    let server = match Server::at(url, &args.door) {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let mut keys = Vec::new();
    for key in &args.follow.key {
        match checkpoints::verifier_keys(key) {
            Ok(found) => keys.extend(found),
            Err(error) => return complain(Exit::Usage, &error),
        }
    }
    let mut follower = match Follower::new(server, keys, args) {
        Ok(follower) => follower,
        Err(error) => return complain(Exit::Failed, &Causes(&*error)),
    };
    loop {
        let exit = match follower.read() {
            Ok(report) => report.print(args.json),
            Err(error) => {
                let failed = complain(Exit::Failed, &harmless(&Causes(&*error).to_string()));
                // What was read of it was not compared with anything signed.
                match follower.go_back() {
                    Ok(()) => failed,
                    Err(error) => return complain(Exit::Failed, &Causes(&*error)),
                }
            }
        };
        // A log that is broken stays so; one that cannot be reached may come back.
        match args.follow.every {
            Some(pause) if exit != Exit::Broken => std::thread::sleep(pause),
            _ => return exit,
        }
    }
}

/// Follows one log.
struct Follower<'a> {
    server: Server,
    keys: Vec<String>,
    /// Where to keep how far it was read.
    place: Option<&'a Path>,
    /// Whose last sequence to tell.
    agent_id: Option<&'a str>,
    reader: LeafReader,
    /// The checkpoint that the reader has read up to.
    last: Option<Head>,
    /// Other checkpoints that the log has to extend, each with a name to call it by: one that was kept elsewhere, and those
    /// that it has shown, but not the leaves.
    known: Vec<(String, Head)>,
}

/// What was found.
struct Report {
    head: Head,
    new: u64,
    agents: usize,
    /// The agent that was asked for, and its last sequence; `None` if its sequences are wrong.
    agent: Option<(String, Option<u64>)>,
    /// How many findings there are, and the first of them.
    broken: u64,
    findings: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(server: Server, keys: Vec<String>, args: &'a VerifyArgs) -> Result<Follower<'a>, Error> {
        let mut known = Vec::new();
        if let Some(path) = &args.checkpoint {
            let named = |error: &dyn std::fmt::Display| format!("--checkpoint {}: {error}", path.display());
            let note = std::fs::read(path).map_err(|error| named(&error))?;
            let (head, _) = checkpoint::open(&note, &keys).map_err(|error| named(&error))?;
            known.push((path.display().to_string(), head));
        }
        let (place, agent_id) = (args.follow.place.as_deref(), args.agent_id.as_deref());
        let mut follower = Follower { server, keys, place, agent_id, reader: LeafReader::default(), last: None, known };
        follower.go_back()?;
        Ok(follower)
    }

    /// Goes to where the last reading ended that was whole.
    fn go_back(&mut self) -> Result<(), Error> {
        self.reader = LeafReader::default();
        if let Some(last) = self.last.take() {
            self.remember("the last reading", last);
        }
        let Some(path) = self.place else { return Ok(()) };
        let named = |error: &dyn std::fmt::Display| format!("--place {}: {error}", path.display());
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(named(&error).into()),
        };
        let place: Place = serde_json::from_slice(&text)
            .map_err(|error| named(&format!("this is no file that --place has written: {error}")))?;
        let (head, _) = checkpoint::open(place.checkpoint.as_bytes(), &self.keys).map_err(|error| named(&error))?;
        self.reader = place.reader(&head).map_err(|error| named(&error))?;
        self.last = Some(head);
        Ok(())
    }

    fn remember(&mut self, name: &str, head: Head) {
        if self.known.len() < KNOWN && self.known.iter().all(|(_, known)| *known != head) {
            self.known.push((name.to_owned(), head));
        }
    }

    /// Reads what is new.
    fn read(&mut self) -> Result<Report, Error> {
        let note = self.server.bytes("/log/checkpoint", SMALL_BYTES)?;
        let before = self.reader.size();
        if let Err(why) = checkpoint::told(&note) {
            return Err(format!("{}/log/checkpoint: {why}", self.server.url()).into());
        }
        let head = match checkpoint::open(&note, &self.keys) {
            Ok((head, _)) => head,
            Err(why) => {
                let head = Head { origin: self.server.url().to_owned(), size: before, root: Node([0; 32]) };
                return Ok(self.report(head, before, Some(format!("its checkpoint: {why}"))));
            }
        };
        if let Some(why) = self.set_back(&head) {
            return Ok(self.report(head, before, Some(why)));
        }
        // From now on it is known, whether the rest of the log can be read or not.
        self.remember("a checkpoint that it has shown", head.clone());
        for (name, known) in &self.known {
            if let Some(why) = self.compare(name, known, &head)? {
                return Ok(self.report(head, before, Some(why)));
            }
        }
        if let Some(why) = self.read_to(&head)? {
            return Ok(self.report(head, before, Some(why)));
        }
        if let Some(path) = self.place {
            let place = Place::of(&self.reader, String::from_utf8_lossy(&note).into_owned());
            let failed = |error| format!("--place {}: {error}", path.display());
            keys::replace(path, serde_json::to_string(&place)?.as_bytes()).map_err(failed)?;
        }
        // It extends all of them.
        self.known.clear();
        self.last = Some(head.clone());
        Ok(self.report(head, before, None))
    }

    /// Reads the leaves up to a checkpoint; says what is wrong with them.
    fn read_to(&mut self, head: &Head) -> Result<Option<String>, Error> {
        let before = self.reader.size();
        let bar = progress_bar("leaves", Some(head.size.saturating_sub(before)));
        while self.reader.size() < head.size {
            let index = self.reader.size() / WIDTH as u64;
            let first = index * WIDTH as u64;
            let width = (head.size - first).min(WIDTH as u64) as usize;
            let path = TilePath { level: None, index, width };
            let bundle = self.server.bytes(&format!("/log/tile/{path}"), BUNDLE_BYTES)?;
            let read_before = (self.reader.size() - first) as usize;
            if let Err(why) = self.reader.bundle(&bundle, width, read_before) {
                return Ok(Some(format!("the leaves from {first} on: {why}")));
            }
            bar.set_position(self.reader.size() - before);
        }
        bar.finish_and_clear();
        Ok(match (self.reader.is_at(head), before) {
            (true, _) => None,
            (false, 0) => Some(format!("its {} leaves are not those that were signed", head.size)),
            (false, before) => Some(format!(
                "its checkpoint of {} events does not extend the {before} events of the last reading, or its leaves are not \
                 those that were signed",
                head.size
            )),
        })
    }

    /// Why a checkpoint is not a later one than those that are known.
    fn set_back(&self, head: &Head) -> Option<String> {
        let last = self.last.iter().map(|last| ("the last reading", last));
        let known = self.known.iter().map(|(name, known)| (name.as_str(), known));
        last.chain(known).find_map(|(name, known)| {
            if known.origin != head.origin {
                return Some(format!("it is the log {:?} now, and was {:?} in {name}", head.origin, known.origin));
            }
            (known.size > head.size).then(|| {
                format!("it was set back: {} events were signed in {name}, and now there are {}", known.size, head.size)
            })
        })
    }

    /// The log has to begin with what a checkpoint signed that is known.
    fn compare(&self, name: &str, known: &Head, head: &Head) -> Result<Option<String>, Error> {
        if known.size == 0 {
            return Ok(None);
        }
        let wrong = || Some(format!("its first {} events are not those that were signed in {name}", known.size));
        if known.size == head.size {
            return Ok(if known.root == head.root { None } else { wrong() });
        }
        let path = format!("/v1/consistency?from={}&to={}", known.size, head.size);
        let answer: Value = serde_json::from_slice(&self.server.bytes(&path, SMALL_BYTES)?)?;
        let hashes = answer["proof"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let proof: Option<Vec<Node>> = hashes.map(|hash| Some(Node(hash.as_str()?.parse::<Hash>().ok()?.0))).collect();
        let checked =
            proof.is_some_and(|proof| check_tree(&proof, head.size, head.root, known.size, known.root).is_ok());
        Ok(if checked { None } else { wrong() })
    }

    fn report(&self, head: Head, before: u64, wrong: Option<String>) -> Report {
        let mut findings: Vec<String> = wrong.into_iter().collect();
        let broken = self.reader.broken.saturating_add(findings.len() as u64);
        findings.extend(self.reader.findings.iter().cloned());
        let agent =
            self.agent_id.map(|agent_id| (agent_id.to_owned(), self.reader.last_sequence(AgentKey::of(agent_id))));
        let new = self.reader.size().saturating_sub(before);
        Report { head, new, agents: self.reader.agents(), agent, broken, findings }
    }
}

impl Report {
    fn print(&self, json: bool) -> Exit {
        let Report { head, new, agents, agent, broken, findings } = self;
        let mut lines = Vec::new();
        if json {
            let report = json!({
                "valid": *broken == 0, "origin": head.origin, "tree_size": head.size, "new_events": new,
                "agents": agents, "broken": broken, "findings": findings,
                "agent_id": agent.as_ref().map(|(agent_id, _)| agent_id),
                "last_sequence": agent.as_ref().and_then(|(_, last)| *last),
            });
            lines.push(report.to_string());
        } else {
            lines.extend(findings.iter().map(|finding| format!("BROKEN: {}", harmless(finding))));
            if *broken > findings.len() as u64 {
                lines.push(format!("BROKEN: and {} more", broken - findings.len() as u64));
            }
            let verdict = match broken {
                0 => "each agent's sequences are 1, 2, 3 ... once each: valid".to_owned(),
                broken => format!("{broken} BROKEN"),
            };
            lines.extend(agent.as_ref().map(|(agent_id, last)| match last {
                Some(last) => format!("agent {agent_id:?}: the last sequence in the log is {last}"),
                None => format!("agent {agent_id:?}: its sequences are wrong"),
            }));
            let origin = harmless(&head.origin);
            lines.push(format!("{origin}: {} events of {agents} agents, {new} of them new: {verdict}", head.size));
        }
        let exit = if *broken == 0 { Exit::Fine } else { Exit::Broken };
        said(lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}")), exit)
    }
}
