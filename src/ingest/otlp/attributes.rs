//! The attributes that become fields of an event. Each producer has its own names for the same thing; of several that
//! are there, the first of a list is taken.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::value::{Attribute, Fault, IN_METADATA, Json, any_text, attributes, too_many};
use super::wire::Fields;
use cairn_proof::chain::{canonicalize, is_agent_id, scan};

/// A list has room for so many at once: most spans have fewer.
const USUAL: usize = 16;

macro_rules! known {
    ($($name:ident = $key:literal,)*) => {
        /// An attribute that means something here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Known {
            $($name,)*
        }

        impl Known {
            const ALL: &'static [Known] = &[$(Known::$name),*];


            /// Its name.
            pub fn key(self) -> &'static str {
                match self {
                    $(Known::$name => $key,)*
                }
            }
        }
    };
}

/// The names by their length: few have one in common, and it is at hand.
static BY_LENGTH: LazyLock<Vec<Vec<(&'static str, Known)>>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for known in Known::ALL {
        let length = known.key().len();
        if names.len() <= length {
            names.resize_with(length + 1, Vec::new);
        }
        names[length].push((known.key(), *known));
    }
    names
});

impl Known {
    fn from_key(key: &str) -> Option<Known> {
        BY_LENGTH.get(key.len())?.iter().find(|(name, _)| *name == key).map(|(_, known)| *known)
    }
}

known! {
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

/// Whose event it is. `gen_ai.agent.id` is not here: some producers make one per run.
pub const AGENT: [Known; 8] = [
    Known::GenAiAgentName,
    Known::AgentName,
    Known::TraceloopLcAgentName,
    Known::TraceloopWorkflowName,
    Known::AiFunctionId,
    Known::LcAgentName,
    Known::Metadata,
    Known::GraphNodeId,
];

/// The agents that a message names itself, by its attributes alone, as they come by.
#[derive(Default)]
pub struct Named<'a> {
    texts: [Option<Cow<'a, str>>; AGENT.len()],
    is_agent: bool,
}

impl<'a> Named<'a> {
    /// One more attribute.
    pub fn note(&mut self, attribute: &Attribute<'a>) {
        let Some(known) = Known::from_key(&attribute.key) else { return };
        if let Some(rank) = AGENT.iter().position(|agent| *agent == known) {
            self.texts[rank] = attribute.text();
        }
        if known == Known::OpenInferenceKind {
            self.is_agent = attribute.text().is_some_and(|kind| kind == "AGENT");
        }
    }

    /// The first of them.
    pub fn first(mut self) -> Option<Cow<'a, str>> {
        first_agent(self.is_agent, |rank| self.texts[rank].take()).map(|(_, name)| name)
    }
}

/// The first agent that one of [`AGENT`] names, of their texts by their rank there. A node of a graph is an agent's only
/// where its span says so.
fn first_agent<'a>(
    is_agent: bool,
    mut text: impl FnMut(usize) -> Option<Cow<'a, str>>,
) -> Option<(Known, Cow<'a, str>)> {
    AGENT.iter().enumerate().find_map(|(rank, known)| {
        let text = text(rank).filter(|_| is_agent || *known != Known::GraphNodeId)?;
        Some((*known, agent_in(*known, text)?))
    })
}

/// The agent that the text of one of [`AGENT`] names.
fn agent_in(known: Known, text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let name = match known {
        // LangChain's own metadata, by OpenInference as JSON.
        Known::Metadata => {
            let metadata = canonicalize(&text).ok()?;
            Cow::Owned(scan::text(scan::member(&metadata, "lc_agent_name")?)?.into_owned())
        }
        _ => text,
    };
    Some(name).filter(|name| is_agent_id(name))
}

/// `session_id`
pub const SESSION: [Known; 11] = [
    Known::AgnostSessionId,
    Known::GenAiConversationId,
    Known::SessionId,
    Known::AiSessionId,
    Known::AiConversationId,
    Known::TraceloopSessionId,
    Known::TraceloopThreadId,
    Known::McpSessionId,
    Known::ConversationId,
    Known::AiContextSessionId,
    Known::AiContextConversationId,
];

/// `action_input` of a span.
pub const INPUT: [Known; 10] = [
    Known::GenAiToolArguments,
    Known::GenAiInputMessages,
    Known::AiToolCallArgs,
    Known::AiPrompt,
    Known::AiPromptMessages,
    Known::InputValue,
    Known::TraceloopEntityInput,
    Known::PydanticMessages,
    Known::UserPrompt,
    Known::FullCommand,
];

/// `action_output` of a span.
pub const OUTPUT: [Known; 9] = [
    Known::GenAiToolResult,
    Known::GenAiOutputMessages,
    Known::AiToolCallResult,
    Known::AiResponseText,
    Known::AiResponseToolCalls,
    Known::AiResponseObject,
    Known::OutputValue,
    Known::TraceloopEntityOutput,
    Known::FinalResult,
];

