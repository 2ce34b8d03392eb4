//! What the events of a recorder say about a period: when the server was up and when it was down, and what it refused.
//!
//! A recorder is the agent `cairn/INSTANCE`, in whose chain a server records what it does itself. The events are specified in
//! `docs/recorder.md`.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::chain::walk::FieldValues;
use crate::chain::{Field, scan, time};
use crate::plural::plural;
use crate::sanitize::sanitize;

/// The names of a recorder's events, the values of `action_name`.
pub mod action {
    /// The server has started.
    pub const START: &str = "recorder.start";
    /// The server has stopped in order.
    pub const STOP: &str = "recorder.stop";
    /// The server runs.
    pub const HEARTBEAT: &str = "recorder.heartbeat";
    /// The events that were refused in an interval, by reason.
    pub const REFUSALS: &str = "recorder.refusals";
    /// The clock was set.
    pub const CLOCK_STEP: &str = "recorder.clock_step";
    /// Settings or keys have changed while the server ran.
    pub const CONFIGURATION: &str = "recorder.configuration";
    /// The content of events was erased.
    pub const ERASURE: &str = "recorder.erasure";
    /// A hold was added or lifted.
    pub const HOLD: &str = "recorder.hold";
    /// Events were dropped.
    pub const RETENTION: &str = "recorder.retention";
    /// The log can sign, or cannot any more.
    pub const SIGNING: &str = "recorder.signing";
}

/// A time without a server, between the last event of one run and the start of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The time of the last event of the run before, in ms since 1970. After a crash, the server may have run for longer.
    pub from_ms: u64,
    /// When the server started again, in ms since 1970.
    pub until_ms: u64,
    /// Whether the run before ended in order.
    pub is_clean: bool,
}

/// What a recorder says about a period.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct RecorderReport {
    /// The number of its events in the period.
    pub events: u64,
    /// The number of starts.
    pub starts: u64,
    /// The times of the first and the last event, in ms since 1970.
    pub span_ms: Option<(u64, u64)>,
    /// The times without a server.
    pub gaps: Vec<Gap>,
    /// The refused events by reason.
    pub refused: BTreeMap<String, u64>,
    /// The number of intervals in which events were refused.
    pub refusing: u64,
    /// The number of steps of the clock.
    pub clock_steps: u64,
    /// The number of changes of settings or keys while the server ran.
    pub changes: u64,
    /// The number of times at which the log lost the ability to sign.
    pub unsigned: u64,
    /// Whether the last event is a stop.
    is_stopped: bool,
}

impl RecorderReport {
    /// Adds the next event, given its canonical bytes.
    pub fn add(&mut self, canonical: &[u8]) {
        let values = FieldValues::of(canonical);
        let text = |field| values.get(field).and_then(scan::text);
        let Some(ms) = text(Field::ReceivedAt).and_then(|text| time::parse_ms(&text)) else { return };
        let name = text(Field::ActionName).unwrap_or_default();
        let input: Value = values
            .get(Field::ActionInput)
            .map_or(Value::Null, |input| serde_json::from_slice(input).unwrap_or_default());
        if name == action::START {
            self.starts += 1;
            if let Some((_, last)) = self.span_ms {
                self.gaps.push(Gap { from_ms: last, until_ms: ms, is_clean: self.is_stopped });
            }
        }
        self.events += 1;
        // Erasures and holds are recorded whether or not the recorder is on, and may come after the stop.
        if ![action::ERASURE, action::HOLD, action::RETENTION].contains(&&*name) {
            self.is_stopped = name == action::STOP;
        }
        self.span_ms = Some((self.span_ms.map_or(ms, |(first, _)| first), ms));
        match &*name {
            action::REFUSALS => self.add_refusals(&input),
            action::CLOCK_STEP => self.clock_steps += 1,
            action::CONFIGURATION => self.changes += 1,
            action::SIGNING if input["signing"] == false => self.unsigned += 1,
            _ => {}
        }
    }

    fn add_refusals(&mut self, input: &Value) {
        self.refusing += 1;
        for (reason, count) in input["refused"].as_object().into_iter().flatten() {
            let sum = self.refused.entry(reason.clone()).or_default();
            *sum = sum.saturating_add(count.as_u64().unwrap_or(0));
        }
    }

    /// The time without a server, in ms.
    pub fn down_ms(&self) -> u64 {
        self.gaps.iter().map(|gap| gap.until_ms.saturating_sub(gap.from_ms)).fold(0, u64::saturating_add)
    }

    /// The time with a server, in ms.
    pub fn up_ms(&self) -> u64 {
        self.span_ms.map_or(0, |(first, last)| last.saturating_sub(first).saturating_sub(self.down_ms()))
    }

