//! `cairn verify --log`: reads every leaf of a running server's log, from outside.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tlog_tiles::{Hash as Node, check_tree};

use super::args::FollowArgs;
use super::progress::progress_bar;
use super::server::Server;
use super::{Error, Exit, checkpoints, complain, harmless, said};
use crate::chain::Hash;
use crate::evidence::follow::{LeafReader, Place};
use crate::http::Causes;
use crate::tlog::checkpoint::{self, Head};
use crate::tlog::keys;
use crate::tlog::path::TilePath;
use crate::tlog::tree::WIDTH;

/// A longer answer is no bundle of 256 leaves.
const BUNDLE_BYTES: u64 = (WIDTH as u64) * (2 + u16::MAX as u64);
/// A longer answer is no checkpoint, and no proof.
const SMALL_BYTES: u64 = 1 << 20;

/// Reads the log once, or again and again.
pub fn run(url: &str, args: &FollowArgs, checkpoint: Option<&Path>, api_key_file: Option<&Path>, json: bool) -> Exit {
    let server = match Server::at(url, api_key_file) {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let mut follower = match Follower::new(server, args, checkpoint) {
        Ok(follower) => follower,
        Err(error) => return complain(Exit::Failed, &Causes(&*error)),
    };
    loop {
        let exit = match follower.read() {
            Ok(report) => report.print(json),
            Err(error) => complain(Exit::Failed, &Causes(&*error)),
        };
        // A log that is broken stays so; one that cannot be reached may come back.
        match args.every {
            Some(pause) if exit != Exit::Broken => std::thread::sleep(pause),
            _ => return exit,
        }
    }
}

/// Follows one log.
struct Follower<'a> {
    server: Server,
    keys: Vec<String>,
    /// A checkpoint that the log has to extend, besides those that were read.
    old: Option<(String, Head)>,
    place: Option<&'a Path>,
    reader: LeafReader,
    /// The last checkpoint that was read up to.
    last: Option<Head>,
}

/// What was found.
struct Report {
    head: Head,
    new: u64,
    agents: usize,
    /// How many findings there are, and the first of them.
    broken: u64,
    findings: Vec<String>,
}

impl<'a> Follower<'a> {
    fn new(server: Server, args: &'a FollowArgs, old: Option<&Path>) -> Result<Follower<'a>, Error> {
        let mut keys = Vec::new();
        for key in &args.key {
            keys.extend(checkpoints::verifier_keys(key)?);
        }
        let old = match old {
            Some(path) => {
                let note = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                let (head, _) =
                    checkpoint::open(&note, &keys).map_err(|error| format!("{}: {error}", path.display()))?;
                Some((path.display().to_string(), head))
            }
            None => None,
        };
        let mut follower =
            Follower { server, keys, old, place: args.place.as_deref(), reader: LeafReader::default(), last: None };
        if let Some(path) = follower.place {
            let failed = |error: &dyn std::fmt::Display| format!("--place {}: {error}", path.display());
            match std::fs::read(path) {
                Ok(text) => {
                    let place: Place = serde_json::from_slice(&text).map_err(|error| failed(&error))?;
                    let head = checkpoint::open(place.checkpoint.as_bytes(), &follower.keys);
                    let (head, _) = head.map_err(|error| failed(&error))?;
                    follower.reader = place.reader(&head).map_err(|error| failed(&error))?;
                    follower.last = Some(head);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(&error).into()),
            }
        }
        Ok(follower)
    }

    /// Reads what is new.
    fn read(&mut self) -> Result<Report, Error> {
        let note = self.server.bytes("/log/checkpoint", SMALL_BYTES)?;
        let before = self.reader.size();
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
        let bar = progress_bar("leaves", Some(head.size - before));
        while self.reader.size() < head.size {
            let index = self.reader.size() / WIDTH as u64;
            let first = index * WIDTH as u64;
            let width = (head.size - first).min(WIDTH as u64) as usize;
            let path = TilePath { level: None, index, width };
            let bundle = self.server.bytes(&format!("/log/tile/{path}"), BUNDLE_BYTES)?;
            let read_before = (self.reader.size() - first) as usize;
            if let Err(why) = self.reader.bundle(&bundle, width, read_before) {
                return Ok(self.report(head, before, Some(format!("the leaves from {first} on: {why}"))));
            }
            bar.set_position(self.reader.size() - before);
        }
        bar.finish_and_clear();
        if !self.reader.is_at(&head) {
            let why = format!("its {} leaves are not those that were signed", head.size);
            return Ok(self.report(head, before, Some(why)));
        }
        let wrong = self.compare_with_old(&head)?;
        if wrong.is_none()
            && let Some(path) = self.place
        {
            let place = Place::of(&self.reader, String::from_utf8_lossy(&note).into_owned());
            let failed = |error| format!("--place {}: {error}", path.display());
            keys::replace(path, serde_json::to_string(&place)?.as_bytes()).map_err(failed)?;
        }
        self.last = Some(head.clone());
        Ok(self.report(head, before, wrong))
    }

    /// Why a checkpoint is not a later one than those that are known.
    fn set_back(&self, head: &Head) -> Option<String> {
        let old = self.old.as_ref().map(|(name, old)| (name.as_str(), old));
        let known = self.last.as_ref().map(|last| ("the last reading", last)).into_iter().chain(old);
        known.into_iter().find_map(|(name, known)| {
            if known.origin != head.origin {
                return Some(format!("it is the log {:?} now, and was {:?} in {name}", head.origin, known.origin));
            }
            (known.size > head.size).then(|| {
                format!("it was set back: {} events were signed in {name}, and now there are {}", known.size, head.size)
            })
        })
    }

    /// The log has to begin with what the old checkpoint signed.
    fn compare_with_old(&self, head: &Head) -> Result<Option<String>, Error> {
        let Some((name, old)) = self.old.as_ref().filter(|(_, old)| old.size > 0) else { return Ok(None) };
        let wrong = || Some(format!("its first {} events are not those that were signed in {name}", old.size));
        if old.size == head.size {
            return Ok(if old.root == head.root { None } else { wrong() });
        }
        let path = format!("/v1/consistency?from={}&to={}", old.size, head.size);
        let answer: Value = serde_json::from_slice(&self.server.bytes(&path, SMALL_BYTES)?)?;
        let hashes = answer["proof"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
        let proof: Option<Vec<Node>> = hashes.map(|hash| Some(Node(hash.as_str()?.parse::<Hash>().ok()?.0))).collect();
        let checked = proof.is_some_and(|proof| check_tree(&proof, head.size, head.root, old.size, old.root).is_ok());
        Ok(if checked { None } else { wrong() })
    }

    fn report(&self, head: Head, before: u64, wrong: Option<String>) -> Report {
        let mut findings: Vec<String> = wrong.into_iter().collect();
        let broken = self.reader.broken + findings.len() as u64;
        findings.extend(self.reader.findings.iter().cloned());
        Report { head, new: self.reader.size() - before, agents: self.reader.agents(), broken, findings }
    }
}

impl Report {
    fn print(&self, json: bool) -> Exit {
        let Report { head, new, agents, broken, findings } = self;
        let mut lines = Vec::new();
        if json {
            let report = json!({
                "valid": *broken == 0, "origin": head.origin, "tree_size": head.size, "new_events": new,
                "agents": agents, "broken": broken, "findings": findings,
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
            let origin = harmless(&head.origin);
            lines.push(format!("{origin}: {} events of {agents} agents, {new} of them new: {verdict}", head.size));
        }
        let exit = if *broken == 0 { Exit::Fine } else { Exit::Broken };
        said(lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}")), exit)
    }
}
