//! The attributes that become fields of an event. Each producer has its own names for the same thing; of several that
//! are there, the first of a list is taken.

use std::borrow::Cow;

use buffa::DecodeError;

use super::value::{Attribute, Fault, Json, any_text, attributes, check};

macro_rules! known {
    ($($name:ident = $key:literal,)*) => {
        /// An attribute that means something here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Known {
            $($name,)*
        }

        impl Known {
            const ALL: &'static [Known] = &[$(Known::$name),*];

            fn from_key(key: &str) -> Option<Known> {
                match key {
                    $($key => Some(Known::$name),)*
                    _ => None,
                }
            }

            /// Its name.
            pub fn key(self) -> &'static str {
                match self {
                    $(Known::$name => $key,)*
                }
            }
        }
    };
}

known! {
    AgentName = "agent.name",
    AgnostSessionId = "agnost.session_id",
    AiConversationId = "ai.telemetry.metadata.conversationId",
    AiFunctionId = "ai.telemetry.functionId",
    AiPrompt = "ai.prompt",
    AiResponseText = "ai.response.text",
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
    EventName = "event.name",
    ExceptionMessage = "exception.message",
    FinalResult = "final_result",
    GenAiAgentName = "gen_ai.agent.name",
    GenAiConversationId = "gen_ai.conversation.id",
    GenAiInputMessages = "gen_ai.input.messages",
    GenAiOperation = "gen_ai.operation.name",
    GenAiOutputMessages = "gen_ai.output.messages",
    GenAiProvider = "gen_ai.provider.name",
    GenAiRequestModel = "gen_ai.request.model",
    GenAiToolArguments = "gen_ai.tool.call.arguments",
    GenAiToolName = "gen_ai.tool.name",
    GenAiToolResult = "gen_ai.tool.call.result",
    InputValue = "input.value",
    LcAgentName = "metadata.lc_agent_name",
    LlmModelName = "llm.model_name",
    McpMethod = "mcp.method.name",
    McpSessionId = "mcp.session.id",
    OpenInferenceKind = "openinference.span.kind",
    Output = "output",
    OutputValue = "output.value",
    Prompt = "prompt",
    PydanticMessages = "pydantic_ai.all_messages",
    ServiceName = "service.name",
    SessionId = "session.id",
    Success = "success",
    ToolInput = "tool_input",
    ToolName = "tool.name",
    ToolParameters = "tool_parameters",
    LlmRequestType = "llm.request.type",
    TraceloopSpanKind = "traceloop.span.kind",
    TraceloopEntityInput = "traceloop.entity.input",
    TraceloopEntityOutput = "traceloop.entity.output",
    TraceloopLcAgentName = "traceloop.association.properties.lc_agent_name",
    TraceloopSessionId = "traceloop.association.properties.session_id",
    TraceloopThreadId = "traceloop.association.properties.thread_id",
    TraceloopWorkflowName = "traceloop.workflow.name",
}

/// Whose event it is. `gen_ai.agent.id` is not here: some producers make one per run.
pub const AGENT: [Known; 6] = [
    Known::GenAiAgentName,
    Known::AgentName,
    Known::TraceloopLcAgentName,
    Known::TraceloopWorkflowName,
    Known::AiFunctionId,
    Known::LcAgentName,
];

/// `session_id`
pub const SESSION: [Known; 9] = [
    Known::AgnostSessionId,
    Known::GenAiConversationId,
    Known::SessionId,
    Known::AiSessionId,
    Known::AiConversationId,
    Known::TraceloopSessionId,
    Known::TraceloopThreadId,
    Known::McpSessionId,
    Known::ConversationId,
];

/// `action_input` of a span.
pub const INPUT: [Known; 7] = [
    Known::GenAiToolArguments,
    Known::GenAiInputMessages,
    Known::AiToolCallArgs,
    Known::AiPrompt,
    Known::InputValue,
    Known::TraceloopEntityInput,
    Known::PydanticMessages,
];

/// `action_output` of a span.
pub const OUTPUT: [Known; 7] = [
    Known::GenAiToolResult,
    Known::GenAiOutputMessages,
    Known::AiToolCallResult,
    Known::AiResponseText,
    Known::OutputValue,
    Known::TraceloopEntityOutput,
    Known::FinalResult,
];

/// What an attribute of an agent begins with.
const OF_AGENTS: [&str; 6] = ["gen_ai.", "openinference.", "llm.", "traceloop.", "ai.", "mcp."];

/// The attributes of one message, the known ones at hand.
pub struct Attributes<'a> {
    list: Vec<Attribute<'a>>,
    /// Which of the list are a field of the event, and not told a second time.
    used: Vec<bool>,
    /// Where in the list each known one is, plus one.
    known: [u32; Known::ALL.len()],
}

impl Default for Attributes<'_> {
    fn default() -> Self {
        Attributes { list: Vec::new(), used: Vec::new(), known: [0; Known::ALL.len()] }
    }
}

impl<'a> Attributes<'a> {
    /// Those of a message that has them in field `number`.
    pub fn of(message: &'a [u8], number: u32) -> Result<Attributes<'a>, Fault> {
        let mut found = Attributes::default();
        attributes(message, number).try_for_each(|attribute| attribute.map(|attribute| found.push(attribute)))?;
        Ok(found)
    }

    /// Checks that they are attributes, down to their last values.
    pub fn check(&self) -> Result<(), DecodeError> {
        self.list.iter().try_for_each(|attribute| check(attribute.value, 0))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// One more. Of several with one name the last wins, and the others are not told.
    pub fn push(&mut self, attribute: Attribute<'a>) {
        if let Some(known) = Known::from_key(&attribute.key) {
            self.mark_used(known);
            self.known[known as usize] = self.list.len() as u32 + 1;
        }
        self.list.push(attribute);
        self.used.push(false);
    }

    fn index(&self, known: Known) -> Option<usize> {
        (self.known[known as usize] as usize).checked_sub(1)
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
        let mut json = Json::default();
        any_text(any).or_else(|| {
            json.any(any, 0).ok()?;
            String::from_utf8(json.bytes).ok().map(Cow::Owned)
        })
    }

    /// The first of these that is there.
    pub fn first(&self, of: &[Known]) -> Option<(Known, &'a [u8])> {
        of.iter().find_map(|known| Some((*known, self.any(*known)?)))
    }

    /// It is a field of the event.
    pub fn mark_used(&mut self, known: Known) {
        if let Some(index) = self.index(known) {
            self.used[index] = true;
        }
    }

    /// What [`Attributes::first_text`] found is a field of the event.
    pub fn use_text(&mut self, found: Option<(Known, Cow<'a, str>)>, json: &mut Json) {
        if let Some((known, text)) = found {
            self.mark_used(known);
            json.is_mended |= matches!(text, Cow::Owned(_));
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

    /// Writes those that are no field of the event as an object.
    pub fn write_rest(&self, json: &mut Json) -> Result<(), Fault> {
        let rest = self.list.iter().zip(&self.used).filter(|(_, used)| !**used);
        json.object(rest.map(|(attribute, _)| attribute).collect(), 0)
    }
}
