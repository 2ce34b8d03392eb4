//! What went in and came out: the rows of `action_input` and `action_output`.

use super::row::{Gives, Row, Source, Test, When, attribute, row};

const GENAI: &str = "OpenTelemetry GenAI conventions";
const GENAI_OLD: &str = "OpenTelemetry GenAI conventions before 1.37";
const OPENINFERENCE: &str = "OpenInference";
const TRACELOOP: &str = "Traceloop";
const VERCEL: &str = "Vercel AI SDK";
const CLAUDE: &str = "Claude Code";
const PYDANTIC: &str = "Pydantic AI";
const ADK: &str = "Google ADK";
const CODEX: &str = "Codex";
const LIVEKIT: &str = "LiveKit Agents";

const OPERATION: &str = "gen_ai.operation.name";

/// The event with the details of a model's call, of spans and log records.
const DETAILS: &str = "gen_ai.client.inference.operation.details";

/// The events with the messages that a model or a tool was given.
const INPUT_MESSAGES: &[&str] =
    &["gen_ai.system.message", "gen_ai.user.message", "gen_ai.assistant.message", "gen_ai.tool.message"];

/// The rows of `action_input`.
pub const ACTION_INPUT: &[Row] = &[
    attribute("gen_ai.tool.call.arguments", GENAI),
    attribute("gen_ai.tool.args", "OpenLIT").when(When::Type("TOOL_CALL")),
    attribute("gen_ai.input.messages", GENAI),
    row(Source::EventAttribute(DETAILS, "gen_ai.input.messages"), GENAI).of_spans(),
    row(Source::BodyMember("gen_ai.input.messages"), GENAI).of_logs(),
    attribute("ai.toolCall.args", VERCEL).of_spans(),
    attribute("ai.prompt", VERCEL).of_spans(),
    attribute("ai.prompt.messages", VERCEL).of_spans(),
    attribute("ai.value", VERCEL).of_spans(),
    attribute("ai.values", VERCEL).of_spans(),
    attribute("input.value", OPENINFERENCE)
        .when(When::Attribute("input.mime_type", "application/json"))
        .gives(Gives::Decoded)
        .of_spans(),
    attribute("input.value", OPENINFERENCE).of_spans(),
    attribute("traceloop.entity.input", TRACELOOP).of_spans(),
    attribute("langfuse.observation.input", "Langfuse").gives(Gives::Decoded).of_spans(),
    attribute("langfuse.trace.input", "Langfuse").gives(Gives::Decoded).of_spans(),
    attribute("gcp.vertex.agent.tool_call_args", ADK).if_value(Test::NotEmptyObject).of_spans(),
    attribute("gcp.vertex.agent.llm_request", ADK).if_value(Test::NotEmptyObject).of_spans(),
    attribute("haystack.agent.step.tool.input", "Haystack").of_spans(),
    attribute("haystack.agent.step.llm.input", "Haystack").of_spans(),
    attribute("haystack.agent.input", "Haystack").of_spans(),
    attribute("haystack.component.input", "Haystack").of_spans(),
    attribute("haystack.pipeline.input_data", "Haystack").of_spans(),
    attribute("genkit:input", "Genkit").gives(Gives::Decoded).of_spans(),
    attribute("mastra.*.input", "Mastra").of_spans(),
    attribute("tool_arguments", PYDANTIC).of_spans(),
    attribute("pydantic_ai.all_messages", PYDANTIC).of_spans(),
    attribute("gen_ai.prompt", "GenAI conventions before 1.28, LangSmith").of_spans(),
    row(Source::Indexed("gen_ai.prompt"), TRACELOOP).of_spans(),
    row(Source::Indexed("llm.input_messages"), OPENINFERENCE).of_spans(),
    row(Source::EventAttribute("gen_ai.content.prompt", "gen_ai.prompt"), "GenAI conventions before 1.28").of_spans(),
    row(Source::EventMessages(INPUT_MESSAGES), GENAI_OLD).of_spans(),
    attribute("user_prompt", CLAUDE).of_spans(),
    attribute("full_command", CLAUDE).of_spans(),
    attribute("gen_ai.retrieval.query.text", GENAI).of_spans(),
    attribute("gen_ai.memory.query.text", GENAI).of_spans(),
    attribute("gen_ai.memory.records", GENAI).when(When::NotAttribute(OPERATION, "search_memory")).of_spans(),
    attribute("mcp.request.argument", TRACELOOP).of_spans(),
    attribute("reranker.query", OPENINFERENCE).of_spans(),
    attribute("gen_ai.content.prompt", "OpenLIT").of_spans(),
    attribute("request_data", "Logfire").when(When::Scope("logfire.*")).of_spans(),
    attribute("all_messages_events", PYDANTIC).of_spans(),
    attribute("events", PYDANTIC).when(When::Scope("pydantic*")).of_spans(),
    attribute("message", "AutoGen").is(&["{*"]).when(When::Scope("autogen*")).of_spans(),
    attribute("gcp.vertex.agent.data", ADK).if_value(Test::NotEmptyObject).of_spans(),
    attribute("tool.parameters", "Strands Agents before 1.0").when(When::Scope("strands*")).of_spans(),
    attribute("spring.ai.tool.call.arguments", "Spring AI").of_spans(),
    attribute("mlflow.spanInputs", "MLflow").gives(Gives::Decoded).of_spans(),
    attribute("agentops.entity.input", "AgentOps").of_spans(),
    attribute("lk.function_tool.arguments", LIVEKIT).of_spans(),
    attribute("lk.user_input", LIVEKIT).of_spans(),
    attribute("lk.chat_ctx", LIVEKIT).of_spans(),
    attribute("braintrust.input_json", "Braintrust").gives(Gives::Decoded).of_spans(),
    row(Source::Body, GENAI_OLD).when(When::Name("gen_ai.system.message")).of_logs(),
    row(Source::Body, GENAI_OLD).when(When::Name("gen_ai.user.message")).of_logs(),
    row(Source::Body, GENAI_OLD).when(When::Name("gen_ai.assistant.message")).of_logs(),
    attribute("prompt", CLAUDE).of_logs(),
    attribute("arguments", CODEX).of_logs(),
    attribute("tool_input", CLAUDE).of_logs(),
    attribute("tool_parameters", CLAUDE).of_logs(),
    attribute("function_args", "Gemini CLI").of_logs(),
    attribute("request_text", "Gemini CLI").of_logs(),
];

