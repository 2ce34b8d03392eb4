//! `cairn config`: checks or prints the configuration.

use super::args::{ConfigAction, ConfigCommand};
use super::exit::{CommandResult, Exit, print};

/// Checks or prints the configuration.
pub fn run(args: &ConfigCommand) -> CommandResult {
    match &args.action {
        ConfigAction::Validate(config) => {
            config.load()?;
            print("configuration is valid\n", Exit::Success)
        }
        ConfigAction::Print(config) => print(config.load()?.print(), Exit::Success),
    }
}
