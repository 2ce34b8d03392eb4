//! The attributes that become fields of an event.
//!
//! Each instrumentation has its own names for the same thing. For each field there is a list of names, and the first
//! one that is present applies. `docs/otlp.md`, section "Mapping of spans", specifies the lists.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::value::{Attribute, Fault, Json, METADATA_MEMBER_LEVEL, any_text, attributes, too_many};
use super::wire::Fields;
use cairn_proof::chain::{canonicalize, is_agent_id, scan};

/// The initial capacity of a list of attributes. Most spans have fewer.
const INITIAL_CAPACITY: usize = 16;

macro_rules! known_keys {
    ($($name:ident = $key:literal,)*) => {
        /// The name of an attribute that can become a field of an event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum KnownKey {
            $($name,)*
        }

        impl KnownKey {
            const ALL: &'static [KnownKey] = &[$(KnownKey::$name),*];


            /// The name as it is sent.
            pub fn name(self) -> &'static str {
                match self {
                    $(KnownKey::$name => $key,)*
                }
            }
        }
    };
}

/// The names by their length. Few names have the same length, so a lookup compares few of them.
static BY_LENGTH: LazyLock<Vec<Vec<(&'static str, KnownKey)>>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for key in KnownKey::ALL {
        let length = key.name().len();
        if names.len() <= length {
            names.resize_with(length + 1, Vec::new);
        }
        names[length].push((key.name(), *key));
    }
    names
});

impl KnownKey {
    fn from_key(key: &str) -> Option<KnownKey> {
        BY_LENGTH.get(key.len())?.iter().find(|(name, _)| *name == key).map(|(_, key)| *key)
    }
}

known_keys! {
    AgentName = "agent.name",
    AgnostSessionId = "agnost.session_id",
    AiConversationId = "ai.telemetry.metadata.conversationId",
    AiContextConversationId = "ai.settings.context.conversationId",
    AiContextSessionId = "ai.settings.context.sessionId",
    AiFunctionId = "ai.telemetry.functionId",
    AiModelId = "ai.model.id",
    AiPrompt = "ai.prompt",
    AiPromptMessages = "ai.prompt.messages",
    AiResponseObject = "ai.response.object",
    AiResponseText = "ai.response.text",
    AiResponseToolCalls = "ai.response.toolCalls",
    AiSessionId = "ai.telemetry.metadata.sessionId",
    AiToolCallArgs = "ai.toolCall.args",
    AiToolCallName = "ai.toolCall.name",
    AiToolCallResult = "ai.toolCall.result",
    Arguments = "arguments",
    ConversationId = "conversation.id",
    DeploymentEnvironment = "deployment.environment.name",
    DurationMs = "duration_ms",
    Error = "error",
    ErrorMessage = "error.message",
    ErrorType = "error.type",
    ErrorTypeShort = "error_type",
    EventName = "event.name",
    ExceptionMessage = "exception.message",
    FinalResult = "final_result",
    FullCommand = "full_command",
    GenAiAgentName = "gen_ai.agent.name",
    GenAiConversationId = "gen_ai.conversation.id",
    GenAiInputMessages = "gen_ai.input.messages",
    GenAiOperation = "gen_ai.operation.name",
    GenAiOutputMessages = "gen_ai.output.messages",
    GenAiProvider = "gen_ai.provider.name",
    GenAiRequestModel = "gen_ai.request.model",
    GenAiResponseModel = "gen_ai.response.model",
    GenAiToolArguments = "gen_ai.tool.call.arguments",
    GenAiToolName = "gen_ai.tool.name",
    GenAiToolResult = "gen_ai.tool.call.result",
    GraphNodeId = "graph.node.id",
    InputValue = "input.value",
    LcAgentName = "metadata.lc_agent_name",
    LlmModelName = "llm.model_name",
    McpMethod = "mcp.method.name",
    McpSessionId = "mcp.session.id",
    Metadata = "metadata",
    Model = "model",
    OpenInferenceKind = "openinference.span.kind",
    Output = "output",
    OutputValue = "output.value",
    Prompt = "prompt",
    PydanticMessages = "pydantic_ai.all_messages",
    Response = "response",
    ServiceName = "service.name",
    SessionId = "session.id",
    SpanType = "span.type",
    Success = "success",
    ToolInput = "tool_input",
    ToolName = "tool.name",
    ToolNameShort = "tool_name",
    ToolParameters = "tool_parameters",
    LlmRequestType = "llm.request.type",
    TraceloopSpanKind = "traceloop.span.kind",
    TraceloopEntityName = "traceloop.entity.name",
    TraceloopEntityInput = "traceloop.entity.input",
    TraceloopEntityOutput = "traceloop.entity.output",
    TraceloopLcAgentName = "traceloop.association.properties.lc_agent_name",
    TraceloopSessionId = "traceloop.association.properties.session_id",
    TraceloopThreadId = "traceloop.association.properties.thread_id",
    UserPrompt = "user_prompt",
    TraceloopWorkflowName = "traceloop.workflow.name",
}

