//! What was done: the rows of `action_type` and `action_name`.

use super::row::{Gives, Row, Source, Test, When, attribute, row};

const GENAI: &str = "OpenTelemetry GenAI conventions";
const OPENINFERENCE: &str = "OpenInference";
const TRACELOOP: &str = "Traceloop";
const VERCEL: &str = "Vercel AI SDK";
const LANGSMITH: &str = "LangSmith";
const CLAUDE: &str = "Claude Code";
const PYDANTIC: &str = "Pydantic AI";
const CODING_AGENTS: &str = "Claude Code, Codex, Gemini CLI";
const SEMANTIC_KERNEL: &str = "Semantic Kernel";
const LIVEKIT: &str = "LiveKit Agents";
const MLFLOW: &str = "MLflow";

const TOOL: &str = "TOOL_CALL";
const LLM: &str = "LLM_CALL";
const TURN: &str = "AGENT_TURN";

/// The rows of `action_type`. Without any of them it is `CUSTOM`.
pub const ACTION_TYPE: &[Row] = &[
    attribute("gen_ai.operation.name", GENAI)
        .is(&["execute_tool", "retrieval", "vector_db_retrieve", "*_memory", "*_memory_store"])
        .means(TOOL)
        .of_spans(),
    attribute("openinference.span.kind", OPENINFERENCE).is(&["TOOL", "RETRIEVER", "RERANKER"]).means(TOOL).of_spans(),
    attribute("traceloop.span.kind", TRACELOOP).is(&["tool"]).means(TOOL).of_spans(),
    attribute("langsmith.span.kind", LANGSMITH).is(&["tool", "retriever"]).means(TOOL).of_spans(),
    attribute("langfuse.observation.type", "Langfuse").is(&["tool", "retriever"]).means(TOOL).of_spans(),
    attribute("genkit:metadata:subtype", "Genkit")
        .is(&["tool", "tool.v2", "retriever", "reranker"])
        .means(TOOL)
        .of_spans(),
    attribute("mastra.span.type", "Mastra").is(&["tool_call", "mcp_tool_call"]).means(TOOL).of_spans(),
    attribute("span.type", CLAUDE).is(&["tool"]).means(TOOL).of_spans(),
    attribute("mcp.method.name", "MCP").is(&["tools/call"]).means(TOOL).of_spans(),
    attribute("haystack.component.type", "Haystack").is(&["*Retriever", "ToolInvoker"]).means(TOOL).of_spans(),
    row(Source::Name, VERCEL).is(&["ai.toolCall", "tool.*"]).means(TOOL).of_spans(),
    row(Source::Name, "Haystack").is(&["haystack.agent.step.tool"]).means(TOOL).of_spans(),
    row(Source::Name, PYDANTIC)
        .is(&["running tool", "running tool *", "running tool: *", "running output function"])
        .means(TOOL)
        .of_spans(),
    row(Source::Name, "Strands Agents before 1.0").is(&["Tool: *"]).means(TOOL).of_spans(),
    row(Source::Name, LIVEKIT).is(&["function_tool"]).means(TOOL).of_spans(),
    attribute("spring.ai.kind", "Spring AI").is(&["tool_call"]).means(TOOL).of_spans(),
    attribute("mlflow.spanType", MLFLOW).is(&["TOOL", "\"TOOL\"", "RETRIEVER", "\"RETRIEVER\""]).means(TOOL).of_spans(),
    attribute("agentops.span.kind", "AgentOps").is(&["tool"]).means(TOOL).of_spans(),
    attribute("gen_ai.operation.name", GENAI)
        .is(&["chat", "text_completion", "generate_content", "embeddings"])
        .means(LLM)
        .of_spans(),
    attribute("mlflow.spanType", MLFLOW)
        .is(&["LLM", "\"LLM\"", "CHAT_MODEL", "\"CHAT_MODEL\"", "EMBEDDING", "\"EMBEDDING\""])
        .means(LLM)
        .of_spans(),
    attribute("agentops.span.kind", "AgentOps").is(&["llm"]).means(LLM).of_spans(),
    row(Source::Name, "Strands Agents before 1.0").is(&["Model invoke"]).means(LLM).of_spans(),
    row(Source::Name, LIVEKIT).is(&["llm_node"]).means(LLM).of_spans(),
    attribute("gen_ai.operation.name", SEMANTIC_KERNEL)
        .is(&["chat.completions", "chat.streaming_completions", "text.completions", "text.streaming_completions"])
        .means(LLM)
        .of_spans(),
    attribute("openinference.span.kind", OPENINFERENCE).is(&["LLM", "EMBEDDING"]).means(LLM).of_spans(),
    attribute("llm.request.type", TRACELOOP).is(&["chat", "completion", "embedding"]).means(LLM).of_spans(),
    attribute("langsmith.span.kind", LANGSMITH).is(&["llm", "embedding"]).means(LLM).of_spans(),
    attribute("langfuse.observation.type", "Langfuse").is(&["generation", "embedding"]).means(LLM).of_spans(),
    attribute("genkit:metadata:subtype", "Genkit").is(&["model", "background-model", "embedder"]).means(LLM).of_spans(),
    attribute("mastra.span.type", "Mastra").is(&["llm_generation", "model_generation"]).means(LLM).of_spans(),
    attribute("span.type", CLAUDE).is(&["llm_request"]).means(LLM).of_spans(),
    attribute("haystack.component.type", "Haystack").is(&["*Generator", "*Embedder"]).means(LLM).of_spans(),
    row(Source::Name, VERCEL).is(&["*.doGenerate", "*.doStream", "*.doEmbed", "*.doRerank"]).means(LLM).of_spans(),
    row(Source::Name, "Haystack").is(&["haystack.agent.step.llm"]).means(LLM).of_spans(),
    row(Source::Name, "Google ADK").is(&["call_llm"]).means(LLM).of_spans(),
    attribute("gen_ai.operation.name", GENAI).is(&["invoke_agent", "invoke_workflow"]).means(TURN).of_spans(),
    attribute("gen_ai.operation.name", "Strands Agents").is(&["invoke_swarm", "invoke_graph"]).means(TURN).of_spans(),
    attribute("openinference.span.kind", OPENINFERENCE).is(&["AGENT"]).means(TURN).of_spans(),
    attribute("traceloop.span.kind", TRACELOOP).is(&["agent"]).means(TURN).of_spans(),
    attribute("langfuse.observation.type", "Langfuse").is(&["agent"]).means(TURN).of_spans(),
    attribute("langsmith.span.kind", LANGSMITH).is(&["agent"]).means(TURN).of_spans(),
    attribute("genkit:metadata:subtype", "Genkit").is(&["flow", "agent"]).means(TURN).of_spans(),
    attribute("mastra.span.type", "Mastra").is(&["agent_run", "workflow_run"]).means(TURN).of_spans(),
    attribute("span.type", CLAUDE).is(&["interaction"]).means(TURN).of_spans(),
    row(Source::Name, "LangChain")
        .if_value(Test::SameAs(&Source::Member("metadata", "lc_agent_name")))
        .when(When::Attribute("openinference.span.kind", "CHAIN"))
        .means(TURN)
        .of_spans(),
    row(Source::Name, "LangChain")
        .if_value(Test::SameAs(&Source::Attribute("metadata.lc_agent_name")))
        .when(When::Attribute("openinference.span.kind", "CHAIN"))
        .means(TURN)
        .of_spans(),
    row(Source::Name, LANGSMITH)
        .if_value(Test::SameAs(&Source::Attribute("langsmith.metadata.lc_agent_name")))
        .when(When::Attribute("langsmith.span.kind", "chain"))
        .means(TURN)
        .of_spans(),
    row(Source::Name, VERCEL)
        .is(&["ai.generateText", "ai.streamText", "ai.generateObject", "ai.streamObject"])
        .means(TURN)
        .of_spans(),
    row(Source::Name, PYDANTIC).is(&["agent run"]).means(TURN).of_spans(),
    row(Source::Name, "Google ADK 1").is(&["agent_run [*]"]).means(TURN).of_spans(),
    row(Source::Name, LIVEKIT).is(&["agent_turn"]).means(TURN).of_spans(),
    attribute("mlflow.spanType", MLFLOW).is(&["AGENT", "\"AGENT\""]).means(TURN).of_spans(),
    attribute("agentops.span.kind", "AgentOps").is(&["agent"]).means(TURN).of_spans(),
    row(Source::Name, "Haystack").is(&["haystack.agent.run"]).means(TURN).of_spans(),
    row(Source::Name, GENAI).is(&["invoke_agent *", "invoke_workflow *"]).means(TURN).of_spans(),
    row(Source::Name, CODING_AGENTS)
        .is(&["tool_result", "*.tool_result", "*.tool_call"])
        .means("TOOL_RESULT")
        .of_logs(),
    row(Source::Name, GENAI).is(&["gen_ai.tool.message"]).means("TOOL_RESULT").of_logs(),
    row(Source::Name, CODING_AGENTS)
        .is(&["api_request", "*.api_request", "api_error", "*.api_error"])
        .means(LLM)
        .of_logs(),
    row(Source::Name, GENAI).is(&["gen_ai.client.inference.operation.details"]).means(LLM).of_logs(),
    row(Source::Name, CODING_AGENTS)
        .is(&["assistant_response", "*.assistant_response", "api_response", "*.api_response"])
        .means("LLM_RESPONSE")
        .of_logs(),
    row(Source::Name, GENAI).is(&["gen_ai.choice"]).means("LLM_RESPONSE").of_logs(),
    row(Source::Name, CODING_AGENTS).is(&["user_prompt", "*.user_prompt"]).means(TURN).of_logs(),
];

