//! Reads the values of all sources into a configuration, and finds all values that cannot be read, not only the first.

use figment::Figment;
use figment::error::Kind;
use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::diagnostics;
use super::input::ConfigError;
use super::settings::Config;

/// The most values that cannot be read of which a message is given.
const MAX_ERRORS: usize = 50;

/// A configuration in which the values that cannot be read are replaced by their defaults.
pub struct Extracted {
    /// The configuration.
    pub config: Config,
    /// A message for each value that cannot be read.
    pub errors: Vec<String>,
    /// The paths of these values.
    unread: Vec<Vec<String>>,
}

impl Extracted {
    /// Whether the setting `key` may only seem to be invalid, because it, or one that it depends on, could not be read.
    pub fn explains(&self, key: &str) -> bool {
        self.unread.iter().any(|path| {
            let protects = matches!(path.first().map(String::as_str), Some("auth" | "tls")) && key.ends_with("listen");
            let within = key.strip_prefix(&path.join("."));
            protects || within.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

/// Reads all values.
///
/// # Errors
/// When the sources cannot be read at all.
pub fn config(sources: &Figment, defaults: &Config) -> Result<Extracted, ConfigError> {
    let (mut errors, mut unread) = (Vec::new(), Vec::new());
    loop {
        let readable = Without { sources, paths: &unread };
        let error = match Figment::from(Serialized::defaults(defaults)).merge(readable).extract::<Config>() {
            Ok(config) => return Ok(Extracted { config, errors, unread }),
            Err(error) => error,
        };
        let path = path_of(&error, &unread);
        errors.extend(diagnostics::explain(sources, error));
        match path {
            Some(path) if errors.len() < MAX_ERRORS => unread.push(path),
            _ => return Err(ConfigError(errors)),
        }
    }
}

/// The path of the value to leave out, so that the others can be read; `None` if there is none.
fn path_of(error: &figment::Error, unread: &[Vec<String>]) -> Option<Vec<String>> {
    let mut path = error.path.clone();
    match &error.kind {
        Kind::UnknownField(field, _) if path.last() != Some(field) => path.push(field.clone()),
        _ => {}
    }
    // An element of a list in which a value is missing cannot be read in part: the list is left out.
    if unread.contains(&path) || matches!(error.kind, Kind::MissingField(_)) {
        path.truncate(path.iter().position(|level| level.parse::<usize>().is_ok())?);
    }
    (!path.is_empty() && !unread.contains(&path)).then_some(path)
}

/// The sources without some values.
struct Without<'s> {
    sources: &'s Figment,
    paths: &'s [Vec<String>],
}

impl Provider for Without<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named("sources")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut data = self.sources.data()?;
        for settings in data.values_mut() {
            for path in self.paths {
                remove(settings, path);
            }
        }
        Ok(data)
    }
}

fn remove(settings: &mut Dict, path: &[String]) {
    let Some((name, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        settings.remove(name);
        return;
    }
    match (settings.get_mut(name), rest) {
        (Some(Value::Dict(_, inner)), rest) => remove(inner, rest),
        (Some(Value::Array(_, elements)), [index, rest @ ..]) => {
            let element = index.parse::<usize>().ok().and_then(|index| elements.get_mut(index));
            if let Some(Value::Dict(_, inner)) = element {
                remove(inner, rest);
            }
        }
        _ => {}
    }
}
