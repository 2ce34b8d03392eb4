//! The built-in rows of each field.

use super::row::{Row, Target};
use super::{action, content, identity, outcome, selection};

/// The built-in rows of a field, in order of preference.
pub fn rows(target: Target) -> &'static [Row] {
    match target {
        Target::AgentId => identity::AGENT_ID,
        Target::SessionId => identity::SESSION_ID,
        Target::UserId => identity::USER_ID,
        Target::ActionType => action::ACTION_TYPE,
        Target::ActionName => action::ACTION_NAME,
        Target::ActionInput => content::ACTION_INPUT,
        Target::ActionOutput => content::ACTION_OUTPUT,
        Target::ActionStatus => outcome::ACTION_STATUS,
        Target::ErrorMessage => outcome::ERROR_MESSAGE,
        Target::Selected => selection::SELECTED,
    }
}
