//! `cairn erase`: erases the content of events through a running server. `docs/erasure.md` describes it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::args::{EraseArgs, SelectArgs};
use super::client::Client;
use super::exit::{CommandResult, Exit, Failure, print, print_line};
use crate::auth::Scopes;
use crate::text::{plural, sanitize};

/// Erases events, counts them, or lists erasures.
pub fn run(args: &EraseArgs) -> CommandResult {
    if args.list {
        return list(&Client::with_scopes(&args.server, Scopes::READ)?, args.json);
    }
    let client = Client::with_scopes(&args.server, Scopes::ERASE)?;
    if let Some(path) = &args.replay {
        return replay(&client, path, args);
    }
    let mut body = selection(&args.select)?;
    body.extend(args.since.as_ref().map(|since| ("since".to_owned(), json!(since))));
    body.extend(args.until.as_ref().map(|until| ("until".to_owned(), json!(until))));
    let answer = erase(&client, body, args)?;
    print_line(if args.json { answer.to_string() } else { describe(&answer) }, exit_of(&answer))
}

/// The conditions as a request has them.
pub fn selection(args: &SelectArgs) -> Result<Map<String, Value>, Failure> {
    let mut selection = Map::new();
    let texts = [("session_id", &args.session), ("agent_id", &args.agent_id)];
    selection.extend(args.id.map(|id| ("id".to_owned(), json!(id))));
    selection.extend(texts.iter().filter_map(|(name, text)| Some(((*name).to_owned(), json!(text.as_ref()?)))));
    if !args.label.is_empty() {
        let labels: Map<String, Value> = args.label.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        selection.insert("labels".to_owned(), labels.into());
    }
    match selection.is_empty() {
        true => Err(Failure::usage("at least one of --id, --session, --agent-id and --label is required")),
        false => Ok(selection),
    }
}

fn erase(client: &Client, mut body: Map<String, Value>, args: &EraseArgs) -> Result<Value, Failure> {
    body.extend(args.reason.as_ref().map(|reason| ("reason".to_owned(), json!(reason))));
    body.insert("dry_run".to_owned(), json!(args.dry_run));
    client.post_json("/v1/erasures", &body.into())
}

/// An erasure that is recorded and not completed yet is no failure, but not a success either.
fn exit_of(answer: &Value) -> Exit {
    if answer["completed"] == false { Exit::Failed } else { Exit::Success }
}

fn describe(answer: &Value) -> String {
    let count = |name: &str| answer[name].as_u64().unwrap_or(0);
    let events = plural(count("events"), "event");
    let mut text = match (answer["dry_run"] == true, answer["completed"] == false) {
        (true, _) => format!("{events} would be erased"),
        (false, true) => format!("{events} recorded as erased; the server completes this in the background"),
        (false, false) => format!("{events} erased"),
    };
    for (name, what) in [("held", "kept by a hold"), ("already_erased", "erased before")] {
        if count(name) > 0 {
            text += &format!(", {} {what}", count(name));
        }
    }
    text
}

fn list(client: &Client, json: bool) -> CommandResult {
    let mut erasures = Vec::new();
    for page in client.pages("/v1/erasures?limit=1000") {
        if let Value::Array(page) = page? {
            erasures.extend(page);
        }
    }
    if json {
        return print_line(Value::from(erasures), Exit::Success);
    }
    let text = |value: &Value| sanitize(value.as_str().unwrap_or("-"));
    let lines = erasures.iter().map(|erasure| {
        let events = plural(erasure["events"].as_u64().unwrap_or(0), "event");
        let state = if erasure["completed"] == true { "" } else { " (not completed)" };
        let (at, key, reason) = (text(&erasure["at"]), text(&erasure["key"]), text(&erasure["reason"]));
        format!("{at}  {events}{state}  key {key}  {reason}\n")
    });
    print(lines.collect::<String>(), Exit::Success)
}

/// Erases what the erasures in a file erased, in a ledger that was restored from a backup from before. Events that were received
/// after an erasure are others, which got the same sequences since.
fn replay(client: &Client, path: &Path, args: &EraseArgs) -> CommandResult {
    let named = |error: &dyn std::fmt::Display| Failure::usage(format!("--replay {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    let erasures: Vec<Value> = serde_json::from_str(&text).map_err(|error| named(&error))?;
    let (mut events, mut held, mut exit) = (0, 0, Exit::Success);
    for erasure in &erasures {
        let mut body = Map::new();
        body.insert("agents".to_owned(), erasure["agents"].clone());
        body.insert("until".to_owned(), erasure["at"].clone());
        body.insert("reason".to_owned(), erasure["reason"].clone());
        let answer = match erase(client, body, args) {
            Ok(answer) => answer,
            Err(failure) => {
                // The other erasures are replayed nevertheless.
                eprintln!("cairn: the erasure of {} was not replayed", sanitize(&erasure["at"].to_string()));
                exit = failure.report();
                continue;
            }
        };
        events += answer["events"].as_u64().unwrap_or(0);
        held += answer["held"].as_u64().unwrap_or(0);
        if answer["completed"] == false {
            exit = Exit::Failed;
        }
    }
    let (events, erasures) = (plural(events, "event"), plural(erasures.len() as u64, "erasure"));
    let what = if args.dry_run { "would be erased" } else { "erased" };
    let held = if held > 0 { format!(", {held} kept by a hold") } else { String::new() };
    print_line(format_args!("{events} of {erasures} {what}{held}"), exit)
}