/// The rows of `action_output`.
pub const ACTION_OUTPUT: &[Row] = &[
    attribute("gen_ai.tool.call.result", GENAI),
    attribute("gen_ai.output.messages", GENAI),
    row(Source::EventAttribute(DETAILS, "gen_ai.output.messages"), GENAI).of_spans(),
    row(Source::BodyMember("gen_ai.output.messages"), GENAI).of_logs(),
    attribute("ai.toolCall.result", VERCEL).of_spans(),
    attribute("ai.response.text", VERCEL).of_spans(),
    attribute("ai.response.toolCalls", VERCEL).of_spans(),
    attribute("ai.response.object", VERCEL).of_spans(),
    attribute("output.value", OPENINFERENCE)
        .when(When::Attribute("output.mime_type", "application/json"))
        .gives(Gives::Decoded)
        .of_spans(),
    attribute("output.value", OPENINFERENCE).of_spans(),
    attribute("traceloop.entity.output", TRACELOOP).of_spans(),
    attribute("langfuse.observation.output", "Langfuse").gives(Gives::Decoded).of_spans(),
    attribute("langfuse.trace.output", "Langfuse").gives(Gives::Decoded).of_spans(),
    attribute("gcp.vertex.agent.tool_response", ADK).if_value(Test::NotEmptyObject).of_spans(),
    attribute("gcp.vertex.agent.llm_response", ADK).if_value(Test::NotEmptyObject).of_spans(),
    attribute("haystack.agent.step.tool.output", "Haystack").of_spans(),
    attribute("haystack.agent.step.llm.output", "Haystack").of_spans(),
    attribute("haystack.agent.output", "Haystack").of_spans(),
    attribute("haystack.component.output", "Haystack").of_spans(),
    attribute("haystack.pipeline.output_data", "Haystack").of_spans(),
    attribute("genkit:output", "Genkit").gives(Gives::Decoded).of_spans(),
    attribute("mastra.*.output", "Mastra").of_spans(),
    attribute("tool_response", PYDANTIC).of_spans(),
    attribute("final_result", PYDANTIC).of_spans(),
    attribute("gen_ai.completion", "GenAI conventions before 1.28, LangSmith")
        .if_value(Test::NotEmptyObject)
        .of_spans(),
    row(Source::Indexed("gen_ai.completion"), TRACELOOP).of_spans(),
    row(Source::Indexed("llm.output_messages"), OPENINFERENCE).of_spans(),
    row(Source::EventAttribute("gen_ai.content.completion", "gen_ai.completion"), "GenAI conventions before 1.28")
        .of_spans(),
    row(Source::EventMessages(&["gen_ai.choice"]), GENAI_OLD).of_spans(),
    row(Source::EventAttribute("tool.output", "output"), CLAUDE).of_spans(),
    row(Source::EventMessages(&["tool.output"]), CLAUDE).of_spans(),
    attribute("return", "Logfire").when(When::Has("logfire.msg")).of_spans(),
    attribute("gen_ai.retrieval.documents", GENAI).of_spans(),
    attribute("gen_ai.memory.records", GENAI).when(When::Attribute(OPERATION, "search_memory")).of_spans(),
    row(Source::Indexed("retrieval.documents"), OPENINFERENCE).of_spans(),
    row(Source::Indexed("reranker.output_documents"), OPENINFERENCE).of_spans(),
    attribute("mcp.response.value", TRACELOOP).of_spans(),
    attribute("gen_ai.content.completion", "OpenLIT").of_spans(),
    attribute("response_data", "Logfire").when(When::Scope("logfire.*")).of_spans(),
    attribute("tool.result", "Strands Agents before 1.0").when(When::Scope("strands*")).of_spans(),
    attribute("spring.ai.tool.call.result", "Spring AI").of_spans(),
    attribute("mlflow.spanOutputs", "MLflow").gives(Gives::Decoded).of_spans(),
    attribute("agentops.entity.output", "AgentOps").of_spans(),
    attribute("lk.function_tool.output", LIVEKIT).of_spans(),
    attribute("lk.response.text", LIVEKIT).of_spans(),
    attribute("braintrust.output_json", "Braintrust").gives(Gives::Decoded).of_spans(),
    row(Source::Body, GENAI_OLD).when(When::Name("gen_ai.choice")).of_logs(),
    row(Source::Body, GENAI_OLD).when(When::Name("gen_ai.tool.message")).of_logs(),
    attribute("output", CODEX).of_logs(),
    attribute("response", CLAUDE).of_logs(),
    attribute("response_text", "Gemini CLI").of_logs(),
];
