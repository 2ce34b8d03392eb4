//! Checks the layers `events`, `chain`, `tree` and `checkpoint` of a package, each independently of the others.
//!
//! The rules are specified in `docs/verification.md`, "How a verifier checks a package".

use tlog_tiles::{Hash as Node, record_hash};

use super::claims::{Claims, EventProof, MAX_TREE_SIZE};
use super::list_digest::{Comparison, ListDigest};
use super::package_event::{PackageEvent, PackageEventReader};
use super::recorded::{RecorderCheck, Stubs};
use super::retained::AnchorProof;
use super::verdict::{Finding, Verdict};
use crate::chain::{AgentKey, Hash, Sequence, Walk, scan, time};
use crate::plural::plural;
use crate::tree::{Head, checkpoint, leaf};

/// The checks of a package, while its events and then its proofs are read.
pub struct PackageCheck {
    claims: Claims,
    agent: AgentKey,
    /// Size and root of the tree: from the checkpoint if there is one, else from `tree_size` and `merkle_root`.
    tree: Option<(u64, Node)>,
    checkpoint: Finding,
    // The first error of each layer.
    content_error: Option<String>,
    chain_error: Option<String>,
    tree_error: Option<String>,
    walk: Walk,
    reader: PackageEventReader,
    /// Id and leaf hash of each event.
    event_list: ListDigest,
    /// Id and leaf hash of each proof.
    proof_list: Comparison,
    last_leaf_index: Option<u64>,
    /// Buffer: the current item of a list.
    item: Vec<u8>,
    stubs: Stubs,
    recorder: RecorderCheck,
    /// The member `retention`.
    retention: Option<AnchorProof>,
    /// Whether the package has the member `recorder`.
    has_recorder: bool,
    /// When the first event was received, in ms since 1970.
    first_ms: Option<u64>,
}

impl PackageCheck {
    /// Starts with the members before `events`, and the verifier keys that the auditor trusts.
    pub fn new(claims: Claims, keys: &[String]) -> PackageCheck {
        let (checkpoint, head) = verify_checkpoint(&claims, keys);
        let (stated_size, stated_root) = (claims.tree_size, claims.merkle_root.map(|root| Node(root.0)));
        let signed_tree = head.map(|head| (head.size, head.root));
        let mut tree_error = None;
        if let Some((size, root)) = signed_tree
            && (stated_size.is_some_and(|stated| stated != size) || stated_root.is_some_and(|stated| stated != root))
        {
            tree_error = Some("merkle_root or tree_size does not match the checkpoint".to_owned());
        }
        let tree = signed_tree.or(stated_size.zip(stated_root));
        if tree.is_some_and(|(size, _)| size > MAX_TREE_SIZE) {
            tree_error = Some("the tree has more than 2^56 leaves".to_owned());
        }
        let reader = PackageEventReader::new(claims.is_first_version);
        PackageCheck {
            agent: AgentKey::of(&claims.filter.agent_id),
            chain_error: start_error(&claims).or_else(|| hidden_start(&claims).filter(|_| !claims.has_retention)),
            walk: Walk { sequence: Sequence(claims.first_sequence.saturating_sub(1)), hash: claims.anchor_prev_hash },
            claims,
            tree: tree.filter(|_| tree_error.is_none()),
            checkpoint,
            content_error: None,
            tree_error,
            reader,
            event_list: ListDigest::default(),
            proof_list: Comparison::default(),
            last_leaf_index: None,
            item: Vec::new(),
            stubs: Stubs::default(),
            recorder: RecorderCheck::default(),
            retention: None,
            has_recorder: false,
            first_ms: None,
        }
    }

    /// Checks the next event.
    pub fn event(&mut self, text: &str) {
        let number = self.event_list.length() + 1;
        let mut reader = std::mem::take(&mut self.reader);
        self.item.clear();
        match reader.read(text) {
            Ok(mut event) => {
                self.check_event(number, &event);
                if let Some(stub) = event.stub.take() {
                    self.stubs.add(event.sequence, stub);
                }
            }
            Err(why) => {
                let why = format!("event {number} of the package cannot be read: {why}");
                for layer in [&mut self.content_error, &mut self.chain_error, &mut self.tree_error] {
                    layer.get_or_insert_with(|| why.clone());
                }
            }
        }
        self.event_list.push(&self.item);
        self.reader = reader;
    }

