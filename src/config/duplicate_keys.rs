//! Finds keys that occur more than once in a configuration file. figment silently uses the last one, so a second
//! `auth:` at the end of a long file would discard the settings of the first.

use std::collections::HashSet;
use std::fmt;

use figment::providers::{Format, Yaml};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// The keys that occur more than once, such as `relay.destinations[0].name`. Empty if the text is not YAML, which is
/// reported when it is loaded.
pub fn find(text: &str) -> Vec<String> {
    Yaml::from_str::<Duplicates>(text).map_or_else(|_| Vec::new(), |duplicates| duplicates.0)
}

/// The paths of the duplicate keys within a value.
#[derive(Default)]
struct Duplicates(Vec<String>);

impl Duplicates {
    /// The same paths, with `parent` prepended.
    fn under(self, parent: &str) -> impl Iterator<Item = String> {
        self.0.into_iter().map(move |path| format!("{parent}{}{path}", if path.starts_with('[') { "" } else { "." }))
    }
}

impl<'de> Deserialize<'de> for Duplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Duplicates, D::Error> {
        deserializer.deserialize_any(DuplicatesVisitor)
    }
}

/// Visits a value. Only mappings and lists can contain duplicates.
struct DuplicatesVisitor;

impl<'de> Visitor<'de> for DuplicatesVisitor {
    type Value = Duplicates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Duplicates, A::Error> {
        let (mut seen, mut duplicates) = (HashSet::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let inner: Duplicates = map.next_value()?;
            duplicates.extend(inner.under(&key));
            if !seen.insert(key.clone()) {
                duplicates.push(key);
            }
        }
        Ok(Duplicates(duplicates))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Duplicates, A::Error> {
        let mut duplicates = Vec::new();
        let mut index = 0;
        while let Some(inner) = list.next_element::<Duplicates>()? {
            duplicates.extend(inner.under(&format!("[{index}]")));
            index += 1;
        }
        Ok(Duplicates(duplicates))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }

    fn visit_unit<E>(self) -> Result<Duplicates, E> {
        Ok(Duplicates::default())
    }
}
