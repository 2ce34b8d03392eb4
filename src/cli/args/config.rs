//! The arguments that many commands share: the configuration, and how to connect to a server.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::cli::exit::Failure;
use crate::config::{self, ConfigError, Flags, Loaded, Scope, StorageFlags};
use crate::http::{Address, Addresses};

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

/// The configuration file.
#[derive(Debug, Clone, Default, Args)]
pub struct FileArgs {
    /// A YAML file with settings
    #[arg(long, value_name = "FILE", env = "CAIRN_CONFIG", hide_env_values = true, value_parser = any_path())]
    pub config: Option<PathBuf>,
}

impl FileArgs {
    /// Loads and checks the configuration of a server.
    ///
    /// # Errors
    /// When it is invalid: a usage error.
    pub fn load(&self) -> Result<Loaded, Failure> {
        config::load(self.path(), &Flags::default(), Scope::Server).map_err(Failure::usage)
    }

    /// Loads and checks the settings `redaction`. Other settings, and the secrets that they name, are not read.
    ///
    /// # Errors
    /// When they are invalid: a usage error.
    pub fn load_redaction(&self) -> Result<Loaded, Failure> {
        config::load(self.path(), &Flags::default(), Scope::Redaction).map_err(Failure::usage)
    }

    /// The file. An empty variable is none.
    fn path(&self) -> Option<&Path> {
        self.config.as_deref().filter(|path| !path.as_os_str().is_empty())
    }
}

/// Parses any path, also an empty one, which clap refuses even as the value of a variable.
fn any_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// The ledger that a command reads or changes on disk.
#[derive(Debug, Clone, Default, Args)]
pub struct LedgerArgs {
    #[command(flatten)]
    file: FileArgs,
    /// The directory of the ledger; overrides storage.data_dir
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl LedgerArgs {
    /// Loads and checks the settings of the ledger. Other settings, and the secrets that they name, are not read.
    ///
    /// # Errors
    /// When they are invalid: a usage error.
    pub fn load(&self) -> Result<Loaded, Failure> {
        config::load(self.file.path(), &self.flags(), Scope::Ledger).map_err(Failure::usage)
    }

    /// The arguments that name the configuration file.
    pub fn file(&self) -> &FileArgs {
        &self.file
    }

    fn flags(&self) -> Flags {
        Flags { listen: None, storage: self.data_dir.clone().map(|data_dir| StorageFlags { data_dir }) }
    }
}

/// The configuration of a server: the file, and the settings that flags override.
#[derive(Debug, Clone, Default, Args)]
pub struct ConfigArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// The address that receives events; overrides listen
    #[arg(long, value_name = "ADDRESS", value_parser = addresses)]
    listen: Option<Addresses>,
}

fn addresses(text: &str) -> Result<Addresses, String> {
    text.parse().map_err(|()| format!("expected {}", Address::EXPECTED))
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
        let flags = Flags { listen: self.listen.clone(), ..self.ledger.flags() };
        config::load(self.ledger.file.path(), &flags, Scope::Server)
    }
}
