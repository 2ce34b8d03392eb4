//! The arguments that many commands share: the configuration, and how to connect to a server.

use std::path::PathBuf;

use clap::Args;

use crate::cli::exit::Failure;
use crate::config::{self, ConfigError, Flags, Loaded, StorageFlags};
use crate::http::Addresses;

/// How to connect to a running server.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectArgs {
    /// A file with an API key of the server
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust in addition to those of the system
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate and its private key (PEM, in one file), for a server that requires one
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
}

/// The configuration file and the settings that flags override.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A YAML file with settings; config/cairn.yaml lists all of them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The directory of the ledger; overrides storage.data_dir
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The address that receives events; overrides listen
    #[arg(long, value_name = "ADDRESS", value_parser = addresses)]
    pub listen: Option<Addresses>,
}

fn addresses(text: &str) -> Result<Addresses, &'static str> {
    text.parse().map_err(|()| "expected an address such as 127.0.0.1:7600 or unix:/run/cairn.sock")
}

impl ConfigArgs {
    /// Loads and checks the configuration.
    ///
    /// # Errors
    /// When it is invalid: a usage error.
    pub fn load(&self) -> Result<Loaded, Failure> {
        self.read().map_err(Failure::usage)
    }

    /// Loads and checks the configuration, with the errors as they are.
    pub fn read(&self) -> Result<Loaded, ConfigError> {
        let flags = Flags {
            listen: self.listen.clone(),
            storage: self.data_dir.clone().map(|data_dir| StorageFlags { data_dir }),
        };
        config::load(self.config.as_deref(), &flags)
    }
}
