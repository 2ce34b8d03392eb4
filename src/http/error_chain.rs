//! Formats an error with its causes, because the message of a library's error often leaves out the root cause.

use std::error::Error;
use std::fmt;

/// Displays an error and the chain of its causes.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let message = error.to_string();
            // Some errors already include the message of their cause.
            if !last.ends_with(&message) {
                write!(f, ": {message}")?;
            }
            last = message;
            cause = error.source();
        }
        Ok(())
    }
}
