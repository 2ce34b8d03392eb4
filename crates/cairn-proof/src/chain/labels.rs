//! Labels that the server puts on every event, so that a fleet can be told apart. They never stand over a client's own.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use super::fields::Field;
use super::scan;
use super::slots::{Slot, Slots};
use super::string::{compare_keys, write_string};

/// The most that there may be: an event remembers in a bit for each which of them it got.
pub const DEFAULT_LABELS_MAX: usize = 16;

/// A set of labels, written as canonical JSON once.
#[derive(Debug, Clone, Default)]
pub struct DefaultLabels {
    /// A canonical object; empty if there are none.
    object: Vec<u8>,
    /// The names of those that ever were default labels, as they stand in an object.
    known: HashSet<Vec<u8>>,
}

impl DefaultLabels {
    /// Labels with these names and texts; of more than [`DEFAULT_LABELS_MAX`], the first ones.
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
        DefaultLabels { object, ..DefaultLabels::default() }.and_formerly(names)
    }

    /// The same, where labels of these names once were among them.
    pub fn and_formerly<'l>(mut self, names: impl IntoIterator<Item = &'l str>) -> DefaultLabels {
        for name in names {
            let mut quoted = Vec::new();
            write_string(name, &mut quoted);
            self.known.insert(quoted[1..quoted.len() - 1].to_vec());
        }
        self
    }

    /// The names, now and formerly.
    pub fn names(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.known.iter().filter_map(|name| scan::unescape(std::str::from_utf8(name).ok()?))
    }

    /// How many bytes they add to an event at most.
    pub fn len(&self) -> usize {
        self.object.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.object.is_empty()
    }

    /// Puts them among the labels of an event whose canonical `values` stand in `slots`: behind the values, where its labels
    /// are from then on. Tells which of them, in their order, it had not itself: a bit for each. What is no object is left to
    /// be refused.
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

    /// Appends an object with the members of the one at `own` and, where it has none of that name, ours.
    fn merge(&self, own: Slot, values: &mut Vec<u8>) -> u16 {
        let mut ours = scan::members(&self.object).enumerate().peekable();
        let mut added = 0;
        // The byte in front of the next member of their own: a brace or a comma.
        let mut at = own.start;
        let mut separator = b'{';
        loop {
            let next = scan::members(&values[at..own.end]).next();
            let order = match (next, ours.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((own, _)), Some((_, (our, _)))) => scan::utf16(own).cmp(scan::utf16(our)),
            };
            let len = next.map_or(0, |(key, value)| r#""":"#.len() + key.len() + value.len());
            values.push(separator);
            separator = b',';
            if order == Ordering::Greater {
                let Some((index, (key, value))) = ours.next() else { break };
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
                ours.next();
            }
        }
        // Neither has any.
        if separator == b'{' {
            values.push(b'{');
        }
        values.push(b'}');
        added
    }

    /// Whether an event that came with the labels `sent`, of which we `added` some, is one that was stored with the labels
    /// `stored`.
    ///
    /// One of ours says where an event came in, which may be elsewhere the second time, and may have been said in other words
    /// or not at all: it makes no other event of it. A label that the client sent does.
    pub fn is_same(&self, added: u16, sent: Option<&[u8]>, stored: Option<&[u8]>) -> bool {
        if sent == stored || self.known.is_empty() {
            return sent == stored;
        }
        let added = scan::members(&self.object).enumerate().filter(|(index, _)| added & (1 << index) != 0);
        let added: Vec<&[u8]> = added.map(|(_, (name, _))| name).collect();
        let (sent, stored) = (sent.unwrap_or(b"{}"), stored.unwrap_or(b"{}"));
        let own = || scan::members(sent).filter(|(name, _)| !added.contains(name));
        let own_of_ours: HashSet<&[u8]> =
            own().map(|(name, _)| name).filter(|name| self.known.contains(*name)).collect();
        own().eq(scan::members(stored).filter(|(name, _)| !self.known.contains(*name) || own_of_ours.contains(name)))
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

    /// The labels that an event is stored with.
    fn stored(sent: &str, defaults: &DefaultLabels) -> String {
        let mut reader = EventReader::default();
        let source = EventSource::HTTP_API.with_labels(defaults);
        let (content, _) = reader.read(sent, 0, source, 4000).unwrap();
        String::from_utf8(content.value(Field::Labels).unwrap_or_default().to_vec()).unwrap()
    }

    #[test]
    fn they_stand_in_their_place_and_never_over_a_clients_own() {
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
    fn a_client_is_told_what_is_wrong_with_its_labels_as_ever() {
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
    fn another_pod_makes_no_other_event_and_another_label_does() {
        let labels = labels(&[("node", "b"), ("pod", "1")]).and_formerly(["zone"]);
        // What was sent, in `values`, and what is stored.
        let same = |sent: &str, stored: &str| {
            let mut values = sent.as_bytes().to_vec();
            let mut slots = Slots::default();
            slots[Field::Labels as usize] = (!sent.is_empty()).then_some(Slot { start: 0, end: sent.len() });
            let added = labels.add(&mut values, &mut slots);
            let merged = slots[Field::Labels as usize].map(|slot| &values[slot.start..slot.end]);
            labels.is_same(added, merged, (!stored.is_empty()).then_some(stored.as_bytes()))
        };
        assert!(same(r#"{"team":"x"}"#, r#"{"node":"b","pod":"1","team":"x"}"#));
        assert!(same(r#"{"team":"x"}"#, r#"{"node":"a","pod":"0","team":"x"}"#), "it came in elsewhere the first time");
        assert!(same(r#"{"team":"x"}"#, r#"{"team":"x"}"#), "there were no default labels the first time");
        assert!(same(r#"{"team":"x"}"#, r#"{"team":"x","zone":"z"}"#), "there was another one");
        assert!(same("", ""), "nor any of its own");
        assert!(!same(r#"{"team":"x"}"#, r#"{"node":"b","pod":"1","team":"y"}"#));
        assert!(!same(r#"{"team":"x"}"#, r#"{"node":"b","pod":"1"}"#));
        assert!(!same(r#"{"team":"x"}"#, r#"{"more":1,"node":"b","pod":"1","team":"x"}"#));
        assert!(!same(r#"{"pod":"mine"}"#, r#"{"node":"b","pod":"1"}"#), "a label of the client's own");
        assert!(same(r#"{"pod":"mine"}"#, r#"{"node":"a","pod":"mine"}"#));
        assert!(!same(r#"{"pod":"1"}"#, r#"{"node":"b","pod":"mine"}"#), "its own, also where it says what we would");
        assert!(!same(r#"{"zone":"y"}"#, r#"{"node":"b","pod":"1","zone":"z"}"#));
    }

    proptest! {
        /// Beside the obvious way: a map.
        #[test]
        fn merged_labels_are_canonical_and_have_what_a_map_would(
            own in prop::collection::btree_map("[a-d\u{e000}\u{10000}\"\\\\\n]{0,2}", "[a-z\"]{0,3}", 0..5),
            ours in prop::collection::btree_map("[a-d\u{e000}\u{10000}\"\\\\\n]{0,2}", "[a-z\"]{0,3}", 0..5),
        ) {
            let sent = serde_json::json!({"agent_id": "a", "labels": own}).to_string();
            let mut expected = ours.clone();
            expected.extend(own);
            let expected = reference_canonical(&serde_json::to_value(&expected).unwrap());
            prop_assert_eq!(stored(&sent, &DefaultLabels::new(&ours)), expected);
        }
    }
}
