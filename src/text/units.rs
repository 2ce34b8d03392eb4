//! Sizes, durations and file permissions as people write them in a configuration: `64MiB`, `250ms`, `0660`.

/// A size in bytes.
pub mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Input {
        Bytes(u64),
        Text(String),
    }

    /// Reads `64MiB`, or a plain number of bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        const EXPECTED: &str = "expected a size such as 64MiB";
        match Input::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Input::Bytes(bytes) => Ok(ByteSize::b(bytes)),
            Input::Text(text) => text.parse().map_err(|_| D::Error::custom(format!("{EXPECTED}, found {text:?}"))),
        }
    }

    /// Writes the size in the largest unit that represents it exactly.
    pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = size.as_u64();
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let exact = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
        match exact {
            Some((shift, unit)) => serializer.collect_str(&format_args!("{}{unit}", bytes >> shift)),
            None => serializer.collect_str(&format_args!("{bytes}B")),
        }
    }
}

/// Permissions of a file, in octal digits.
pub mod mode {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Input {
        /// `0660` in the environment arrives as the number 660.
        Digits(u32),
        Text(String),
    }

    /// Reads `0660`, quoted or not.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        const EXPECTED: &str =
            "expected permissions in octal digits such as \"0660\", with read and write for the owner";
        let text = match Input::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Input::Digits(digits) => digits.to_string(),
            Input::Text(text) => text,
        };
        // An octal number of YAML (0o660) arrives as a decimal one (432), whose digits would be read as other
        // permissions. None of these lets the owner read and write, so they are rejected.
        let is_valid = |mode: &u32| *mode <= 0o777 && mode & 0o600 == 0o600;
        let mode = u32::from_str_radix(&text, 8).ok().filter(is_valid);
        mode.ok_or_else(|| D::Error::custom(EXPECTED))
    }

    /// Writes four octal digits.
    pub fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }
}

/// A duration.
pub mod time {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads `250ms`, `10s`, `1m 30s`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        const EXPECTED: &str = "expected a duration such as 250ms or 10s";
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))?;
        humantime::parse_duration(&text).map_err(|_| D::Error::custom(format!("{EXPECTED}, found {text:?}")))
    }

    /// Writes the duration in the form that `deserialize` reads.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }
}
