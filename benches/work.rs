//! The steps of an event's path, as the server performs them: for the micro-benchmarks, and for the test that counts
//! their allocations (`tests/ingest/allocations.rs`).

use cairn::ingest::OtlpConfig;
use cairn::ingest::otlp::{Items, Limits, Mapped, Mapper, Mapping, NoEvents, Signal, Surroundings, mapping};
use cairn::ledger::format::keys::Position;
use cairn::ledger::format::record::{Draft, Record, RecordAnswer, Stamp};
use cairn_proof::chain::walk::Checker;
use cairn_proof::chain::{EventReader, EventSource, Hash, Sequence, Walk};
use serde_json::{Value, json};

use super::protobuf::{export, span};

/// The number of spans in [`spans`].
pub const SPANS: usize = 64;

/// An event of about 300 bytes, as JSON text.
pub fn event() -> String {
    json!({
        "timestamp": "2026-02-17T10:30:00.250Z",
        "agent_id": "research-agent",
        "session_id": "session-17",
        "action_type": "TOOL_CALL",
        "action_name": "search_orders",
        "action_status": "success",
        "action_input": {"query": "orders of customer 1234 since March", "limit": 20, "sorted": true},
        "labels": {"env": "prod", "team": "support"},
        "duration_ms": 812,
    })
    .to_string()
}

/// An export of [`SPANS`] spans with ten attributes each.
pub fn spans() -> Vec<u8> {
    let messages = r#"[{"role":"user","parts":[{"type":"text","content":"What is the weather in Rome?"}]}]"#;
    let attributes: [(&str, Value); 10] = [
        ("gen_ai.operation.name", json!("chat")),
        ("gen_ai.provider.name", json!("openai")),
        ("gen_ai.request.model", json!("gpt-5")),
        ("gen_ai.agent.name", json!("researcher")),
        ("gen_ai.conversation.id", json!("conversation-7")),
        ("gen_ai.usage.input_tokens", json!(1234)),
        ("gen_ai.usage.output_tokens", json!(321)),
        ("gen_ai.input.messages", json!(messages)),
        ("gen_ai.response.finish_reasons", json!(["stop"])),
        ("server.address", json!("api.example.com")),
    ];
    export("planner", (0..SPANS as u64).map(|n| span(n + 1, "chat gpt-5", &attributes)))
}

/// Reads an event and lays out its record.
pub fn canonicalize(reader: &mut EventReader, text: &str) -> Draft {
    let (content, _) = reader.read(text, 0, EventSource::HTTP_API.with_salt(true), usize::MAX).expect("an event");
    Draft::new(&content)
}

/// Fills in the values that the shard assigns, and computes the hash.
pub fn seal(draft: Draft) -> Record {
    let mut record = draft.stamp(&Stamp {
        salt: [7; 16],
        received_at: *b"2026-02-17T10:30:00.500Z",
        id_ms: 1_771_324_200_500,
        first_of_ms: Position(0),
        position: Position(1),
        random: 0x0123_4567_89AB_CDEF,
        sequence: Sequence(1),
    });
    record.seal(&Hash::GENESIS);
    record
}

/// Turns a sealed record into the answer.
pub fn answer(record: Record) -> RecordAnswer {
    record.into_answer()
}

/// Verifies the link, and that the content is an event in canonical form.
pub fn verify(record: &Record, checker: &mut Checker) {
    Walk::default().step(&record.as_ref().link(), checker).expect("a valid event");
}

/// What the mapping of every request uses.
pub struct Otlp {
    config: OtlpConfig,
    mapping: Mapping,
}

impl Default for Otlp {
    fn default() -> Otlp {
        Otlp { config: OtlpConfig::default(), mapping: mapping::build(&[]) }
    }
}

/// Maps the spans of an export to drafts; returns the number of drafts.
pub fn map(request: &[u8], otlp: &Otlp) -> usize {
    let limits = Limits { event: 1 << 20, items: SPANS, expanded_bytes: 1 << 24 };
    let around = Surroundings { config: &otlp.config, mapping: &otlp.mapping, stored: &NoEvents, limits };
    let mut mapper = Mapper::new(Signal::Traces, request, around).expect("an export");
    Items::of(request)
        .filter(|item| matches!(mapper.map(item.as_ref().expect("a span"), &[]), Ok(Mapped::Draft(..))))
        .count()
}
