//! Default labels: labels that the server adds to every event (`ingest.default_labels`). They never replace a label
//! that the client sent. The rules are specified in `docs/events.md`, "Labels" and "Deduplication".

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use super::fields::Field;
use super::scan;
use super::slots::{Slot, Slots};
use super::string::{compare_keys, write_string};

/// The maximum number of default labels: each has a bit in a [`u16`] that records which of them an event was given.
pub const DEFAULT_LABELS_MAX: usize = 16;

/// A set of default labels, canonicalized once.
#[derive(Debug, Clone, Default)]
pub struct DefaultLabels {
    /// The labels as a canonical object; empty if there are none.
    object: Vec<u8>,
    /// The names of all default labels, current and former, escaped as in a canonical object.
    names: HashSet<Vec<u8>>,
}

impl DefaultLabels {
    /// Creates default labels from names and values. Labels after the first [`DEFAULT_LABELS_MAX`] are ignored.
    pub fn new<'l>(labels: impl IntoIterator<Item = (&'l String, &'l String)>) -> DefaultLabels {
        let mut labels: Vec<_> = labels.into_iter().take(DEFAULT_LABELS_MAX).collect();
        labels.sort_by(|a, b| compare_keys(a.0, b.0));
        let mut object = Vec::new();
        for (name, text) in &labels {
            object.push(if object.is_empty() { b'{' } else { b',' });
            write_string(name, &mut object);
            object.push(b':');
            write_string(text, &mut object);
        }
        if !object.is_empty() {
            object.push(b'}');
        }
        let names = labels.into_iter().map(|(name, _)| name.as_str());
        DefaultLabels { object, ..DefaultLabels::default() }.with_former_names(names)
    }

    /// Adds names of former default labels, which [`DefaultLabels::same_labels`] does not compare either.
    pub fn with_former_names<'l>(mut self, names: impl IntoIterator<Item = &'l str>) -> DefaultLabels {
        for name in names {
            let mut quoted = Vec::new();
            write_string(name, &mut quoted);
            self.names.insert(quoted[1..quoted.len() - 1].to_vec());
        }
        self
    }

    /// The names of all default labels, current and former, unescaped.
    pub fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.names.iter().filter_map(|name| scan::unescape(std::str::from_utf8(name).ok()?))
    }

    /// The maximum number of bytes that they add to an event.
    pub fn len(&self) -> usize {
        self.object.len()
    }

    /// Whether there are no default labels.
    pub fn is_empty(&self) -> bool {
        self.object.is_empty()
    }

    /// Adds the default labels to an event that does not have labels of these names.
    ///
    /// `slots` are the places of the fields in `values`. The merged labels are appended to `values`, and their slot is
    /// changed. Returns which default labels were added: bit `n` for the `n`-th label. Labels that are not an object
    /// are left unchanged; validation refuses them later.
    pub fn add(&self, values: &mut Vec<u8>, slots: &mut Slots) -> u16 {
        let labels = &mut slots[Field::Labels as usize];
        let start = values.len();
        let added = match *labels {
            _ if self.is_empty() => return 0,
            None => {
                values.extend_from_slice(&self.object);
                u16::MAX
            }
            Some(own) if values[own.start] != b'{' => return 0,
            Some(own) => self.merge(own, values),
        };
        *labels = Some(Slot { start, end: values.len() });
        added
    }

    /// Appends an object with the labels at `own` and the default labels of other names. Returns the added ones as
    /// bits.
    fn merge(&self, own: Slot, values: &mut Vec<u8>) -> u16 {
        let mut defaults = scan::members(&self.object).enumerate().peekable();
        let mut added = 0;
        // The offset of the byte before the next member of the client's labels: a brace or a comma.
        let mut at = own.start;
        let mut separator = b'{';
        loop {
            let next = scan::members(&values[at..own.end]).next();
            let order = match (next, defaults.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((own, _)), Some((_, (default, _)))) => scan::utf16(own).cmp(scan::utf16(default)),
            };
            let len = next.map_or(0, |(key, value)| r#""":"#.len() + key.len() + value.len());
            values.push(separator);
            separator = b',';
            if order == Ordering::Greater {
                let Some((index, (key, value))) = defaults.next() else { break };
                added |= 1 << index;
                values.push(b'"');
                values.extend_from_slice(key);
                values.extend_from_slice(b"\":");
                values.extend_from_slice(value);
                continue;
            }
            values.extend_from_within(at + 1..at + 1 + len);
            at += 1 + len;
            if order == Ordering::Equal {
                defaults.next();
            }
        }
        // Neither object has members.
        if separator == b'{' {
            values.push(b'{');
        }
        values.push(b'}');
        added
    }

    /// Whether two events are the same with respect to their labels: a new one and a stored one.
    ///
    /// `sent` are the labels of the new event with the default labels merged in, `added` is the result of
    /// [`DefaultLabels::add`] for it, and `stored` are the labels of the stored event.
    ///
    /// Default labels depend on where and when an event was received, so they are not compared, whatever they are now
    /// or were earlier. A label that the client sent is compared, even if it has the name of a default label.
    pub fn same_labels(&self, added: u16, sent: Option<&[u8]>, stored: Option<&[u8]>) -> bool {
        if sent == stored || self.names.is_empty() {
            return sent == stored;
        }
        let added = scan::members(&self.object).enumerate().filter(|(index, _)| added & (1 << index) != 0);
        let added: Vec<&[u8]> = added.map(|(_, (name, _))| name).collect();
        let (sent, stored) = (sent.unwrap_or(b"{}"), stored.unwrap_or(b"{}"));
        let own = || scan::members(sent).filter(|(name, _)| !added.contains(name));
        let own_with_default_name: HashSet<&[u8]> =
            own().map(|(name, _)| name).filter(|name| self.names.contains(*name)).collect();
        own().eq(scan::members(stored)
            .filter(|(name, _)| !self.names.contains(*name) || own_with_default_name.contains(name)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::chain::reference::reference_canonical;
    use crate::chain::{EventReader, EventSource};

    fn labels(of: &[(&str, &str)]) -> DefaultLabels {
        let map: BTreeMap<String, String> = of.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        DefaultLabels::new(&map)
    }

    /// Returns the labels with which an event is stored.
    fn stored(sent: &str, defaults: &DefaultLabels) -> String {
        let mut reader = EventReader::default();
        let source = EventSource::HTTP_API.with_labels(defaults);
        let (content, _) = reader.read(sent, 0, source, 4000).unwrap();
        String::from_utf8(content.value(Field::Labels).unwrap_or_default().to_vec()).unwrap()
    }

    #[test]
    fn default_labels_are_sorted_in_and_never_replace_those_of_the_client() {
        let defaults = labels(&[("pod", "cairn-0"), ("node", "a\"b")]);
        let table = [
            (r#"{"agent_id":"a"}"#, r#"{"node":"a\"b","pod":"cairn-0"}"#),
            (r#"{"agent_id":"a","labels":null}"#, r#"{"node":"a\"b","pod":"cairn-0"}"#),
            (r#"{"agent_id":"a","labels":{}}"#, r#"{"node":"a\"b","pod":"cairn-0"}"#),
            (r#"{"agent_id":"a","labels":{"pod":7}}"#, r#"{"node":"a\"b","pod":7}"#),
            (
                r#"{"agent_id":"a","labels":{"z":true,"m":"x","pod":""}}"#,
                r#"{"m":"x","node":"a\"b","pod":"","z":true}"#,
            ),
        ];
        for (sent, expected) in table {
            assert_eq!(stored(sent, &defaults), expected, "{sent}");
        }
        assert_eq!(stored(r#"{"agent_id":"a","labels":{}}"#, &DefaultLabels::default()), "{}");
        assert_eq!(stored(r#"{"agent_id":"a"}"#, &DefaultLabels::default()), "");
    }

    #[test]
    fn invalid_labels_are_refused_as_without_default_labels() {
        let defaults = labels(&[("pod", "cairn-0")]);
        for sent in [r#"{"agent_id":"a","labels":"x"}"#, r#"{"agent_id":"a","labels":{"pod":[]}}"#] {
            let read = |labels| {
                let mut reader = EventReader::default();
                let source = EventSource::HTTP_API.with_labels(labels);
                reader.read(sent, 0, source, 4000).map(|_| ()).unwrap_err()
            };
            assert_eq!(read(&defaults), read(&DefaultLabels::default()));
        }
    }

    #[test]
    fn other_default_labels_are_the_same_event_and_other_client_labels_are_not() {
        let labels = labels(&[("node", "b"), ("pod", "1")]).with_former_names(["zone"]);
        // Compares the labels of a request with stored ones.
        let same = |sent: &str, stored: &str| {
            let mut values = sent.as_bytes().to_vec();
            let mut slots = Slots::default();
            slots[Field::Labels as usize] = (!sent.is_empty()).then_some(Slot { start: 0, end: sent.len() });
            let added = labels.add(&mut values, &mut slots);
            let merged = slots[Field::Labels as usize].map(|slot| &values[slot.start..slot.end]);
            labels.same_labels(added, merged, (!stored.is_empty()).then_some(stored.as_bytes()))
        };
        assert!(same(r#"{"team":"x"}"#, r#"{"node":"b","pod":"1","team":"x"}"#));
        assert!(same(r#"{"team":"x"}"#, r#"{"node":"a","pod":"0","team":"x"}"#), "received at another pod before");
        assert!(same(r#"{"team":"x"}"#, r#"{"team":"x"}"#), "no default labels before");
        assert!(same(r#"{"team":"x"}"#, r#"{"team":"x","zone":"z"}"#), "another default label before");
        assert!(same("", ""), "no labels of its own");
        assert!(!same(r#"{"team":"x"}"#, r#"{"node":"b","pod":"1","team":"y"}"#));
        assert!(!same(r#"{"team":"x"}"#, r#"{"node":"b","pod":"1"}"#));
        assert!(!same(r#"{"team":"x"}"#, r#"{"more":1,"node":"b","pod":"1","team":"x"}"#));
        assert!(!same(r#"{"pod":"mine"}"#, r#"{"node":"b","pod":"1"}"#), "a label of the client");
        assert!(same(r#"{"pod":"mine"}"#, r#"{"node":"a","pod":"mine"}"#));
        assert!(
            !same(r#"{"pod":"1"}"#, r#"{"node":"b","pod":"mine"}"#),
            "a label of the client, even with the value of the default label"
        );
        assert!(!same(r#"{"zone":"y"}"#, r#"{"node":"b","pod":"1","zone":"z"}"#));
    }

    proptest! {
        /// Compared with a merge of two maps.
        #[test]
        fn merged_labels_are_canonical_and_equal_a_merge_of_maps(
            own in prop::collection::btree_map("[a-d\u{e000}\u{10000}\"\\\\\n]{0,2}", "[a-z\"]{0,3}", 0..5),
            defaults in prop::collection::btree_map("[a-d\u{e000}\u{10000}\"\\\\\n]{0,2}", "[a-z\"]{0,3}", 0..5),
        ) {
            let sent = serde_json::json!({"agent_id": "a", "labels": own}).to_string();
            let mut expected = defaults.clone();
            expected.extend(own);
            let expected = reference_canonical(&serde_json::to_value(&expected).unwrap());
            prop_assert_eq!(stored(&sent, &DefaultLabels::new(&defaults)), expected);
        }
    }
}
