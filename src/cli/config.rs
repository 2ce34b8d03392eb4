//! `cairn config`

use super::Exit;
use super::args::{ConfigAction, ConfigCommand};

/// Checks or prints the configuration.
pub fn run(args: &ConfigCommand) -> Exit {
    let (config, prints) = match &args.action {
        ConfigAction::Validate(config) => (config, false),
        ConfigAction::Print(config) => (config, true),
    };
    match config.load() {
        Ok(loaded) if prints => print!("{}", loaded.print()),
        Ok(_) => println!("the configuration is fine"),
        Err(exit) => return exit,
    }
    Exit::Fine
}