    /// The report as JSON; `docs/recorder.md` describes the members.
    pub fn to_json(&self) -> Value {
        let gap =
            |gap: &Gap| json!({"from": text_of(gap.from_ms), "until": text_of(gap.until_ms), "clean": gap.is_clean});
        json!({
            "events": self.events,
            "from": self.span_ms.map(|(first, _)| text_of(first)),
            "until": self.span_ms.map(|(_, last)| text_of(last)),
            "starts": self.starts,
            "stopped": self.is_stopped,
            "up_seconds": self.up_ms() / 1000,
            "down_seconds": self.down_ms() / 1000,
            "down": self.gaps.iter().map(gap).collect::<Vec<_>>(),
            "refused": self.refused,
            "clock_steps": self.clock_steps,
            "configuration_changes": self.changes,
            "signing_lost": self.unsigned,
        })
    }
}

impl fmt::Display for RecorderReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((first, last)) = self.span_ms else { return f.write_str("no events of the recorder in this period") };
        write!(f, "from {} to {}: up {}", text_of(first), text_of(last), duration(self.up_ms()))?;
        let unclean = self.gaps.iter().filter(|gap| !gap.is_clean).count();
        match self.gaps.len() {
            0 => f.write_str(", never down")?,
            _ => write!(f, ", down {} in {}", duration(self.down_ms()), plural(self.gaps.len() as u64, "gap"))?,
        }
        if unclean > 0 {
            write!(f, " ({unclean} after a crash, with the time before it since the last event)")?;
        }
        match self.refused.values().copied().fold(0, u64::saturating_add) {
            0 => f.write_str("; refused nothing")?,
            count => {
                let reasons: Vec<_> =
                    self.refused.iter().map(|(reason, count)| format!("{} {count}", sanitize(reason))).collect();
                write!(f, "; refused {} ({})", plural(count, "event"), reasons.join(", "))?;
            }
        }
        for (count, what) in [
            (self.clock_steps, "clock step"),
            (self.changes, "configuration change"),
            (self.unsigned, "loss of signing"),
        ] {
            if count > 0 {
                write!(f, "; {}", plural(count, what))?;
            }
        }
        Ok(())
    }
}

fn text_of(ms: u64) -> String {
    String::from_utf8_lossy(&time::format_ms(ms)).into_owned()
}

/// A duration in its two greatest units.
fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let parts: Vec<String> = units
        .iter()
        .scan(seconds, |rest, (len, unit)| {
            let count = *rest / len;
            *rest %= len;
            Some((count, unit))
        })
        .skip_while(|(count, _)| *count == 0)
        .take(2)
        .map(|(count, unit)| format!("{count} {unit}"))
        .collect();
    if parts.is_empty() { format!("{ms} ms") } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: &str, name: &str, input: &Value) -> String {
        format!(
            r#"{{"action_input":{input},"action_name":"{name}","agent_id":"cairn/x","received_at":"2026-02-17T{at}:00.000Z"}}"#
        )
    }

    #[test]
    fn a_report_tells_up_from_down_and_refusing() {
        let mut report = RecorderReport::default();
        assert_eq!(report.to_string(), "no events of the recorder in this period");
        for (at, name, input) in [
            ("10:00", action::START, json!({})),
            ("10:20", action::REFUSALS, json!({"refused": {"busy": 3, "invalid": 1}})),
            ("10:30", action::STOP, json!({})),
            ("10:40", action::START, json!({})),
            ("11:40", action::HEARTBEAT, json!({})),
            ("12:00", action::START, json!({"clean": false})),
            ("12:01", action::REFUSALS, json!({"refused": {"busy": 2}})),
            ("12:02", action::CLOCK_STEP, json!({})),
            ("12:03", action::SIGNING, json!({"signing": true})),
            ("12:04", action::SIGNING, json!({"signing": false})),
        ] {
            report.add(event(at, name, &input).as_bytes());
        }
        assert_eq!((report.events, report.starts, report.gaps.len()), (10, 3, 2));
        assert_eq!((report.up_ms(), report.down_ms()), (94 * 60_000, 30 * 60_000));
        assert_eq!(report.gaps.iter().map(|gap| gap.is_clean).collect::<Vec<_>>(), [true, false]);
        assert_eq!(
            report.to_string(),
            "from 2026-02-17T10:00:00.000Z to 2026-02-17T12:04:00.000Z: up 1 h 34 min, down 30 min 0 s in 2 gaps (1 after a \
             crash, with the time before it since the last event); refused 6 events (busy 5, invalid 1); 1 clock step; 1 loss of signing"
        );
        assert_eq!(report.to_json()["refused"], json!({"busy": 5, "invalid": 1}));
        assert_eq!(report.to_json()["down"][1]["clean"], false);
        for _ in 0..2 {
            report.add(event("12:05", action::REFUSALS, &json!({"refused": {"busy": u64::MAX}})).as_bytes());
        }
        assert_eq!(report.refused["busy"], u64::MAX, "numbers of a file, which may be any");
        assert!(report.to_string().contains("refused 18446744073709551615 events"));
    }
}
