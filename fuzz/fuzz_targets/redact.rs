//! Redaction with all built-in patterns: what is stored is canonical, is valid, and is unchanged unless something was counted; and no
//! input takes long for its length.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use cairn::ingest::{RedactionConfig, Redactor};
use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{AgentKey, EventReader, EventSource, Field, canonicalize, scan};
use libfuzzer_sys::fuzz_target;

/// Far more than any input of 8 KiB takes with instrumentation, and less than quadratic time would.
const LONG: Duration = Duration::from_secs(5);

static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| {
    let presets = vec!["secrets".to_owned(), "pii".to_owned()];
    Redactor::new(&RedactionConfig { presets, ..RedactionConfig::default() }).expect("the built-in patterns")
});

fuzz_target!(|text: &str| {
    let output = match canonicalize(text) {
        Ok(canonical) => String::from_utf8(canonical).expect("UTF-8"),
        Err(_) => serde_json::to_string(text).expect("a string"),
    };
    let event = format!("{{\"agent_id\":\"a\",\"action_output\":{output}}}");
    let mut reader = EventReader::default();
    let started = Instant::now();
    let source = EventSource::HTTP_API.with_redactor(&*REDACTOR);
    let Ok((content, _)) = reader.read(&event, 0, source, usize::MAX) else { return };
    assert!(started.elapsed() < LONG, "{:?} for {} bytes", started.elapsed(), text.len());
    let mut bytes = Vec::new();
    content.write(&mut bytes);
    Checker::default().check(&bytes, AgentKey::of("a")).expect("a stored event is canonical");
    let stored = scan::member(&bytes, Field::ActionOutput.name());
    let is_counted = scan::member(&bytes, Field::Redactions.name()).is_some();
    assert!(is_counted || output == "null" || stored == Some(output.as_bytes()), "changed without a count");
});
