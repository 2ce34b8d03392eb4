//! What was found about a package, a layer at a time: what one layer shows is never taken for another.

use std::fmt;

use serde_json::{Value, json};

use crate::chain::Sequence;
use crate::sanitize::sanitize;

/// What was found about one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It holds: what that means.
    Holds(String),
    /// It does not: why.
    Fails(String),
    /// The package does not say: what is missing.
    NotShown(String),
}

/// What was found about a package.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whose events they are.
    pub agent_id: String,
    /// When the package says that it was made.
    pub exported_at: Option<String>,
    /// How many events there are.
    pub events: u64,
    /// The first event's place in its chain.
    pub first: Sequence,
    /// The last one's.
    pub last: Sequence,
    /// How many events the tree has.
    pub tree_size: Option<u64>,
    /// How many events have no proof: they are newer than the checkpoint, or it was withheld.
    pub without_proof: u64,
    /// The file itself.
    pub package: Finding,
    /// Each event is one, in canonical form.
    pub content: Finding,
    /// Each event follows from the one before it.
    pub chain: Finding,
    /// Each event is a leaf of the tree.
    pub tree: Finding,
    /// The tree was signed.
    pub checkpoint: Finding,
}

/// A verdict in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every layer holds.
    Valid,
    /// Nothing is wrong, but something is not shown.
    NotProven,
    /// Something is wrong.
    Broken,
}

impl Verdict {
    /// Of a file that has no events to check.
    pub fn unreadable(agent_id: String, why: String) -> Verdict {
        let not_shown = || Finding::NotShown("the file could not be read so far".to_owned());
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
        }
    }

    /// The layers, each with its name.
    pub fn layers(&self) -> [(&'static str, &Finding); 5] {
        let Verdict { package, content, chain, tree, checkpoint, .. } = self;
        [("package", package), ("events", content), ("chain", chain), ("tree", tree), ("checkpoint", checkpoint)]
    }

    /// In a word.
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

    /// What the package says, or leaves open, and nothing in it proves.
    pub fn unproven(&self) -> Vec<String> {
        let mut unproven = ["exported_at", "filter", "log_key", "validation_warnings"].map(str::to_owned).to_vec();
        if matches!(self.chain, Finding::Holds(_)) {
            if self.first.0 > 1 {
                unproven.push(format!("what the agent's events before sequence {} are", self.first));
            }
            unproven.push(format!("whether the agent has events after sequence {}", self.last));
        }
        unproven
    }

    /// For machines.
    pub fn to_json(&self) -> Value {
        let layers: serde_json::Map<String, Value> = self
            .layers()
            .into_iter()
            .map(|(name, finding)| {
                let (holds, says) = match finding {
                    Finding::Holds(says) => (Some(true), says),
                    Finding::Fails(says) => (Some(false), says),
                    Finding::NotShown(says) => (None, says),
                };
                (name.to_owned(), json!({"holds": holds, "says": says}))
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
            return write!(f, "this is no evidence package: {}\nBROKEN", sanitize(why));
        }
        let exported_at = self.exported_at.as_deref().unwrap_or("an unknown time");
        writeln!(f, "agent {:?}: {} events, exported at {exported_at}", self.agent_id, self.events)?;
        for (name, finding) in self.layers() {
            let (word, says) = match finding {
                Finding::Holds(says) => ("holds", says),
                Finding::Fails(says) => ("BROKEN", says),
                Finding::NotShown(says) => ("NOT SHOWN", says),
            };
            // What is said may have words of the file in it, and the file is not to be trusted.
            writeln!(f, "  {name:<10}  {word}: {}", sanitize(says))?;
        }
        writeln!(f, "newer than the checkpoint, or without a proof for another reason: {} events", self.without_proof)?;
        writeln!(f, "not proven by anything in the file: {}", self.unproven().join(", "))?;
        f.write_str(match self.outcome() {
            Outcome::Valid => "VALID",
            Outcome::NotProven => "NOT PROVEN",
            Outcome::Broken => "BROKEN",
        })
    }
}
