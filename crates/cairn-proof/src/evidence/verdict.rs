//! The verdict on a package, layer by layer. What one layer shows is never taken for another.
//!
//! The layers are specified in `docs/verification.md`, "How a verifier checks a package"; `docs/auditors.md`, "Read the
//! verdict", explains them.

use std::fmt;

use serde_json::{Value, json};

use super::recorder::RecorderReport;
use crate::chain::Sequence;
use crate::plural::plural;
use crate::sanitize::sanitize;

/// The verdict on one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The layer holds. The text states what that shows.
    Holds(String),
    /// The layer is broken, for this reason.
    Fails(String),
    /// The package neither proves nor disproves the layer. The text states what is missing.
    NotShown(String),
}

/// The verdict on a package.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The agent that the filter of the package names.
    pub agent_id: String,
    /// When the package was made, as it states itself; not proven.
    pub exported_at: Option<String>,
    /// The number of events.
    pub events: u64,
    /// The sequence of the first event, as stated; 0 if the file has no readable member `events`.
    pub first: Sequence,
    /// The sequence of the last event up to which the chain is unbroken.
    pub last: Sequence,
    /// The number of leaves of the tree; `None` if the package names no valid tree.
    pub tree_size: Option<u64>,
    /// The number of events without a proof; 0 for a truncated file.
    pub without_proof: u64,
    /// The layer `package`: the file is complete and has the form of a package.
    pub package: Finding,
    /// The layer `events`: each event has valid fields and matches the filter.
    pub content: Finding,
    /// The layer `chain`: each event is linked to the one before it by its hash.
    pub chain: Finding,
    /// The layer `tree`: each event is a leaf of the tree.
    pub tree: Finding,
    /// The layer `checkpoint`: the tree is signed with a key that the auditor trusts.
    pub checkpoint: Finding,
    /// The layer `erasures`: the erasure of each event without content is recorded. `None` if every event has its content.
    pub erasures: Option<Finding>,
    /// The layer `retention`: the events before the first one were dropped, as is recorded. `None` if the package does not say so.
    pub retention: Option<Finding>,
    /// The layer `recorder`: the events of the recorder. `None` if the package has none, and none were asked for.
    pub recorder: Option<Finding>,
    /// The number of events without content.
    pub erased: u64,
    /// What the events of the recorder say about the period that they cover.
    pub report: Option<RecorderReport>,
    /// Whether these begin before the events of the package, without a gap.
    pub covers_period: bool,
    /// The sequence of the last of them; 0 if there is none.
    pub last_recorded: Sequence,
    /// Whether that was asked for: a package may have a few events of the recorder for erasures only.
    pub has_report: bool,
}

/// The overall result of a [`Verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every layer holds.
    Valid,
    /// No layer is broken, but at least one is not shown.
    NotProven,
    /// At least one layer is broken.
    Broken,
}

impl Verdict {
    /// The verdict on a file that cannot be read up to its events.
    pub fn unreadable(agent_id: String, why: String) -> Verdict {
        let not_shown = || Finding::NotShown("the file could not be read up to its events".to_owned());
        Verdict {
            agent_id,
            exported_at: None,
            events: 0,
            first: Sequence(0),
            last: Sequence(0),
            tree_size: None,
            without_proof: 0,
            package: Finding::Fails(why),
            content: not_shown(),
            chain: not_shown(),
            tree: not_shown(),
            checkpoint: not_shown(),
            erasures: None,
            retention: None,
            recorder: None,
            erased: 0,
            report: None,
            covers_period: false,
            last_recorded: Sequence(0),
            has_report: false,
        }
    }

    /// The layers with their names, in the order in which they are reported.
    pub fn layers(&self) -> Vec<(&'static str, &Finding)> {
        let Verdict { package, content, chain, tree, checkpoint, .. } = self;
        let mut layers = vec![
            ("package", package),
            ("events", content),
            ("chain", chain),
            ("tree", tree),
            ("checkpoint", checkpoint),
        ];
        layers.extend(self.erasures.as_ref().map(|finding| ("erasures", finding)));
        layers.extend(self.retention.as_ref().map(|finding| ("retention", finding)));
        layers.extend(self.recorder.as_ref().map(|finding| ("recorder", finding)));
        layers
    }

