//! Sizes and times as people write them in a configuration: `64MiB`, `250ms`.

/// A size in bytes.
pub mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bytes(u64),
        Text(String),
    }

    /// Takes `64MiB`, or a plain number of bytes.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        const EXPECTED: &str = "expected a size such as 64MiB";
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Written::Bytes(bytes) => Ok(ByteSize::b(bytes)),
            Written::Text(text) => text.parse().map_err(|_| D::Error::custom(format!("{EXPECTED}, found {text:?}"))),
        }
    }

    /// Writes the largest unit that keeps the size exact.
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
    enum Written {
        /// The environment's `0660` comes as the number 660.
        Digits(u32),
        Text(String),
    }

    /// Takes `0660`, quoted or not.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        const EXPECTED: &str = "expected permissions in octal digits such as \"0660\", with those of the owner";
        let text = match Written::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Written::Digits(digits) => digits.to_string(),
            Written::Text(text) => text,
        };
        // YAML's own octal numbers (0o660) come as decimal ones (432), and would be read as other permissions: none of
        // them lets the owner read and write.
        let is_sound = |mode: &u32| *mode <= 0o777 && mode & 0o600 == 0o600;
        let mode = u32::from_str_radix(&text, 8).ok().filter(is_sound);
        mode.ok_or_else(|| D::Error::custom(EXPECTED))
    }

    /// Writes four digits.
    pub fn serialize<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{mode:04o}"))
    }
}

/// A length of time.
pub mod time {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Takes `250ms`, `10s`, `1m 30s`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        const EXPECTED: &str = "expected a time such as 250ms or 10s";
        let text = String::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))?;
        humantime::parse_duration(&text).map_err(|_| D::Error::custom(format!("{EXPECTED}, found {text:?}")))
    }

    /// Writes it as it is read.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }
}
