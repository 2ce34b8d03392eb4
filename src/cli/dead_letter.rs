//! `cairn dead-letter`: lists, shows, retries and drops dead letters of a running server.

use std::io::{self, Write};

use serde_json::Value;
use uuid::Uuid;

use super::args::{DeadLetterAction, DestinationArgs, MoveArgs};
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print_line};
use crate::text::sanitize;

/// The server, and the path of the dead letters of a destination.
struct Request {
    client: Client,
    path: String,
}

/// The dead letters to which a command applies.
enum Selection {
    All,
    Events(Vec<Uuid>),
}

impl From<MoveArgs> for Selection {
    fn from(args: MoveArgs) -> Selection {
        if args.all { Selection::All } else { Selection::Events(args.events) }
    }
}

/// Lists, shows, retries and drops events that an upstream refused permanently.
pub fn run(action: DeadLetterAction) -> CommandResult {
    match action {
        DeadLetterAction::List(args) => list(&Request::new(&args.destination)?, args.json),
        DeadLetterAction::Show(args) => show(&Request::new(&args.destination)?, args.event),
        DeadLetterAction::Retry(args) => {
            let request = Request::new(&args.destination)?;
            move_selected(&args.into(), &request.path, |path| request.client.post(&format!("{path}/retry")), "retried")
        }
        DeadLetterAction::Drop(args) => {
            let request = Request::new(&args.destination)?;
            move_selected(&args.into(), &request.path, |path| request.client.delete(path), "dropped")
        }
    }
}

impl Request {
    /// Uses the destination that the arguments name, or the only one of the server.
    fn new(args: &DestinationArgs) -> Result<Request, Failure> {
        let client = Client::of(&args.server)?;
        let name = match &args.destination {
            Some(name) => name.clone(),
            None => only_destination(&client)?,
        };
        Ok(Request { client, path: format!("/v1/relay/{name}/dead-letters") })
    }
}

fn only_destination(client: &Client) -> Result<String, Failure> {
    let relay = client.get("/v1/relay", &[])?;
    let destinations = relay["destinations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names: Vec<&str> = destinations.iter().filter_map(|destination| destination["name"].as_str()).collect();
    match names[..] {
        [name] => Ok(name.to_owned()),
        [] => Err("the server has no relay destination".into()),
        _ => Err(Failure::usage(format!("--destination is required; the destinations are {}", names.join(", ")))),
    }
}

fn show(request: &Request, event: Uuid) -> CommandResult {
    let letter = request.client.get(&format!("{}/{event}", request.path), &[])?;
    print_line(serde_json::to_string_pretty(&letter)?, Exit::Success)
}

fn list(request: &Request, json: bool) -> CommandResult {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for page in request.client.pages(&format!("{}?limit=1000", request.path)) {
        for letter in page?.as_array().into_iter().flatten() {
            let line = if json { letter.to_string() } else { describe(letter) };
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(Exit::Success)
}

fn describe(letter: &Value) -> String {
    let text = |name: &str| sanitize(letter[name].as_str().unwrap_or("-"));
    let (refused, status) = (text("refused"), &letter["status"]);
    format!(
        "{}  {}  {}  {refused}  {status}  {}",
        text("event_id"),
        text("refused_at"),
        text("agent_id"),
        text("answer")
    )
}

/// Moves the selected dead letters with `send` and prints their number. `done` is the member of the response with the
/// number.
fn move_selected(
    selection: &Selection,
    path: &str,
    send: impl Fn(&str) -> Result<Value, Failure>,
    done: &str,
) -> CommandResult {
    let (count, exit) = match selection {
        Selection::All => (move_all(path, send, done)?, Exit::Success),
        Selection::Events(events) => move_each(events, path, send, done),
    };
    let noun = if count == 1 { "dead letter" } else { "dead letters" };
    print_line(format_args!("{count} {noun} {done}"), exit)
}

/// Repeats the call until all present dead letters are moved, because the server moves a bounded number per call.
fn move_all(path: &str, send: impl Fn(&str) -> Result<Value, Failure>, done: &str) -> Result<u64, Failure> {
    let (mut count, mut total) = (0, None);
    loop {
        let answer = send(path)?;
        let number = |name: &str| answer[name].as_u64().unwrap_or_default();
        count += number(done);
        // The total of the first response is the bound, so that dead letters that return meanwhile are not moved again.
        let total = *total.get_or_insert(number(done) + number("left"));
        if number(done) == 0 || count >= total {
            return Ok(count);
        }
    }
}

/// Moves single dead letters; one that does not exist does not stop the others.
fn move_each(events: &[Uuid], path: &str, send: impl Fn(&str) -> Result<Value, Failure>, done: &str) -> (u64, Exit) {
    let (mut count, mut exit) = (0, Exit::Success);
    for event in events {
        match send(&format!("{path}/{event}")) {
            Ok(answer) => count += answer[done].as_u64().unwrap_or_default(),
            Err(failure) => exit = failure.report(),
        }
    }
    (count, exit)
}