/// The rows of `action_name`. A model's call is named after the model, never after a tool that was offered to it.
pub const ACTION_NAME: &[Row] = &[
    attribute("gen_ai.tool.name", GENAI).when(When::NotType(LLM)).of_spans(),
    attribute("tool.name", OPENINFERENCE).when(When::NotType(LLM)).of_spans(),
    attribute("ai.toolCall.name", VERCEL).when(When::NotType(LLM)).of_spans(),
    attribute("tool_name", CLAUDE).when(When::Type(TOOL)).of_spans(),
    attribute("traceloop.entity.name", TRACELOOP).when(When::Type(TOOL)).of_spans(),
    attribute("haystack.tool.name", "Haystack").when(When::Type(TOOL)).of_spans(),
    attribute("gen_ai.request.model", GENAI).when(When::Type(LLM)).of_spans(),
    attribute("llm.model_name", OPENINFERENCE).when(When::Type(LLM)).of_spans(),
    attribute("embedding.model_name", OPENINFERENCE).when(When::Type(LLM)).of_spans(),
    attribute("ai.model.id", VERCEL).when(When::Type(LLM)).of_spans(),
    attribute("langfuse.observation.model.name", "Langfuse").when(When::Type(LLM)).of_spans(),
    attribute("gen_ai.response.model", GENAI).when(When::Type(LLM)).of_spans(),
    attribute("langsmith.metadata.ls_model_name", LANGSMITH).when(When::Type(LLM)).of_spans(),
    attribute("model", CLAUDE).when(When::Type(LLM)).of_spans(),
    attribute("genkit:name", "Genkit").of_spans(),
    attribute("spring.ai.tool.definition.name", "Spring AI").of_spans(),
    attribute("lk.function_tool.name", LIVEKIT).of_spans(),
    attribute("logfire.msg", "Logfire")
        .is(&["running tool *", "running tool: *"])
        .when(When::Type(TOOL))
        .gives(Gives::Wildcard)
        .of_spans(),
    attribute("logfire.msg", "Logfire").of_spans(),
    row(Source::Name, "Strands Agents before 1.0").is(&["Tool: *"]).gives(Gives::Wildcard).of_spans(),
    row(Source::Name, "DSPy").is(&["*.__call__"]).gives(Gives::WithoutSuffix(".__call__")).of_spans(),
    row(Source::Name, ""),
];