/// The attributes for `agent_id`. `gen_ai.agent.id` is not one of them, because some instrumentations create one per
/// run.
pub const AGENT: [KnownKey; 8] = [
    KnownKey::GenAiAgentName,
    KnownKey::AgentName,
    KnownKey::TraceloopLcAgentName,
    KnownKey::TraceloopWorkflowName,
    KnownKey::AiFunctionId,
    KnownKey::LcAgentName,
    KnownKey::Metadata,
    KnownKey::GraphNodeId,
];

/// Collects the attributes that can name the agent of a span, while its attributes are decoded.
#[derive(Default)]
pub struct AgentCandidates<'a> {
    texts: [Option<Cow<'a, str>>; AGENT.len()],
    is_agent: bool,
}

impl<'a> AgentCandidates<'a> {
    /// Adds an attribute. It is ignored if it cannot name an agent.
    pub fn observe(&mut self, attribute: &Attribute<'a>) {
        let Some(key) = KnownKey::from_key(&attribute.key) else { return };
        if let Some(rank) = AGENT.iter().position(|agent| *agent == key) {
            self.texts[rank] = attribute.text();
        }
        if key == KnownKey::OpenInferenceKind {
            self.is_agent = attribute.text().is_some_and(|kind| kind == "AGENT");
        }
    }

    /// The name of the agent, if the attributes contain one.
    pub fn first(mut self) -> Option<Cow<'a, str>> {
        first_agent(self.is_agent, |rank| self.texts[rank].take()).map(|(_, name)| name)
    }
}

/// The first of [`AGENT`] that names an agent, and the name. `text` returns the text of the attribute at an index of
/// [`AGENT`]. A graph node counts as an agent only if the kind of its span is AGENT (`is_agent`).
fn first_agent<'a>(
    is_agent: bool,
    mut text: impl FnMut(usize) -> Option<Cow<'a, str>>,
) -> Option<(KnownKey, Cow<'a, str>)> {
    AGENT.iter().enumerate().find_map(|(rank, key)| {
        let text = text(rank).filter(|_| is_agent || *key != KnownKey::GraphNodeId)?;
        Some((*key, agent_in(*key, text)?))
    })
}

/// The agent that the text of an attribute names, if it is a valid agent id.
fn agent_in(key: KnownKey, text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let name = match key {
        // LangChain's metadata, which OpenInference sends as JSON text.
        KnownKey::Metadata => {
            let metadata = canonicalize(&text).ok()?;
            Cow::Owned(scan::text(scan::member(&metadata, "lc_agent_name")?)?.into_owned())
        }
        _ => text,
    };
    Some(name).filter(|name| is_agent_id(name))
}

/// The attributes for `session_id`.
pub const SESSION: [KnownKey; 11] = [
    KnownKey::AgnostSessionId,
    KnownKey::GenAiConversationId,
    KnownKey::SessionId,
    KnownKey::AiSessionId,
    KnownKey::AiConversationId,
    KnownKey::TraceloopSessionId,
    KnownKey::TraceloopThreadId,
    KnownKey::McpSessionId,
    KnownKey::ConversationId,
    KnownKey::AiContextSessionId,
    KnownKey::AiContextConversationId,
];

/// The attributes for `action_input` of a span.
pub const INPUT: [KnownKey; 10] = [
    KnownKey::GenAiToolArguments,
    KnownKey::GenAiInputMessages,
    KnownKey::AiToolCallArgs,
    KnownKey::AiPrompt,
    KnownKey::AiPromptMessages,
    KnownKey::InputValue,
    KnownKey::TraceloopEntityInput,
    KnownKey::PydanticMessages,
    KnownKey::UserPrompt,
    KnownKey::FullCommand,
];

/// The attributes for `action_output` of a span.
pub const OUTPUT: [KnownKey; 9] = [
    KnownKey::GenAiToolResult,
    KnownKey::GenAiOutputMessages,
    KnownKey::AiToolCallResult,
    KnownKey::AiResponseText,
    KnownKey::AiResponseToolCalls,
    KnownKey::AiResponseObject,
    KnownKey::OutputValue,
    KnownKey::TraceloopEntityOutput,
    KnownKey::FinalResult,
];

/// The prefixes of the attributes that the instrumentation of an agent sets.
const AGENT_PREFIXES: [&str; 6] = ["gen_ai.", "openinference.", "llm.", "traceloop.", "ai.", "mcp."];

