//! `cairn dead-letter`

use std::io::{self, Write};

use serde_json::Value;

use super::args::{DeadLetterAction, DestinationArgs, MoveArgs};
use super::server::Server;
use super::{Error, Exit, complain, said};
use crate::harmless::harmless;
use crate::http::Causes;

/// Looks after events that an upstream refused for good.
pub fn run(action: &DeadLetterAction) -> Exit {
    let destination = match action {
        DeadLetterAction::List(args) => &args.destination,
        DeadLetterAction::Show(args) => &args.destination,
        DeadLetterAction::Retry(args) | DeadLetterAction::Drop(args) => &args.destination,
    };
    let server = match Server::of(&destination.server) {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    let path = match letters_path(&server, destination) {
        Ok(path) => path,
        Err(exit) => return exit,
    };
    let done = match action {
        DeadLetterAction::List(args) => list(&server, &path, args.json),
        DeadLetterAction::Show(args) => show(&server, &format!("{path}/{}", args.event)),
        DeadLetterAction::Retry(args) => each(args, &path, |path| server.post(&format!("{path}/retry")), "retried"),
        DeadLetterAction::Drop(args) => each(args, &path, |path| server.delete(path), "dropped"),
    };
    done.unwrap_or_else(|error| complain(Exit::Failed, &Causes(&*error)))
}

/// Where the dead letters of the destination are that was named, or that is the only one; or how it ends, once that was
/// said.
fn letters_path(server: &Server, args: &DestinationArgs) -> Result<String, Exit> {
    if let Some(name) = &args.destination {
        return Ok(format!("/v1/relay/{name}/dead-letters"));
    }
    let relay = server.get("/v1/relay", &[]).map_err(|error| complain(Exit::Failed, &Causes(&*error)))?;
    let destinations = relay["destinations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = destinations.iter().filter_map(|destination| destination["name"].as_str()).collect();
    match names[..] {
        [name] => Ok(format!("/v1/relay/{name}/dead-letters")),
        [] => Err(complain(Exit::Failed, &"the server relays to no destination")),
        _ => Err(complain(Exit::Usage, &format!("--destination is needed; there are {}", names.join(", ")))),
    }
}

fn show(server: &Server, path: &str) -> Result<Exit, Error> {
    let text = serde_json::to_string_pretty(&server.get(path, &[])?)?;
    Ok(said(writeln!(io::stdout(), "{text}"), Exit::Fine))
}

fn list(server: &Server, path: &str, json: bool) -> Result<Exit, Error> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for page in server.pages(&format!("{path}?limit=1000")) {
        for letter in page?.as_array().into_iter().flatten() {
            let line = if json { letter.to_string() } else { describe(letter) };
            if let Err(error) = writeln!(out, "{line}") {
                return Ok(said(Err(error), Exit::Fine));
            }
        }
    }
    Ok(said(out.flush(), Exit::Fine))
}

fn describe(letter: &Value) -> String {
    let text = |name: &str| harmless(letter[name].as_str().unwrap_or("-"));
    let (refused, status) = (text("refused"), &letter["status"]);
    format!(
        "{}  {}  {}  {refused}  {status}  {}",
        text("event_id"),
        text("refused_at"),
        text("agent_id"),
        text("answer")
    )
}

fn each(args: &MoveArgs, path: &str, send: impl Fn(&str) -> Result<Value, Error>, done: &str) -> Result<Exit, Error> {
    let mut count = 0;
    let mut left = u64::from(args.all);
    let mut all = None;
    while left > 0 {
        let answer = send(path)?;
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        count += number(done);
        // Those that come back while we ask are not sent yet again.
        left = all.get_or_insert(number(done) + number("left")).saturating_sub(count);
        if number(done) == 0 {
            break;
        }
    }
    let mut exit = Exit::Fine;
    for event in &args.events {
        // One that is none keeps the others from nothing.
        match send(&format!("{path}/{event}")) {
            Ok(answer) => count += answer[done].as_u64().unwrap_or_default(),
            Err(error) => exit = complain(Exit::Failed, &Causes(&*error)),
        }
    }
    let noun = if count == 1 { "dead letter" } else { "dead letters" };
    Ok(said(writeln!(io::stdout(), "{count} {noun} {done}"), exit))
}