    fn check_event(&mut self, number: u64, event: &PackageEvent<'_>) {
        let sequence = event.sequence;
        self.first_ms = self.first_ms.or_else(|| received_ms(event));
        let error = event.invalid.clone().or_else(|| self.filter_error(event));
        if let Some(why) = error {
            let why = format!("event {number} of the package, sequence {sequence}: {why}");
            self.content_error.get_or_insert(why);
        }
        if self.chain_error.is_none()
            && let Err(broken) = self.walk.step_link(&event.link(self.agent))
        {
            self.chain_error = Some(broken.to_string());
        }
        // The leaf has the stated hash. The layer `chain` shows that the content has this hash.
        let data = leaf::data(event.agent_id, event.hash, sequence);
        self.item.extend_from_slice(scan::text(event.id).unwrap_or_default().as_bytes());
        self.item.extend_from_slice(&record_hash(&data).0);
    }

    /// Why an event does not match the filter of the package, if it does not.
    fn filter_error(&self, event: &PackageEvent<'_>) -> Option<String> {
        let filter = &self.claims.filter;
        let agent_id = scan::text(event.agent_id).unwrap_or_default();
        if agent_id != filter.agent_id {
            return Some(format!("it belongs to agent {agent_id:?}"));
        }
        let Some(ms) = received_ms(event) else { return Some("received_at: expected an RFC 3339 time".to_owned()) };
        let is_early = filter.since.is_some_and(|since| ms < since.0);
        let is_late = filter.until.is_some_and(|until| ms >= until.0);
        (is_early || is_late).then(|| "received_at is outside the interval of the filter".to_owned())
    }

    /// Checks the next proof.
    pub fn proof(&mut self, event_proof: &EventProof) {
        let proof = &event_proof.proof.0;
        self.item.clear();
        self.item.extend_from_slice(event_proof.event_id.as_bytes());
        self.item.extend_from_slice(&proof.leaf_hash.0.0);
        self.proof_list.push(&self.item, &self.event_list);
        let Some((size, root)) = self.tree else { return };
        let number = self.proof_list.length();
        let event_id = &event_proof.event_id;
        let error = proof.error(self.last_leaf_index, size, root);
        self.last_leaf_index = Some(proof.leaf_index);
        if self.tree_error.is_none() {
            self.tree_error = error.map(|why| format!("proof {number} of the package, for event {event_id}: {why}"));
        }
    }

    /// Whether the package has version 1.0.
    pub fn is_first_version(&self) -> bool {
        self.claims.is_first_version
    }

    /// Sets the member `retention`. Returns false if the version of the package does not have it.
    pub fn set_retention(&mut self, proof: AnchorProof) -> bool {
        self.retention = Some(proof);
        self.claims.has_retention
    }

    /// Starts with the events of the recorder.
    pub fn begin_recorder(&mut self) {
        self.has_recorder = true;
    }

    /// Checks the next event of the recorder.
    pub fn recorder_event(&mut self, text: &str) {
        self.recorder.item(text, self.tree);
    }

