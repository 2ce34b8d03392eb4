//! `cairn hold`: keeps events from erasure through a running server.

use serde_json::{Value, json};

use super::args::{HoldAction, HoldArgs, HoldListArgs};
use super::client::Client;
use super::erase::selection;
use super::exit::{CommandResult, Exit, Failure, print, print_line};
use crate::auth::Scopes;
use crate::text::sanitize;

/// Adds, lifts and lists holds.
pub fn run(action: &HoldAction) -> CommandResult {
    match action {
        HoldAction::Add(args) => add(args),
        HoldAction::Lift(args) => lift(args),
        HoldAction::List(args) => list(args),
    }
}

fn add(args: &HoldArgs) -> CommandResult {
    let mut body = selection(&args.select)?;
    body.insert("reason".to_owned(), json!(args.reason));
    let client = Client::with_scopes(&args.server, Scopes::ERASE)?;
    let hold = client.post_json("/v1/holds", &body.into())?;
    print_line(format_args!("hold {} added", id_of(&hold)), Exit::Success)
}

fn lift(args: &HoldArgs) -> CommandResult {
    let wanted = Value::from(selection(&args.select)?);
    // Listing needs the scope read, and lifting the scope erase.
    let client = Client::with_scopes(&args.server, Scopes::ERASE_AND_READ)?;
    let holds = client.get("/v1/holds", &[])?;
    let is_same = |hold: &&Value| hold["selection"] == wanted;
    let found: Vec<&Value> = holds.as_array().into_iter().flatten().filter(is_same).collect();
    if found.is_empty() {
        return Err(Failure::from("there is no hold with these conditions: `cairn hold list` lists all"));
    }
    for hold in found {
        let path = Client::path(&format!("/v1/holds/{}", id_of(hold)), &[("reason", &args.reason)])?;
        client.delete(&path)?;
        print_line(format_args!("hold {} lifted", id_of(hold)), Exit::Success)?;
    }
    Ok(Exit::Success)
}

fn list(args: &HoldListArgs) -> CommandResult {
    let holds = Client::with_scopes(&args.server, Scopes::READ)?.get("/v1/holds", &[])?;
    if args.json {
        return print_line(holds, Exit::Success);
    }
    let text = |value: &Value| sanitize(value.as_str().unwrap_or("-"));
    let lines = holds.as_array().into_iter().flatten().map(|hold| {
        let selection = hold["selection"].to_string();
        format!("{}  {}  {}  {}\n", id_of(hold), text(&hold["added_at"]), sanitize(&selection), text(&hold["reason"]))
    });
    print(lines.collect::<String>(), Exit::Success)
}

fn id_of(hold: &Value) -> &str {
    hold["id"].as_str().unwrap_or_default()
}
