//! The settings `http.*`, their defaults and their checks.

use serde::{Deserialize, Serialize};

use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};

/// `http.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Hosts that requests to an address of the loopback interface may name, besides local ones, and whose pages may call.
    pub allowed_hosts: Vec<String>,
}

impl HttpConfig {
    /// The valid values of each setting.
    pub const EXPECTED: Expectations = &[
        ("http", Expected::Section),
        ("http.allowed_hosts", Expected::Strings),
        ("http.allowed_hosts.*", Expected::Text("a host such as cairn.internal or 10.0.0.7:7600")),
    ];

    /// Returns the settings with invalid values.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        for (index, host) in self.allowed_hosts.iter().enumerate() {
            let is_host = !host.is_empty() && !host.contains(['/', '@', '*']) && !host.contains(char::is_whitespace);
            let expected = "a host such as cairn.internal or 10.0.0.7:7600, without a scheme";
            checks.require(is_host, &format!("http.allowed_hosts.{index}"), expected, format_args!("{host:?}"));
        }
        checks.finish()
    }
}
