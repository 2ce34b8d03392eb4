//! `cairn config`

use std::io::{self, Write};

use super::args::{ConfigAction, ConfigCommand};
use super::{Exit, said};

/// Checks or prints the configuration.
pub fn run(args: &ConfigCommand) -> Exit {
    let (config, prints) = match &args.action {
        ConfigAction::Validate(config) => (config, false),
        ConfigAction::Print(config) => (config, true),
    };
    let text = match config.load() {
        Ok(loaded) if prints => loaded.print(),
        Ok(_) => "the configuration is fine\n".to_owned(),
        Err(exit) => return exit,
    };
    said(io::stdout().write_all(text.as_bytes()), Exit::Fine)
}
