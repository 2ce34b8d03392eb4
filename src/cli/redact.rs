//! `cairn redact`: shows what the rules of a configuration make of events or of a text. `docs/redaction.md` describes the rules.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};

use cairn_proof::chain::{canonicalize, scan};

use super::args::RedactArgs;
use super::exit::{CommandResult, Exit, Failure, print};
use crate::ingest::Redactor;
use crate::text::plural;

/// Prints the redacted events or text, and the number of matches of each rule on standard error.
pub fn run(args: &RedactArgs) -> CommandResult {
    let config = args.file.load_redaction()?.config;
    let redactor = Redactor::new(&config.redaction).map_err(Failure::usage)?;
    let text = read(args).map_err(|error| format!("{}: {error}", args.test.display()))?;
    let mut totals: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut out, mut changed) = (String::new(), 0u64);
    let events = events(&text);
    for event in &events {
        let (redacted, counts) = redactor.event(event);
        out.push_str(&String::from_utf8_lossy(&redacted));
        out.push('\n');
        changed += u64::from(!counts.is_empty());
        counts.into_iter().for_each(|(rule, count)| *totals.entry(rule).or_default() += count);
    }
    let subject = if events.is_empty() {
        let (redacted, counts) = redactor.text(&text);
        out = redacted;
        totals = counts;
        "a text, no events".to_owned()
    } else {
        format!("{}, {changed} with redactions", plural(events.len() as u64, "event"))
    };
    let rules: Vec<String> = totals.iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    let found = if rules.is_empty() { "nothing found".to_owned() } else { rules.join(", ") };
    eprintln!("cairn: {subject}: {found}");
    print(out, Exit::Success)
}

fn read(args: &RedactArgs) -> io::Result<String> {
    if args.test.as_os_str() != "-" {
        return fs::read_to_string(&args.test);
    }
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

/// The events in a text, in canonical form: one, an array of them, or one on each line; none if the text is anything else.
fn events(text: &str) -> Vec<Vec<u8>> {
    let is_object = |canonical: &Vec<u8>| canonical.first() == Some(&b'{');
    if let Ok(whole) = canonicalize(text) {
        if is_object(&whole) {
            return vec![whole];
        }
        let elements = scan::elements(&whole).map(<[u8]>::to_vec).collect::<Vec<_>>();
        return if elements.iter().all(is_object) { elements } else { Vec::new() };
    }
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let events: Option<Vec<Vec<u8>>> = lines.map(|line| canonicalize(line).ok().filter(is_object)).collect();
    events.unwrap_or_default()
}
