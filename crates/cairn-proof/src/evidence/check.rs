//! The layers of a package, each checked for itself: events, chain, tree, checkpoint.

use tlog_tiles::{Hash as Node, check_record, record_hash};

use super::claims::{Claims, EventProof};
use super::list_digest::{Comparison, ListDigest};
use super::package_event::{PackageEvent, PackageEventReader};
use super::verdict::{Finding, Verdict};
use crate::chain::{AgentKey, Hash, Sequence, Walk, scan, time};
use crate::tree::{Head, checkpoint, leaf};

/// More events than any log has; the arithmetic of proofs is not defined for every number that fits into 64 bits.
const SIZE_MAX: u64 = 1 << 56;
/// A proof of a tree of [`SIZE_MAX`] leaves is not longer.
const SIBLINGS_MAX: usize = 56;

/// What was found so far about a package whose events are being read.
pub struct Check {
    claims: Claims,
    agent: AgentKey,
    /// The tree, by the checkpoint if there is one, else by what the package says of it.
    tree: Option<(u64, Node)>,
    checkpoint: Finding,
    /// The first thing that is wrong with each layer.
    wrong_content: Option<String>,
    wrong_chain: Option<String>,
    wrong_tree: Option<String>,
    walk: Walk,
    reader: PackageEventReader,
    /// The ids and leaves of the events.
    told: ListDigest,
    /// Those of the proofs.
    proven: Comparison,
    last_leaf: Option<u64>,
    item: Vec<u8>,
}

impl Check {
    /// Begins with what a package claims, and the verifier keys that the auditor trusts.
    pub fn new(claims: Claims, keys: &[String]) -> Check {
        let (checkpoint, head) = check_checkpoint(&claims, keys);
        let (told_size, told_root) = (claims.tree_size, claims.merkle_root.map(|root| Node(root.0)));
        let signed_tree = head.map(|head| (head.size, head.root));
        let mut wrong_tree = None;
        if let Some((size, root)) = signed_tree
            && (told_size.is_some_and(|told| told != size) || told_root.is_some_and(|told| told != root))
        {
            wrong_tree = Some("merkle_root and tree_size are not those of the checkpoint".to_owned());
        }
        let tree = signed_tree.or(told_size.zip(told_root));
        if tree.is_some_and(|(size, _)| size > SIZE_MAX) {
            wrong_tree = Some("no tree has so many events".to_owned());
        }
        Check {
            agent: AgentKey::of(&claims.filter.agent_id),
            wrong_chain: wrong_start(&claims),
            walk: Walk { sequence: Sequence(claims.first_sequence.saturating_sub(1)), hash: claims.anchor_prev_hash },
            claims,
            tree: tree.filter(|_| wrong_tree.is_none()),
            checkpoint,
            wrong_content: None,
            wrong_tree,
            reader: PackageEventReader::default(),
            told: ListDigest::default(),
            proven: Comparison::default(),
            last_leaf: None,
            item: Vec::new(),
        }
    }

    /// Takes the next event.
    pub fn event(&mut self, text: &str) {
        let number = self.told.length() + 1;
        let mut reader = std::mem::take(&mut self.reader);
        self.item.clear();
        match reader.read(text) {
            Ok(told) => self.told(number, &told),
            Err(why) => {
                let why = format!("event {number} of the package cannot be read: {why}");
                for layer in [&mut self.wrong_content, &mut self.wrong_chain, &mut self.wrong_tree] {
                    layer.get_or_insert_with(|| why.clone());
                }
            }
        }
        self.told.push(&self.item);
        self.reader = reader;
    }

    fn told(&mut self, number: u64, told: &PackageEvent<'_>) {
        let sequence = told.sequence;
        let wrong = told.wrong.clone().or_else(|| self.is_foreign(told));
        if let Some(why) = wrong {
            let why = format!("event {number} of the package, sequence {sequence}: {why}");
            self.wrong_content.get_or_insert(why);
        }
        if self.wrong_chain.is_none()
            && let Err(broken) = self.walk.follow(&told.link(self.agent))
        {
            self.wrong_chain = Some(broken.to_string());
        }
        // The leaf is what the event says of itself: that its content has this hash is the chain's to show.
        let data = leaf::data(told.agent_id, told.hash, sequence);
        self.item.extend_from_slice(scan::text(told.id).unwrap_or_default().as_bytes());
        self.item.extend_from_slice(&record_hash(&data).0);
    }

    /// Why an event is not one of those that the package says it has.
    fn is_foreign(&self, told: &PackageEvent<'_>) -> Option<String> {
        let filter = &self.claims.filter;
        let agent_id = scan::text(told.agent_id).unwrap_or_default();
        if agent_id != filter.agent_id {
            return Some(format!("it is an event of the agent {agent_id:?}"));
        }
        let Some(ms) = scan::text(told.received_at).and_then(|text| time::parse_ms(&text)) else {
            return Some("received_at: expected a time".to_owned());
        };
        let is_early = filter.since.is_some_and(|since| ms < since.0);
        let is_late = filter.until.is_some_and(|until| ms >= until.0);
        (is_early || is_late).then(|| "it was not received in the filter's time".to_owned())
    }

