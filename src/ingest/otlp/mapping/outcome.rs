//! How it ended: the rows of `action_status` and `error_message`. A status never claims more than was said: `success`
//! only if something says so, and no status if nothing says anything.

use super::row::{Row, Source, Test, When, attribute, row};

const OTEL: &str = "OpenTelemetry";
const LANGSMITH: &str = "LangSmith";
const CLAUDE: &str = "Claude Code";

const SUCCESS: &str = "success";
const ERROR: &str = "error";
const TIMEOUT: &str = "timeout";

/// The rows of `action_status`.
pub const ACTION_STATUS: &[Row] = &[
    attribute("error.type", "OpenTelemetry conventions").is(&["timeout"]).means(TIMEOUT),
    row(Source::StatusCode, OTEL).is(&["ERROR"]).means(ERROR).of_spans(),
    row(Source::Severity, OTEL).if_value(Test::AtLeast(17)).means(ERROR).of_logs(),
    attribute("error.type", "OpenTelemetry conventions").if_value(Test::Error).means(ERROR),
    attribute("error", "OpenTracing, Claude Code").if_value(Test::Error).means(ERROR),
    attribute("success", CLAUDE).if_value(Test::False).means(ERROR),
    attribute("error.message", "OpenTelemetry conventions").if_value(Test::Error).means(ERROR),
    attribute("error_type", "Codex").if_value(Test::Error).means(ERROR).of_logs(),
    attribute("exception.message", OTEL).if_value(Test::Error).means(ERROR),
    attribute("exception.type", OTEL).if_value(Test::Error).means(ERROR),
    attribute("gen_ai.tool.status", "Strands Agents").is(&["error", "failure", "failed"]).means(ERROR),
    attribute("langfuse.observation.level", "Langfuse").is(&["ERROR"]).means(ERROR),
    attribute("haystack.tool.error", "Haystack").if_value(Test::Error).means(ERROR),
    attribute("tool.status", "Strands Agents before 1.0").is(&["error"]).means(ERROR),
    attribute("lk.function_tool.is_error", "LiveKit Agents").if_value(Test::True).means(ERROR),
    attribute("genkit:state", "Genkit").is(&["error"]).means(ERROR),
    attribute("logfire.level_num", "Logfire").if_value(Test::AtLeast(17)).means(ERROR),
    row(Source::OutputMember("isError"), "MCP").if_value(Test::True).when(When::Type("TOOL_CALL")).means(ERROR),
    row(Source::OutputMember("isError"), "MCP").if_value(Test::True).when(When::Type("TOOL_RESULT")).means(ERROR),
    // LangSmith sets OK before it knows the outcome.
    row(Source::Event("exception"), LANGSMITH).when(When::Has("langsmith.span.kind")).means(ERROR).of_spans(),
    row(Source::Event("exception"), LANGSMITH).when(When::Scope("langsmith")).means(ERROR).of_spans(),
    row(Source::StatusCode, OTEL).is(&["OK"]).means(SUCCESS).of_spans(),
    attribute("success", CLAUDE).if_value(Test::True).means(SUCCESS),
    attribute("gen_ai.tool.status", "Strands Agents").is(&["success"]).means(SUCCESS),
    attribute("genkit:state", "Genkit").is(&["success"]).means(SUCCESS),
    row(Source::Event("exception"), OTEL).means(ERROR).of_spans(),
];

/// The rows of `error_message`.
pub const ERROR_MESSAGE: &[Row] = &[
    row(Source::StatusMessage, OTEL).if_value(Test::NotTraceback).of_spans(),
    row(Source::EventAttribute("exception", "exception.message"), OTEL).of_spans(),
    row(Source::StatusMessage, OTEL).of_spans(),
    attribute("langfuse.observation.status_message", "Langfuse"),
    attribute("error.message", "OpenTelemetry conventions").if_value(Test::Error),
    attribute("exception.message", OTEL).if_value(Test::Error),
    attribute("error", "OpenTracing, Claude Code").if_value(Test::Error),
    row(Source::EventAttribute("exception", "exception.type"), OTEL).of_spans(),
    attribute("exception.type", OTEL).if_value(Test::Error),
    row(Source::OutputMember("error"), "Haystack, Langfuse").if_value(Test::Error),
    attribute("error.type", "OpenTelemetry conventions").if_value(Test::Error),
    attribute("error_type", "Codex").if_value(Test::Error).of_logs(),
    row(Source::Body, OTEL).of_logs(),
];