    /// Makes the layer `recorder` a part of the verdict also if the package has no events of the recorder.
    #[must_use]
    pub fn with_recorder(mut self) -> Verdict {
        let why = "the package has no events of the recorder: ask for one made with `cairn export --with-recorder`";
        self.recorder.get_or_insert_with(|| Finding::NotShown(why.to_owned()));
        if !self.covers_period && matches!(self.recorder, Some(Finding::Holds(_))) {
            let why = "the events of the recorder do not begin before those of the package, without a gap";
            self.recorder = Some(Finding::NotShown(why.to_owned()));
        }
        self.has_report = true;
        self
    }

    /// The report that was asked for.
    fn shown_report(&self) -> Option<&RecorderReport> {
        self.report.as_ref().filter(|_| self.has_report && matches!(self.recorder, Some(Finding::Holds(_))))
    }

    /// The overall result.
    pub fn outcome(&self) -> Outcome {
        let layers = self.layers();
        if layers.iter().any(|(_, finding)| matches!(finding, Finding::Fails(_))) {
            Outcome::Broken
        } else if layers.iter().all(|(_, finding)| matches!(finding, Finding::Holds(_))) {
            Outcome::Valid
        } else {
            Outcome::NotProven
        }
    }

    /// What the package claims or leaves open, and nothing in it proves.
    pub fn unproven(&self) -> Vec<String> {
        let mut unproven = ["exported_at", "filter", "log_key", "validation_warnings"].map(str::to_owned).to_vec();
        if self.erased > 0 {
            unproven.push("id and received_at of erased events".to_owned());
        }
        if self.shown_report().is_some() {
            unproven.push(format!("what the recorder recorded after sequence {}", self.last_recorded));
        }
        if matches!(self.chain, Finding::Holds(_)) {
            if self.first.0 > 1 {
                unproven.push(format!("the agent's events before sequence {}", self.first));
            }
            unproven.push(format!("whether the agent has events after sequence {}", self.last));
        }
        unproven
    }

    /// The verdict as JSON; `docs/auditors.md`, "Check the file", describes the members.
    pub fn to_json(&self) -> Value {
        let layers: serde_json::Map<String, Value> = self
            .layers()
            .into_iter()
            .map(|(name, finding)| {
                let (holds, reason) = match finding {
                    Finding::Holds(reason) => (Some(true), reason),
                    Finding::Fails(reason) => (Some(false), reason),
                    Finding::NotShown(reason) => (None, reason),
                };
                (name.to_owned(), json!({"holds": holds, "says": reason}))
            })
            .collect();
        let outcome = match self.outcome() {
            Outcome::Valid => "valid",
            Outcome::NotProven => "not_proven",
            Outcome::Broken => "broken",
        };
        json!({
            "valid": self.outcome() == Outcome::Valid,
            "verdict": outcome,
            "agent_id": self.agent_id,
            "exported_at": self.exported_at,
            "events": self.events,
            "first_sequence": self.first.0,
            "last_sequence": self.last.0,
            "tree_size": self.tree_size,
            "events_without_proof": self.without_proof,
            "erased_events": self.erased,
            "recorder": self.shown_report().map(RecorderReport::to_json),
            "layers": layers,
            "unproven": self.unproven(),
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first.0 == 0
            && let Finding::Fails(why) = &self.package
        {
            return write!(f, "not an evidence package: {}\nBROKEN", sanitize(why));
        }
        let exported_at = self.exported_at.as_deref().unwrap_or("an unknown time");
        writeln!(f, "agent {:?}: {}, exported at {exported_at}", self.agent_id, plural(self.events, "event"))?;
        for (name, finding) in self.layers() {
            let (status, reason) = match finding {
                Finding::Holds(reason) => ("holds", reason),
                Finding::Fails(reason) => ("BROKEN", reason),
                Finding::NotShown(reason) => ("NOT SHOWN", reason),
            };
            // The reason may quote the file, which is untrusted.
            writeln!(f, "  {name:<10}  {status}: {}", sanitize(reason))?;
        }
        if let Some(report) = self.shown_report() {
            writeln!(f, "recorder: {report}")?;
        }
        writeln!(f, "events without a proof: {}", self.without_proof)?;
        writeln!(f, "not proven by the file: {}", self.unproven().join(", "))?;
        f.write_str(match self.outcome() {
            Outcome::Valid => "VALID",
            Outcome::NotProven => "NOT PROVEN",
            Outcome::Broken => "BROKEN",
        })
    }
}
