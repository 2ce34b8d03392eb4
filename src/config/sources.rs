//! The sources of settings: the configuration file, the environment, and command-line flags.
//!
//! This is the only code that reads settings from the environment.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Serialized, Yaml};
use figment::value::{Dict, Map, UncasedStr, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::duplicate_keys;
use super::input::{ConfigError, Flags, Scope};
use super::provenance::ENV_PREFIX;
use super::settings::Config;
use super::substitution::{self, Substituted};

/// The variable that names the configuration file, without [`ENV_PREFIX`]: the default of `--config`.
const FILE_VARIABLE: &str = "CONFIG";
/// The prefix of the environment variables for default labels, after [`ENV_PREFIX`].
const LABEL_PREFIX: &str = "INGEST__DEFAULT_LABELS__";

/// All sources.
pub struct Merged {
    /// The values, those of later sources with precedence.
    pub sources: Figment,
    /// What is wrong with the file beside its values.
    pub errors: Vec<String>,
    /// The keys of the values in the file in which something was put in place of a placeholder.
    pub substituted: HashSet<String>,
    /// Whether the file sets nothing.
    pub is_file_blank: bool,
}

/// Reads all sources.
///
/// # Errors
/// When the file cannot be read, or is not YAML with settings.
pub fn merged(file: Option<&Path>, flags: &Flags, scope: Scope) -> Result<Merged, ConfigError> {
    let (mut sources, mut is_file_blank) = (Figment::new(), false);
    let (mut errors, mut substituted) = (Vec::new(), HashSet::new());
    if let Some(file) = file {
        let name = file.display();
        let text = std::fs::read_to_string(file).map_err(|error| ConfigError(vec![format!("{name}: {error}")]))?;
        is_file_blank = is_blank(file, &text)?;
        let duplicates = duplicate_keys::find(&text).into_iter();
        errors.extend(duplicates.map(|key| format!("{key}: expected once, found more than once (in {name})")));
        let (settings, placeholders) = FileSettings::read(file, &text, scope)?;
        errors.extend(placeholders.errors.iter().map(|error| format!("{error} (in {name})")));
        (sources, substituted) = (sources.merge(settings), placeholders.keys);
    }
    let is_setting = |key: &UncasedStr| {
        !is_kubernetes_service_variable(key.as_str()) && !key.starts_with(LABEL_PREFIX) && key != FILE_VARIABLE
    };
    let env = Env::prefixed(ENV_PREFIX).filter(is_setting).split("__");
    sources = EnvText::all().fold(sources.merge(Part(env, scope)), |sources, text| sources.merge(Part(text, scope)));
    let sources = sources.merge(Part(EnvLabels, scope)).merge(Serialized::defaults(flags));
    Ok(Merged { sources, errors, substituted, is_file_blank })
}

/// Whether a file contains nothing but comments.
///
/// # Errors
/// When it is not YAML with settings, or is empty: a program that failed has written nothing into it.
fn is_blank(file: &Path, text: &str) -> Result<bool, ConfigError> {
    let failed = |reason: String| Err(ConfigError(vec![format!("{}: {reason}", file.display())]));
    if text.trim().is_empty() {
        return failed("the file is empty; a file without settings contains {} or only comments".to_owned());
    }
    match Yaml::from_str::<Value>(text) {
        Ok(Value::Dict(_, settings)) => Ok(settings.is_empty()),
        // Without a value, not with `null`.
        Ok(Value::Empty(..)) if text.lines().all(is_comment) => Ok(true),
        // A file that is not a configuration may contain anything, even a secret.
        Ok(_) => failed("expected settings, one on each line".to_owned()),
        Err(error) => failed(format!("not valid YAML: {error}")),
    }
}

/// The settings of the configuration file that a command needs. The file is read once: it may be a pipe.
struct FileSettings {
    path: PathBuf,
    settings: Dict,
}

impl FileSettings {
    /// Reads the settings in a text, and replaces the placeholders in them.
    fn read(path: &Path, text: &str, scope: Scope) -> Result<(FileSettings, Substituted), ConfigError> {
        let name = path.display();
        let read = Yaml::string(text).data().map_err(|error| ConfigError(vec![format!("{name}: {error}")]))?;
        let mut settings = read.into_values().next().unwrap_or_default();
        scope.retain(&mut settings);
        let substituted = substitution::apply(&mut settings);
        Ok((FileSettings { path: path.to_owned(), settings }, substituted))
    }
}

impl Provider for FileSettings {
    fn metadata(&self) -> Metadata {
        Metadata::from("YAML file", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.settings.clone())]))
    }
}

