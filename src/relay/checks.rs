//! Checks the settings of destinations, and reads the files that they name.

use std::collections::HashSet;
use std::fmt::Display;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytesize::ByteSize;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Url};
use uuid::Uuid;

use super::config::{
    BATCH_EVENTS, BatchConfig, CONCURRENCY, DestinationConfig, DestinationType, ROTATED_FILES, RelayConfig,
    RetryConfig, RotateConfig,
};
use super::destination::BatchLimits;
use crate::text::settings::InvalidSetting;

/// The smallest `batch.bytes` and `rotate.bytes`.
const SMALLEST: ByteSize = ByteSize::kib(1);
/// The endpoint of the type `agnost`.
const AGNOST_ENDPOINT: &str = "https://api.agnost.ai";
/// The expected form of the secret of a webhook.
const SECRET: &str = "24 to 64 bytes in base64, which may begin with whsec_";
/// The expected form of a name.
const NAME: &str = "1 to 64 of a-z, A-Z, 0-9, dot, dash and underscore";
/// The expected form of an endpoint.
const ENDPOINT: &str = "an http or https URL without user, query and fragment, such as https://api.agnost.ai";

impl RelayConfig {
    /// The settings of the section that cannot be used. Reads the files that they name.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut names = HashSet::new();
        let mut invalid = Vec::new();
        for (key, config) in self.all() {
            invalid.extend(config.check(&key));
            if !names.insert(&config.name) {
                let expected = "a name that no other destination has";
                invalid.push(InvalidSetting::new(format!("{key}.name"), expected, &config.name));
            }
        }
        invalid
    }
}