    /// Returns the verdict. `package_error` is the error in the form of the file, if there is one.
    pub fn finish(mut self, package_error: Option<String>) -> Verdict {
        let (events, proofs) = (self.event_list.length(), self.proof_list.length());
        // In a truncated file, missing proofs are an error of the layer `package`, not of the layer `tree`.
        let lacks_proofs = package_error.is_none() && events != proofs;
        if self.tree_error.is_none() {
            self.tree_error = self
                .mismatched_proof()
                .or(lacks_proofs.then(|| format!("there are {events} events and {proofs} proofs")));
        }
        let (first, last) = (Sequence(self.claims.first_sequence), self.walk.sequence);
        let start = (first, self.claims.anchor_prev_hash);
        let retention = self.retention.as_ref().map(|proof| self.recorder.retention(proof, self.agent, start));
        if retention.is_none() && package_error.is_none() {
            self.chain_error = hidden_start(&self.claims).or(self.chain_error);
        }
        // A layer is not shown without events, and in a truncated file.
        let finding = |error: Option<String>, holds: String| match error {
            Some(why) => Finding::Fails(why),
            None if events == 0 => Finding::NotShown("the package has no events".to_owned()),
            None if package_error.is_some() => Finding::NotShown(format!("only as far as the file goes: {holds}")),
            None => Finding::Holds(holds),
        };
        let tree = match &self.tree {
            Some((size, _)) => {
                finding(self.tree_error, format!("every event is a leaf of the tree of {}", plural(size, "event")))
            }
            None => self.tree_error.map_or_else(
                || Finding::NotShown("the package has neither a checkpoint nor merkle_root and tree_size".to_owned()),
                Finding::Fails,
            ),
        };
        let has_recorder = self.has_recorder;
        let recorder = has_recorder.then(|| self.recorder.finding(self.tree.is_some()));
        let erasures = self.recorder.erasures(&self.stubs, self.agent, (first, last));
        Verdict {
            recorder,
            erasures,
            retention,
            erased: self.stubs.count(),
            report: has_recorder.then(|| self.recorder.report().clone()),
            covers_period: self
                .recorder
                .covers_from(self.claims.filter.since.map_or(self.first_ms, |it| Some(it.0)).unwrap_or(0)),
            last_recorded: self.recorder.last_sequence(),
            has_report: false,
            content: finding(
                self.content_error,
                format!("{} with valid fields, all matching the filter", plural(events, "event")),
            ),
            chain: finding(self.chain_error, format!("unbroken from sequence {first} to {last}")),
            tree,
            checkpoint: self.checkpoint,
            package: match package_error {
                Some(why) => Finding::Fails(why),
                None => Finding::Holds("complete and well-formed".to_owned()),
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

    /// The first proof that has another id or leaf hash than the event at its place, if there is one.
    fn mismatched_proof(&self) -> Option<String> {
        let (from, to) = self.proof_list.first_difference(&self.event_list)?;
        let which = if from == to { format!("event {from}") } else { format!("one of the events {from} to {to}") };
        Some(format!("the proof of {which} of the package belongs to another event"))
    }
}

/// When an event was received, in ms since 1970.
fn received_ms(event: &PackageEvent<'_>) -> Option<u64> {
    scan::text(event.received_at).and_then(|text| time::parse_ms(&text))
}

/// Why `first_sequence` and `anchor_prev_hash` are not valid, if they are not.
fn start_error(claims: &Claims) -> Option<String> {
    let first = claims.first_sequence;
    if first == 0 || first > MAX_TREE_SIZE {
        return Some(format!("first_sequence: expected 1 to 2^56, found {first}"));
    }
    if first == 1 && claims.anchor_prev_hash != Hash::GENESIS {
        return Some("anchor_prev_hash: expected 64 zeros before the first event".to_owned());
    }
    None
}

/// Why the package may hide events before its first one, if it does: it begins later although its filter has no `since`.
fn hidden_start(claims: &Claims) -> Option<String> {
    let first = claims.first_sequence;
    let why = || format!("the package begins with sequence {first}, but its filter has no since");
    (first > 1 && claims.filter.since.is_none()).then(why)
}

/// Verifies the signature of the checkpoint. Also returns its content, whether or not the signature holds.
fn verify_checkpoint(claims: &Claims, keys: &[String]) -> (Finding, Option<Head>) {
    let Some(text) = &claims.checkpoint else {
        let why = "the package has no checkpoint: nothing shows that the tree is that of the log";
        return (Finding::NotShown(why.to_owned()), None);
    };
    let head = match checkpoint::parse_unverified(text.as_bytes()) {
        Ok(head) => head,
        Err(why) => return (Finding::Fails(why), None),
    };
    let tried = if keys.is_empty() { claims.log_key.as_slice() } else { keys };
    if tried.is_empty() {
        let why = "no key to verify the signature with: name the key that you trust with --key";
        return (Finding::NotShown(why.to_owned()), Some(head));
    }
    let finding = match checkpoint::open(text.as_bytes(), tried) {
        Err(why) => Finding::Fails(why),
        Ok((_, key)) if keys.is_empty() => Finding::NotShown(format!(
            "signed with {key}, which is only in the file: the sender of the file may have made it. Name the key that \
             you trust with --key"
        )),
        Ok((_, key)) => {
            Finding::Holds(format!("signed with {key}, a key that you named, over {}", plural(head.size, "event")))
        }
    };
    (finding, Some(head))
}
