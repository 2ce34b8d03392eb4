//! Keys that a configuration file has twice. The library takes the last one and says nothing: whoever adds a second
//! `auth:` at the end of a long file would lose what stands in the first.

use std::collections::HashSet;
use std::fmt;

use figment::providers::{Format, Yaml};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

/// The keys that are there more than once, as `relay.destinations[0].name`. None if the text is no YAML, which others say.
pub fn find(text: &str) -> Vec<String> {
    Yaml::from_str::<Repeated>(text).map_or_else(|_| Vec::new(), |repeated| repeated.0)
}

/// What of a value is there more than once: the way to it.
#[derive(Default)]
struct Repeated(Vec<String>);

impl Repeated {
    /// The same from one level above.
    fn inside(self, outer: &str) -> impl Iterator<Item = String> {
        self.0.into_iter().map(move |way| format!("{outer}{}{way}", if way.starts_with('[') { "" } else { "." }))
    }
}

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Repeated, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

/// Looks at a value. All but lists and mappings have nothing in them.
struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Repeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Repeated, A::Error> {
        let (mut seen, mut repeated) = (HashSet::new(), Vec::new());
        while let Some(key) = map.next_key::<String>()? {
            let below: Repeated = map.next_value()?;
            repeated.extend(below.inside(&key));
            if !seen.insert(key.clone()) {
                repeated.push(key);
            }
        }
        Ok(Repeated(repeated))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Repeated, A::Error> {
        let mut repeated = Vec::new();
        let mut index = 0;
        while let Some(below) = list.next_element::<Repeated>()? {
            repeated.extend(below.inside(&format!("[{index}]")));
            index += 1;
        }
        Ok(Repeated(repeated))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_i64<E>(self, _: i64) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_u64<E>(self, _: u64) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_f64<E>(self, _: f64) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_str<E>(self, _: &str) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }

    fn visit_unit<E>(self) -> Result<Repeated, E> {
        Ok(Repeated::default())
    }
}