fn is_comment(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with("---") || line == "..."
}

/// The settings of a source that a command needs.
struct Part<P>(P, Scope);

impl<P: Provider> Provider for Part<P> {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.0.data()?;
        data.values_mut().for_each(|settings| self.1.retain(settings));
        Ok(data)
    }
}

impl Scope {
    /// Removes the sections that a command does not need.
    fn retain(self, settings: &mut Dict) {
        let sections = match self {
            Scope::Server => return,
            Scope::Ledger => &LEDGER_SECTIONS[..],
            Scope::Redaction => &["redaction"],
        };
        settings.retain(|section, _| sections.contains(&section.as_str()));
    }
}

/// The sections that describe a ledger.
const LEDGER_SECTIONS: [&str; 2] = ["storage", "log"];

/// Whether a variable has the prefix of a setting but is one that Kubernetes injects for a Service, such as `cairn` or
/// `cairn-central`. `key` is the name without [`ENV_PREFIX`].
fn is_kubernetes_service_variable(key: &str) -> bool {
    let name = key.to_ascii_uppercase();
    let key = format!("_{name}_");
    // Such as PORT_7600_TCP_ADDR, or CENTRAL_PORT_7600_TCP_ADDR.
    let protocols = ["TCP", "UDP", "SCTP"];
    let is_address = || protocols.iter().any(|protocol| key.contains(&format!("_{protocol}_")));
    if key.contains("_SERVICE_PORT_") || key.ends_with("_SERVICE_HOST_") || (key.contains("_PORT_") && is_address()) {
        return true;
    }
    // CAIRN_PORT may also be a mistake for CAIRN_LISTEN; only the value distinguishes the two.
    let value = || std::env::var(format!("{ENV_PREFIX}{name}")).unwrap_or_default();
    key.ends_with("_PORT_")
        && protocols.iter().any(|protocol| value().starts_with(&format!("{}://", protocol.to_ascii_lowercase())))
}

/// Provides a setting that is a text from the environment, where its value looks like another type: a log origin `007` is
/// not the number 7, and `1.10` is not 1.1.
struct EnvText {
    key: &'static str,
    text: String,
}

impl EnvText {
    /// All such settings.
    fn all() -> impl Iterator<Item = EnvText> {
        let texts = Config::EXPECTED.into_iter().flatten().filter(|(_, expected)| expected.is_text());
        texts.filter_map(|(key, _)| {
            let variable = format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"));
            let text = std::env::var(variable).ok()?;
            let Ok(parsed) = text.parse::<Value>();
            let is_other = matches!(parsed, Value::Num(..) | Value::Bool(..) | Value::Char(..));
            is_other.then_some(EnvText { key, text })
        })
    }
}

impl Provider for EnvText {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variable(s)")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(self.key, &self.text).data()
    }
}

/// Provides default labels from the environment. Their values are always text: a namespace named 007 is not the number
/// 7.
struct EnvLabels;

impl Provider for EnvLabels {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variable(s)")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let prefix = format!("{ENV_PREFIX}{LABEL_PREFIX}");
        let labels: BTreeMap<_, _> =
            Env::prefixed(&prefix).iter().map(|(name, text)| (name.to_string(), text)).collect();
        match labels.is_empty() {
            true => Ok(Map::new()),
            false => Serialized::default("ingest.default_labels", labels).data(),
        }
    }
}
