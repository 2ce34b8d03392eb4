//! Arguments of many commands: where the configuration is, and how to connect to a server.

use std::path::PathBuf;

use clap::Args;

use crate::cli::exit::Failure;
use crate::config::{self, ConfigError, Flags, Loaded, StorageFlags};
use crate::http::Addresses;

/// How a running server is asked.
#[derive(Debug, Clone, Default, Args)]
pub struct ConnectArgs {
    /// A file with the server's API key
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// Certificates (PEM) to trust besides the system's, for https
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Our certificate and its private key (PEM, in one file), for a server that asks for one
    #[arg(long, value_name = "FILE")]
    pub identity_file: Option<PathBuf>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    /// A YAML file with settings; config/cairn.yaml has all of them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the ledger is kept: storage.data_dir
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where events come in: listen
    #[arg(long, value_name = "ADDRESS", value_parser = addresses)]
    pub listen: Option<Addresses>,
}

fn addresses(text: &str) -> Result<Addresses, &'static str> {
    text.parse().map_err(|()| "expected an address such as 127.0.0.1:7600 or unix:/run/cairn.sock")
}

impl ConfigArgs {
    /// Reads the configuration.
    ///
    /// # Errors
    /// When it cannot be used: a usage error.
    pub fn load(&self) -> Result<Loaded, Failure> {
        self.read().map_err(Failure::usage)
    }

    /// Reads the configuration.
    pub fn read(&self) -> Result<Loaded, ConfigError> {
        let flags = Flags {
            listen: self.listen.clone(),
            storage: self.data_dir.clone().map(|data_dir| StorageFlags { data_dir }),
        };
        config::load(self.config.as_deref(), &flags)
    }
}
