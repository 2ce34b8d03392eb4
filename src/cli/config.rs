//! `cairn config`: checks, prints or describes the configuration.

use super::args::{ConfigAction, ConfigCommand};
use super::exit::{CommandResult, Exit, print};
use crate::config;

/// Checks, prints or describes the configuration.
pub fn run(args: &ConfigCommand) -> CommandResult {
    match &args.action {
        ConfigAction::Validate(config) => {
            let loaded = config.load()?;
            let text = match &loaded.file {
                None => "the configuration is valid; it has no file, only defaults and the environment\n".to_owned(),
                Some(file) if loaded.is_file_blank => {
                    format!("{}: the configuration is valid, but the file sets nothing\n", file.display())
                }
                Some(file) => format!("{}: the configuration is valid\n", file.display()),
            };
            print(text, Exit::Success)
        }
        ConfigAction::Print(config) => print(config.load()?.print(), Exit::Success),
        ConfigAction::Schema => print(format!("{:#}\n", config::schema()), Exit::Success),
    }
}
