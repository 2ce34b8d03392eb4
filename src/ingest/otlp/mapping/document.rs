//! Writes the mapping as the tables of `docs/otlp.md`. A test compares them with the document.

use std::fmt::Write;

use super::row::{Gives, Records, Row, Source, Target, Test, When};
use super::table::rows;

/// All tables, each under a heading with the name of its field.
pub fn tables() -> String {
    let mut out = String::new();
    for target in Target::ALL {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "#### `{}`\n", target.name());
        out.push_str("| value | from |\n|---|---|\n");
        for (value, sources) in lines(rows(target)) {
            let _ = writeln!(out, "| {value} | {} |", sources.join("<br>"));
        }
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// The lines of a table: a value, and its sources. Rows one after the other with the same value share a line.
fn lines(rows: &[Row]) -> Vec<(String, Vec<String>)> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let parts = [from(row.source), condition(row), serves(row)];
        let source = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        match lines.last_mut() {
            Some((last, sources)) if *last == value(row) => sources.push(source),
            _ => lines.push((value(row), vec![source])),
        }
    }
    lines
}

fn serves(row: &Row) -> String {
    if row.serves.is_empty() { String::new() } else { format!("({})", row.serves) }
}

fn code(texts: &[&str]) -> String {
    texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ")
}

fn from(source: Source) -> String {
    match source {
        Source::Attribute(name) => format!("`{name}`"),
        Source::Member(name, member) => format!("`{member}` in `{name}`"),
        Source::Indexed(prefix) => format!("`{prefix}.N.*`"),
        Source::EventAttribute(event, name) => format!("`{name}` of the events `{event}`"),
        Source::EventMessages(names) => format!("the events {}", code(names)),
        Source::Event(name) => format!("an event `{name}`"),
        Source::Resource(name) => format!("`{name}` of the resource"),
        Source::Scope => "name of the scope".to_owned(),
        Source::Name => "name".to_owned(),
        Source::Body => "body".to_owned(),
        Source::BodyMember(name) => format!("`{name}` of the body"),
        Source::StatusCode => "status code".to_owned(),
        Source::StatusMessage => "status message".to_owned(),
        Source::Severity => "severity number".to_owned(),
        Source::OutputMember(name) => format!("`{name}` of `action_output`"),
        Source::Ancestor => "nearest ancestor in the request".to_owned(),
        Source::Span => "the span of the record, if it was received before".to_owned(),
        Source::TraceId => "trace id".to_owned(),
        Source::DefaultAgent => "`ingest.otlp.agent_id`".to_owned(),
    }
}

fn condition(row: &Row) -> String {
    let test = match row.test {
        Test::Present => String::new(),
        Test::OneOf(texts) => format!("is {}", code(texts)),
        Test::True => "is true".to_owned(),
        Test::False => "is false".to_owned(),
        Test::Error => "is an error".to_owned(),
        Test::AtLeast(least) => format!("≥ {least}"),
        Test::NotEmptyObject => "is not `{}`".to_owned(),
        Test::NotRandom => "is no random id".to_owned(),
        Test::NotDefaultService => "is not `unknown_service*`".to_owned(),
        Test::NotTraceback => "has no stack trace".to_owned(),
        Test::SameAs(source) => format!("equals {}", from(*source)),
    };
    let when = match row.when {
        When::Always => String::new(),
        When::Type(name) => format!("if the type is `{name}`"),
        When::NotType(name) => format!("if the type is not `{name}`"),
        When::Attribute(name, text) => format!("if `{name}` is `{text}`"),
        When::NotAttribute(name, text) => format!("if `{name}` is not `{text}`"),
        When::Has(name) => format!("if there is `{name}`"),
        When::Name(pattern) => format!("if the name is `{pattern}`"),
        When::Scope(pattern) => format!("if the scope is `{pattern}`"),
    };
    let records = match row.records {
        Records::All => String::new(),
        Records::Spans => "of a span".to_owned(),
        Records::Logs => "of a log record".to_owned(),
    };
    [records, test, when].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}

fn value(row: &Row) -> String {
    match row.gives {
        Gives::Value => "the value".to_owned(),
        Gives::Constant(text) => format!("`{text}`"),
        Gives::WithoutSuffix(suffix) => format!("the value without `{suffix}`"),
        Gives::Wildcard => "what `*` stands for".to_owned(),
        Gives::Decoded => "the value, decoded from JSON".to_owned(),
    }
}