/// What an attribute of an agent begins with.
const OF_AGENTS: [&str; 6] = ["gen_ai.", "openinference.", "llm.", "traceloop.", "ai.", "mcp."];

/// The attributes of one message, the known ones at hand.
pub struct Attributes<'a> {
    /// How many there may be.
    most: usize,
    list: Vec<Attribute<'a>>,
    /// Which of the list are a field of the event, and not told a second time.
    used: Vec<bool>,
    /// Where in the list each known one is, plus one.
    known: [u32; Known::ALL.len()],
}

impl<'a> Attributes<'a> {
    /// None yet, and never more than that many.
    pub fn new(most: usize) -> Attributes<'a> {
        Attributes { most, list: Vec::new(), used: Vec::new(), known: [0; Known::ALL.len()] }
    }

    /// Those of a message that has them in field `number`.
    pub fn of(message: &'a [u8], number: u32, most: usize) -> Result<Attributes<'a>, Fault> {
        let mut found = Attributes::new(most);
        attributes(message, number).try_for_each(|attribute| found.push(attribute?))?;
        Ok(found)
    }

    /// One more. Of several with one name the last wins, and the others are not told.
    ///
    /// # Errors
    /// When there are too many.
    pub fn push(&mut self, attribute: Attribute<'a>) -> Result<(), Fault> {
        if self.list.len() == self.most {
            return Err(too_many(self.most));
        }
        if let Some(known) = Known::from_key(&attribute.key) {
            self.mark_used(known);
            self.known[known as usize] = self.list.len() as u32 + 1;
        }
        if self.list.is_empty() {
            self.list.reserve(USUAL);
            self.used.reserve(USUAL);
        }
        self.list.push(attribute);
        self.used.push(false);
        Ok(())
    }

    fn index(&self, known: Known) -> Option<usize> {
        (self.known[known as usize] as usize).checked_sub(1)
    }

    /// The agent that they name, a field of the event from here on.
    pub fn use_agent(&mut self) -> Option<Cow<'a, str>> {
        let is_agent = self.text(Known::OpenInferenceKind).is_some_and(|kind| kind == "AGENT");
        let (known, name) = first_agent(is_agent, |rank| self.text(AGENT[rank]))?;
        // It tells of other things, too.
        if known != Known::Metadata {
            self.mark_used(known);
        }
        Some(name)
    }

    /// The value of one, an `AnyValue`.
    pub fn any(&self, known: Known) -> Option<&'a [u8]> {
        self.index(known).map(|index| self.list[index].value)
    }

    /// The text of one, if it is a string that is not empty.
    pub fn text(&self, known: Known) -> Option<Cow<'a, str>> {
        self.index(known).and_then(|index| self.list[index].text())
    }

    /// The first of these that is a text that is not empty, and that will do.
    pub fn first_text(&self, of: &[Known], will_do: impl Fn(&str) -> bool) -> Option<(Known, Cow<'a, str>)> {
        of.iter().find_map(|known| Some((*known, self.text(*known).filter(|text| will_do(text))?)))
    }

    /// A string, a boolean or an integer, as it is written.
    pub fn word(&self, known: Known) -> Option<Cow<'a, str>> {
        let any = self.any(known)?;
        any_text(any).or_else(|| {
            let mut json = Json::new(0);
            json.any(any, 1).ok()?;
            String::from_utf8(json.bytes).ok().map(Cow::Owned)
        })
    }

    /// The first of these that is there, and no empty text.
    pub fn first(&self, of: &[Known]) -> Option<(Known, &'a [u8])> {
        let is_empty = |any: &[u8]| matches!(Fields::of(any).last(), Some(Ok(field)) if field.is_empty_text());
        of.iter().find_map(|known| Some((*known, self.any(*known).filter(|any| !is_empty(any))?)))
    }

    /// It is a field of the event.
    pub fn mark_used(&mut self, known: Known) {
        if let Some(index) = self.index(known) {
            self.used[index] = true;
        }
    }

    /// Whether any is left that is no field of the event.
    pub fn are_any_left(&self) -> bool {
        self.used.contains(&false)
    }

    /// Whether an agent's instrumentation wrote any of them.
    pub fn are_of_an_agent(&self) -> bool {
        self.list.iter().any(|attribute| OF_AGENTS.iter().any(|prefix| attribute.key.starts_with(prefix)))
    }

    /// Writes those that are no field of the event as an object in its `metadata`.
    pub fn write_rest(&self, json: &mut Json) -> Result<(), Fault> {
        let rest = self.list.iter().zip(&self.used).filter(|(_, used)| !**used);
        json.object(rest.map(|(attribute, _)| attribute).collect(), IN_METADATA)
    }
}