/// The attributes of one message, with an index of the known ones.
pub struct Attributes<'a> {
    /// The maximum number of attributes.
    max: usize,
    list: Vec<Attribute<'a>>,
    /// Per element of `list`, whether it became a field of the event. Such attributes are not repeated in `metadata`.
    used: Vec<bool>,
    /// Per known key, its index in `list` plus one; 0 if it is absent.
    positions: [u32; KnownKey::ALL.len()],
}

impl<'a> Attributes<'a> {
    /// An empty list of at most `max` attributes.
    pub fn new(max: usize) -> Attributes<'a> {
        Attributes { max, list: Vec::new(), used: Vec::new(), positions: [0; KnownKey::ALL.len()] }
    }

    /// The attributes in field `number` of a message, at most `max`.
    pub fn of(message: &'a [u8], number: u32, max: usize) -> Result<Attributes<'a>, Fault> {
        let mut found = Attributes::new(max);
        attributes(message, number).try_for_each(|attribute| found.push(attribute?))?;
        Ok(found)
    }

    /// Adds an attribute. Of several with the same name, the last one applies and the others are dropped.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push(&mut self, attribute: Attribute<'a>) -> Result<(), Fault> {
        if self.list.len() == self.max {
            return Err(too_many(self.max));
        }
        if let Some(key) = KnownKey::from_key(&attribute.key) {
            self.mark_used(key);
            self.positions[key as usize] = self.list.len() as u32 + 1;
        }
        if self.list.is_empty() {
            self.list.reserve(INITIAL_CAPACITY);
            self.used.reserve(INITIAL_CAPACITY);
        }
        self.list.push(attribute);
        self.used.push(false);
        Ok(())
    }

    fn index(&self, key: KnownKey) -> Option<usize> {
        (self.positions[key as usize] as usize).checked_sub(1)
    }

    /// The agent that the attributes name. Marks the attribute as used.
    pub fn take_agent(&mut self) -> Option<Cow<'a, str>> {
        let is_agent = self.text(KnownKey::OpenInferenceKind).is_some_and(|kind| kind == "AGENT");
        let (key, name) = first_agent(is_agent, |rank| self.text(AGENT[rank]))?;
        // `metadata` has other members as well, so it stays in the metadata of the event.
        if key != KnownKey::Metadata {
            self.mark_used(key);
        }
        Some(name)
    }

    /// The value of an attribute: an encoded `AnyValue`.
    pub fn any(&self, key: KnownKey) -> Option<&'a [u8]> {
        self.index(key).map(|index| self.list[index].value)
    }

    /// The text of an attribute, if it is a non-empty string.
    pub fn text(&self, key: KnownKey) -> Option<Cow<'a, str>> {
        self.index(key).and_then(|index| self.list[index].text())
    }

    /// The first of the attributes `keys` that is a non-empty string.
    pub fn first_text(&self, keys: &[KnownKey]) -> Option<(KnownKey, Cow<'a, str>)> {
        keys.iter().find_map(|key| Some((*key, self.text(*key)?)))
    }

    /// A non-empty string, or any other value as JSON text.
    pub fn scalar_text(&self, key: KnownKey) -> Option<Cow<'a, str>> {
        let any = self.any(key)?;
        any_text(any).or_else(|| {
            let mut json = Json::new(0);
            json.any(any, 1).ok()?;
            String::from_utf8(json.bytes).ok().map(Cow::Owned)
        })
    }

    /// The first of the attributes `keys` that is present and not an empty string.
    pub fn first(&self, keys: &[KnownKey]) -> Option<(KnownKey, &'a [u8])> {
        let is_empty = |any: &[u8]| matches!(Fields::of(any).last(), Some(Ok(field)) if field.is_empty_string());
        keys.iter().find_map(|key| Some((*key, self.any(*key).filter(|any| !is_empty(any))?)))
    }

    /// Marks an attribute as a field of the event.
    pub fn mark_used(&mut self, key: KnownKey) {
        if let Some(index) = self.index(key) {
            self.used[index] = true;
        }
    }

    /// Whether any attribute is not a field of the event.
    pub fn has_unused(&self) -> bool {
        self.used.contains(&false)
    }

    /// Whether the instrumentation of an agent set any of the attributes.
    pub fn has_agent_attribute(&self) -> bool {
        self.list.iter().any(|attribute| AGENT_PREFIXES.iter().any(|prefix| attribute.key.starts_with(prefix)))
    }

    /// Writes the attributes that are not a field of the event as an object in `metadata`.
    pub fn write_unused(&self, json: &mut Json) -> Result<(), Fault> {
        let unused = self.list.iter().zip(&self.used).filter(|(_, used)| !**used);
        json.object(unused.map(|(attribute, _)| attribute).collect(), METADATA_MEMBER_LEVEL)
    }
}
