//! `cairn relay status`

use std::io::{self, Write};

use serde_json::Value;

use super::args::{RelayAction, StatusArgs};
use super::server::Server;
use super::{Error, Exit, complain, said};
use crate::harmless::harmless;
use crate::http::Causes;

/// Shows how far the relay is.
pub fn run(action: &RelayAction) -> Exit {
    let RelayAction::Status(args) = action;
    let server = match Server::of(&args.server) {
        Ok(server) => server,
        Err(exit) => return exit,
    };
    status(&server, args).unwrap_or_else(|error| complain(Exit::Failed, &Causes(&*error)))
}

fn status(server: &Server, args: &StatusArgs) -> Result<Exit, Error> {
    let answer = server.get("/v1/relay", &[])?;
    let text = if args.json {
        format!("{answer}\n")
    } else {
        let destinations = answer["destinations"].as_array().map(Vec::as_slice).unwrap_or_default();
        match destinations {
            [] => "no destination: set relay.agnost.org_id, or relay.destinations\n".to_owned(),
            all => all.iter().map(describe).collect::<Vec<_>>().join("\n"),
        }
    };
    Ok(said(io::stdout().write_all(text.as_bytes()), Exit::Fine))
}

fn describe(destination: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), harmless);
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