impl DestinationConfig {
    fn check(&self, key: &str) -> Vec<InvalidSetting> {
        let mut invalid = Vec::new();
        let mut require = |is_valid: bool, name: &str, expected: &dyn Display, found: &dyn Display| {
            if !is_valid {
                invalid.push(InvalidSetting::new(format!("{key}.{name}"), expected, found));
            }
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let is_name = (1..=64).contains(&self.name.len()) && self.name.chars().all(is_plain);
        require(is_name, "name", &NAME, &format!("{:?}", self.name));
        let concurrency = &CONCURRENCY;
        require(concurrency.allows(self.concurrency as u64), "concurrency", concurrency, &self.concurrency);
        let time = |time: Duration| humantime::format_duration(time).to_string();
        require(!self.timeout.is_zero(), "timeout", &"more than 0s", &time(self.timeout));
        let RetryConfig { initial, max } = self.retry;
        require(!initial.is_zero(), "retry.initial", &"more than 0s", &time(initial));
        require(max >= initial, "retry.max", &format!("at least retry.initial, {}", time(initial)), &time(max));
        let BatchConfig { events, bytes, .. } = self.batch;
        require(BATCH_EVENTS.allows(events as u64), "batch.events", &BATCH_EVENTS, &events);
        require(bytes >= SMALLEST, "batch.bytes", &"at least 1KiB", &bytes);
        let RotateConfig { bytes, files } = self.rotate;
        require(ROTATED_FILES.allows(files as u64), "rotate.files", &ROTATED_FILES, &files);
        require(bytes == ByteSize::b(0) || bytes >= SMALLEST, "rotate.bytes", &"0, or at least 1KiB", &bytes);
        for name in self.settings_of_other_types() {
            require(false, name, &format_args!("nothing with type: {}", self.kind), &"a value");
        }
        if self.kind == DestinationType::File {
            require(self.path.is_some(), "path", &"a path, or - for standard output", &"nothing");
            return invalid;
        }
        invalid.extend(self.url(key).err());
        invalid.extend(self.certificates(key).err());
        match self.kind {
            DestinationType::Agnost => invalid.extend(self.org(key).err()),
            _ => {
                invalid.extend(self.signing_key(key).err());
                invalid.extend(self.header_map(key).err());
            }
        }
        invalid
    }

    /// The settings that have a value, but none of whose types is that of the destination.
    fn settings_of_other_types(&self) -> Vec<&'static str> {
        let default = DestinationConfig::default();
        let agnost = [
            ("org_id", self.org_id.is_some()),
            ("org_id_file", self.org_id_file.is_some()),
            ("content", self.content != default.content),
        ];
        let webhook = [
            ("secret", self.secret.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("headers", !self.headers.is_empty()),
        ];
        let http = [
            ("endpoint", self.endpoint.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("timeout", self.timeout != default.timeout),
            ("concurrency", self.concurrency != default.concurrency),
        ];
        let file = [("path", self.path.is_some()), ("rotate", self.rotate != default.rotate)];
        let batch = [("batch", self.batch != default.batch)];
        let others: [&[(&'static str, bool)]; 3] = match self.kind {
            DestinationType::Agnost => [&webhook, &file, &batch],
            DestinationType::Webhook => [&agnost, &file, &[]],
            DestinationType::File => [&agnost, &webhook, &http],
        };
        others.into_iter().flatten().filter(|(_, is_set)| *is_set).map(|(name, _)| *name).collect()
    }

    /// How much a request may hold, for types that send events together.
    pub fn batch_limits(&self) -> BatchLimits {
        let bytes = usize::try_from(self.batch.bytes.as_u64()).unwrap_or(usize::MAX);
        BatchLimits { events: self.batch.events, bytes }
    }

    /// Where events go, for people.
    pub fn target(&self) -> String {
        match (self.kind, &self.path) {
            (DestinationType::File, Some(path)) => path.display().to_string(),
            _ => self.endpoint_text().to_owned(),
        }
    }

    fn endpoint_text(&self) -> &str {
        match self.kind {
            DestinationType::Agnost => self.endpoint.as_deref().unwrap_or(AGNOST_ENDPOINT),
            _ => self.endpoint.as_deref().unwrap_or_default(),
        }
    }

    /// The key of the signatures of a webhook; `None` if it is not signed.
    ///
    /// # Errors
    /// When it is set twice, or not in base64. The error does not contain it.
    pub fn signing_key(&self, key: &str) -> Result<Option<Vec<u8>>, InvalidSetting> {
        let (text, key) = match (&self.secret, &self.secret_file) {
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                let expected = "either secret or secret_file";
                return Err(InvalidSetting::new(format!("{key}.secret"), expected, "both"));
            }
            (Some(text), None) => (text.clone(), format!("{key}.secret")),
            (None, Some(path)) => {
                let key = format!("{key}.secret_file");
                let read = std::fs::read_to_string(path);
                (read.map_err(|error| cannot_read(&key, "a file with a secret", path, &error))?, key)
            }
        };
        let text = text.trim();
        let decoded = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).ok();
        match decoded.filter(|decoded| (24..=64).contains(&decoded.len())) {
            Some(decoded) => Ok(Some(decoded)),
            None => Err(InvalidSetting::new(key, SECRET, "a value that is not shown")),
        }
    }

    /// The headers that a webhook needs.
    ///
    /// # Errors
    /// When a name or value is none of a header. The error does not contain the value.
    pub fn header_map(&self, key: &str) -> Result<HeaderMap, InvalidSetting> {
        let headers = self.headers.iter().map(|(name, value)| {
            let value = HeaderValue::try_from(value).map(|mut value| {
                value.set_sensitive(true);
                value
            });
            match (HeaderName::try_from(name), value) {
                (Ok(name), Ok(value)) => Ok((name, value)),
                _ => {
                    let key = format!("{key}.headers.{name}");
                    Err(InvalidSetting::new(key, "the name and value of a header", "a value that is not shown"))
                }
            }
        });
        headers.collect()
    }

    /// The base URL, without a slash at the end.
    ///
    /// # Errors
    /// When the URL cannot be used. The error does not contain the URL, because it may have a password.
    pub fn url(&self, key: &str) -> Result<Url, InvalidSetting> {
        let url = Url::parse(self.endpoint_text().trim_end_matches('/')).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        let found = if self.endpoint_text().is_empty() { "nothing" } else { "a value that is not shown" };
        url.ok_or_else(|| InvalidSetting::new(format!("{key}.endpoint"), ENDPOINT, found))
    }

    /// The organization at the upstream, and the key of the setting that it was read from.
    ///
    /// # Errors
    /// When it is missing, set twice, or not a UUID.
    pub fn org(&self, key: &str) -> Result<(Uuid, String), InvalidSetting> {
        let (text, key) = match (&self.org_id, &self.org_id_file) {
            (Some(text), None) => (text.clone(), format!("{key}.org_id")),
            (None, Some(path)) => {
                let key = format!("{key}.org_id_file");
                let read = std::fs::read_to_string(path);
                (read.map_err(|error| cannot_read(&key, "a file with a UUID", path, &error))?, key)
            }
            (None, None) => {
                return Err(InvalidSetting::new(
                    format!("{key}.org_id"),
                    "a UUID, or org_id_file with the path of a file that contains one",
                    "nothing",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(InvalidSetting::new(format!("{key}.org_id"), "either org_id or org_id_file", "both"));
            }
        };
        // Only the hyphenated form: the library also accepts braces and more.
        let org = Some(text.trim()).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok());
        match org {
            Some(org) => Ok((org, key)),
            None if text.trim().is_empty() => Err(InvalidSetting::new(key, "a UUID with hyphens", "nothing")),
            // The value is not shown: it may be a secret that was set in the wrong place.
            None => Err(InvalidSetting::new(key, "a UUID with hyphens", "a value that is not shown")),
        }
    }

    /// The certificates of `ca_file`.
    ///
    /// # Errors
    /// When the file cannot be read, or contains no certificate.
    pub fn certificates(&self, key: &str) -> Result<Vec<Certificate>, InvalidSetting> {
        const EXPECTED: &str = "a file with certificates (PEM)";
        let Some(path) = &self.ca_file else { return Ok(Vec::new()) };
        let key = format!("{key}.ca_file");
        let pem = std::fs::read(path).map_err(|error| cannot_read(&key, EXPECTED, path, &error))?;
        let found = Certificate::from_pem_bundle(&pem).unwrap_or_default();
        if found.is_empty() {
            return Err(InvalidSetting::new(
                key,
                EXPECTED,
                format!("{}: the file contains no certificate", path.display()),
            ));
        }
        Ok(found)
    }
}

fn cannot_read(key: &str, expected: &str, path: &std::path::Path, error: &io::Error) -> InvalidSetting {
    InvalidSetting::new(key.to_owned(), expected, format!("{}: {error}", path.display()))
}
