//! An error with its causes: a library's own words often leave out what happened at the bottom.

use std::error::Error;
use std::fmt;

/// Shows an error and everything that led to it.
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let more = error.to_string();
            // Some say themselves what led to them.
            if !told.ends_with(&more) {
                write!(f, ": {more}")?;
            }
            told = more;
            cause = error.source();
        }
        Ok(())
    }
}
