//! `cairn relay status`: prints the state of every destination of a running server.

use serde_json::Value;

use super::args::RelayAction;
use super::client::Client;
use super::exit::{CommandResult, Exit, print, print_line};
use crate::text::sanitize;

/// Prints the state of every destination.
pub fn run(action: &RelayAction) -> CommandResult {
    let RelayAction::Status(args) = action;
    let answer = Client::of(&args.server)?.get("/v1/relay", &[])?;
    if args.json {
        return print_line(answer, Exit::Success);
    }
    let destinations = answer["destinations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = match destinations {
        [] => "no destination: set relay.agnost.org_id or relay.destinations\n".to_owned(),
        all => all.iter().map(describe).collect::<Vec<_>>().join("\n"),
    };
    print(text, Exit::Success)
}

fn describe(destination: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), sanitize);
    let or_none = |value: &Value| if value.is_null() { "none".to_owned() } else { text(value) };
    let error = &destination["last_error"];
    let error = if error.is_null() {
        "none".to_owned()
    } else {
        format!("{}  {}", text(&error["at"]), text(&error["message"]))
    };
    let lines = [
        ("circuit", text(&destination["circuit"])),
        ("sent", text(&destination["sent"])),
        ("backlog", text(&destination["backlog"])),
        ("in flight", text(&destination["in_flight"])),
        ("oldest unsent", or_none(&destination["oldest_unsent"])),
        ("next try", or_none(&destination["next_try"])),
        ("dead letters", text(&destination["dead_letters"])),
        ("last sent", or_none(&destination["last_sent"])),
        ("last error", error),
    ];
    let head = [&destination["name"], &destination["type"], &destination["endpoint"]].map(text).join("  ");
    lines.iter().fold(head + "\n", |all, (name, value)| all + &format!("  {name:<15}{value}\n"))
}