    /// Takes the next proof.
    pub fn proof(&mut self, of: &EventProof) {
        let proof = &of.proof.0;
        self.item.clear();
        self.item.extend_from_slice(of.event_id.as_bytes());
        self.item.extend_from_slice(&proof.leaf_hash.0.0);
        self.proven.push(&self.item, &self.told);
        let Some((size, root)) = self.tree else { return };
        let number = self.proven.length();
        let wrong = |why: &str| Some(format!("proof {number} of the package, of the event {}: {why}", of.event_id));
        let wrong = if proof.tree_size != size {
            wrong("it is of another tree")
        } else if self.last_leaf.is_some_and(|last| proof.leaf_index <= last) {
            wrong("the leaves of an agent rise with its sequence, and this one does not")
        } else if proof.siblings.len() > SIBLINGS_MAX {
            wrong("it is too long")
        } else {
            let siblings = proof.siblings.iter().map(|hash| Node(hash.0.0)).collect();
            let checked = check_record(&siblings, size, root, proof.leaf_index, Node(proof.leaf_hash.0.0));
            if checked.is_ok() { None } else { wrong("it does not lead to the root of the tree") }
        };
        self.last_leaf = Some(proof.leaf_index);
        if self.wrong_tree.is_none() {
            self.wrong_tree = wrong;
        }
    }

    /// Ends with what is wrong with the package as a file, if anything.
    pub fn finish(mut self, wrong_package: Option<String>) -> Verdict {
        let (events, proofs) = (self.told.length(), self.proven.length());
        // A file that was cut off lacks proofs, and that is not the tree's fault.
        let lacks_proofs = wrong_package.is_none() && events != proofs;
        if self.wrong_tree.is_none() {
            self.wrong_tree =
                self.wrong_proofs().or(lacks_proofs.then(|| format!("there are {events} events and {proofs} proofs")));
        }
        let (first, last) = (Sequence(self.claims.first_sequence), self.walk.sequence);
        // Without an event nothing is shown, and of a file that breaks off nothing but what was read.
        let finding = |wrong: Option<String>, holds: String| match wrong {
            Some(why) => Finding::Fails(why),
            None if events == 0 => Finding::NotShown("there is no event in it".to_owned()),
            None if wrong_package.is_some() => Finding::NotShown(format!("as far as the file goes: {holds}")),
            None => Finding::Holds(holds),
        };
        let tree = match &self.tree {
            Some((size, _)) => finding(self.wrong_tree, format!("every event is a leaf of the tree of {size} events")),
            None => self.wrong_tree.map_or_else(
                || Finding::NotShown("the package names no tree, by a checkpoint or otherwise".to_owned()),
                Finding::Fails,
            ),
        };
        Verdict {
            content: finding(self.wrong_content, format!("{events} events, each in canonical form")),
            chain: finding(self.wrong_chain, format!("whole from sequence {first} to {last}")),
            tree,
            checkpoint: self.checkpoint,
            package: match wrong_package {
                Some(why) => Finding::Fails(why),
                None => Finding::Holds("complete, and of a form that is known".to_owned()),
            },
            agent_id: self.claims.filter.agent_id,
            exported_at: self.claims.exported_at,
            events,
            first,
            last,
            tree_size: self.tree.map(|(size, _)| size),
            without_proof: if lacks_proofs { events.saturating_sub(proofs) } else { 0 },
        }
    }

    /// Whether each proof is that of its event.
    fn wrong_proofs(&self) -> Option<String> {
        let (from, to) = self.proven.parted(&self.told)?;
        let which = if from == to { format!("event {from}") } else { format!("one of the events {from} to {to}") };
        Some(format!("the proof of {which} of the package is of another event"))
    }
}

/// What is wrong with where a package says that it begins.
fn wrong_start(claims: &Claims) -> Option<String> {
    let first = claims.first_sequence;
    if first == 0 || first > SIZE_MAX {
        return Some("first_sequence: sequences start at 1, and no chain is so long".to_owned());
    }
    if first == 1 && claims.anchor_prev_hash != Hash::GENESIS {
        return Some("anchor_prev_hash: before the first event stand 64 zeros".to_owned());
    }
    // Whoever cuts off a beginning has to say so.
    (first > 1 && claims.filter.since.is_none())
        .then(|| format!("by its filter it begins with the agent's first event, and it does with sequence {first}"))
}

/// Whether the checkpoint was signed, and by whom; and what it says.
fn check_checkpoint(claims: &Claims, keys: &[String]) -> (Finding, Option<Head>) {
    let Some(text) = &claims.checkpoint else {
        return (Finding::NotShown("there is none: nobody says that this tree is the log's".to_owned()), None);
    };
    let head = match checkpoint::told(text.as_bytes()) {
        Ok(head) => head,
        Err(why) => return (Finding::Fails(why), None),
    };
    let named = if keys.is_empty() { claims.log_key.as_slice() } else { keys };
    if named.is_empty() {
        return (Finding::NotShown("there is no key to check it with: name yours with --key".to_owned()), Some(head));
    }
    let finding = match checkpoint::open(text.as_bytes(), named) {
        Err(why) => Finding::Fails(why),
        Ok((_, key)) if keys.is_empty() => Finding::NotShown(format!(
            "signed by {key}, which stands only in the file: whoever made the file may have made the key. Name the \
             key that you trust with --key"
        )),
        Ok((_, key)) => Finding::Holds(format!("signed by {key}, which you named, over {} events", head.size)),
    };
    (finding, Some(head))
}
