//! Who acted, and in which session: the rows of `agent_id`, `session_id` and `user_id`.

use super::row::{Gives, Row, Source, Test, When, attribute, row};

const GENAI: &str = "OpenTelemetry GenAI conventions";
const OPENINFERENCE: &str = "OpenInference";
const TRACELOOP: &str = "Traceloop";
const VERCEL: &str = "Vercel AI SDK";
const LANGCHAIN: &str = "LangChain";
const LANGSMITH: &str = "LangSmith";

/// The rows of `agent_id`. `gen_ai.agent.id` is not one of them, because some instrumentations create one per run.
pub const AGENT_ID: &[Row] = &[
    attribute("gen_ai.agent.name", GENAI),
    attribute("agent.name", OPENINFERENCE),
    attribute("traceloop.association.properties.lc_agent_name", TRACELOOP),
    attribute("langsmith.metadata.lc_agent_name", LANGSMITH),
    attribute("traceloop.entity.name", TRACELOOP).when(When::Attribute("traceloop.span.kind", "agent")).of_spans(),
    attribute("traceloop.workflow.name", TRACELOOP),
    attribute("gen_ai.workflow.name", GENAI),
    attribute("ai.telemetry.functionId", VERCEL),
    attribute("metadata.lc_agent_name", LANGCHAIN),
    row(Source::Member("metadata", "lc_agent_name"), LANGCHAIN),
    attribute("agent_name", "Pydantic AI, Logfire"),
    attribute("lk.agent_name", "LiveKit Agents").of_spans(),
    attribute("agentops.entity.name", "AgentOps").when(When::Attribute("agentops.span.kind", "agent")).of_spans(),
    attribute("executor.id", "Microsoft Agent Framework")
        .when(When::Attribute("executor.type", "AgentExecutor"))
        .of_spans(),
    attribute("mastra.metadata.agentName", "Mastra"),
    attribute("graph.node.name", "Agno").when(When::Attribute("openinference.span.kind", "AGENT")).of_spans(),
    attribute("graph.node.id", OPENINFERENCE)
        .if_value(Test::NotRandom)
        .when(When::Attribute("openinference.span.kind", "AGENT"))
        .of_spans(),
    row(Source::Name, "smolagents, Agno")
        .is(&["*.run", "*.arun"])
        .when(When::Attribute("openinference.span.kind", "AGENT"))
        .gives(Gives::Wildcard)
        .of_spans(),
    row(Source::Name, "Langfuse").when(When::Attribute("langfuse.observation.type", "agent")).of_spans(),
    attribute("genkit:name", "Genkit").when(When::Attribute("genkit:metadata:subtype", "flow")).of_spans(),
    attribute("genkit:name", "Genkit").when(When::Attribute("genkit:metadata:subtype", "agent")).of_spans(),
    // A child is often exported before the flow ends.
    attribute("genkit:path", "Genkit").is(&["/{*,t:flow}*"]).gives(Gives::Wildcard).of_spans(),
    row(Source::Name, "GenAI conventions without the attribute")
        .is(&["invoke_agent *"])
        .gives(Gives::Wildcard)
        .of_spans(),
    row(Source::Name, "Google ADK 1").is(&["agent_run [*]"]).gives(Gives::Wildcard).of_spans(),
    row(Source::Ancestor, "").of_spans(),
    row(Source::Span, "").of_logs(),
    row(Source::Resource("service.name"), "OpenTelemetry SDKs").if_value(Test::NotDefaultService),
    row(Source::DefaultAgent, ""),
];

/// The rows of `session_id`.
pub const SESSION_ID: &[Row] = &[
    attribute("agnost.session_id", "Agnost"),
    attribute("gen_ai.conversation.id", GENAI),
    attribute("session.id", OPENINFERENCE),
    attribute("langfuse.session.id", "Langfuse"),
    attribute("ai.telemetry.metadata.sessionId", VERCEL),
    attribute("ai.telemetry.metadata.conversationId", VERCEL),
    attribute("traceloop.association.properties.session_id", TRACELOOP),
    attribute("traceloop.association.properties.thread_id", TRACELOOP),
    attribute("langsmith.metadata.thread_id", LANGSMITH),
    attribute("langsmith.metadata.session_id", LANGSMITH),
    attribute("langsmith.metadata.conversation_id", LANGSMITH),
    attribute("gcp.vertex.agent.session_id", "Google ADK"),
    attribute("mcp.session.id", "MCP"),
    attribute("conversation.id", "Codex"),
    attribute("ai.settings.context.sessionId", VERCEL),
    attribute("ai.settings.context.conversationId", VERCEL),
    attribute("genkit:sessionId", "Genkit"),
    attribute("mastra.metadata.sessionId", "Mastra"),
    attribute("mastra.metadata.threadId", "Mastra"),
    attribute("gen_ai.thread.id", "Azure AI Agents"),
    attribute("copilot_chat.chat_session_id", "VS Code Copilot"),
    attribute("spring.ai.chat.client.conversation.id", "Spring AI"),
    attribute("ai.telemetry.metadata.projectId", "Agnost"),
    attribute("projectId", "Agnost"),
    row(Source::Ancestor, "").of_spans(),
    row(Source::Span, "").of_logs(),
    row(Source::TraceId, ""),
];

/// The rows of `user_id`.
pub const USER_ID: &[Row] = &[
    attribute("agnost.user_id", "Agnost"),
    attribute("ai.telemetry.metadata.userId", VERCEL),
    attribute("enduser.id", "OpenTelemetry conventions"),
    attribute("user.id", "OpenTelemetry conventions, OpenInference"),
    attribute("langfuse.user.id", "Langfuse"),
    attribute("langsmith.metadata.user_id", LANGSMITH),
    attribute("traceloop.association.properties.user_id", TRACELOOP),
    attribute("mastra.metadata.userId", "Mastra"),
    attribute("gen_ai.request.user", "OpenLIT"),
    attribute("llm.user", TRACELOOP),
    attribute("enduser.pseudo.id", "OpenTelemetry conventions"),
];
