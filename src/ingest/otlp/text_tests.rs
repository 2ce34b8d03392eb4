//! What a text means: true or false in any spelling, an error or none, a stack trace, a value that was removed.

/// Whether a text means true.
pub fn is_true(text: &str) -> bool {
    let text = text.trim();
    text == "1" || ["true", "yes"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a text means false.
pub fn is_false(text: &str) -> bool {
    let text = text.trim();
    text == "0" || ["false", "no"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether the value of an attribute for errors describes one: most programs that send the attribute always send a word
/// for "none" when there is no error.
pub fn is_error(text: &str) -> bool {
    const NONE: [&str; 8] = ["null", "none", "nil", "undefined", "{}", "[]", "\"\"", "ok"];
    let text = text.trim();
    !text.is_empty() && !is_false(text) && !NONE.iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Whether a text contains a stack trace of Python, JavaScript, Java, .NET or Go.
pub fn is_traceback(text: &str) -> bool {
    const MARKS: [&str; 4] = ["Traceback (most recent call last)", "\n    at ", "\n\tat ", "\ngoroutine "];
    MARKS.iter().any(|mark| text.contains(mark))
}

/// Whether a text is what is left of a value that the sender removed, as Logfire does for attributes with names such as
/// `session`. Such a text is no name.
pub fn is_scrubbed(text: &str) -> bool {
    const MARKS: [&str; 4] = ["[scrubbed", "[redacted", "<redacted", "[filtered"];
    let is_mark = |mark: &&str| text.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark));
    MARKS.iter().any(is_mark) || !text.is_empty() && text.bytes().all(|byte| byte == b'*')
}

/// Whether a text looks like a random id: a UUID, or at least 16 hex digits.
pub fn is_random_id(text: &str) -> bool {
    let digits = text.bytes().filter(|byte| *byte != b'-');
    digits.clone().count() >= 16 && digits.clone().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_true_false_and_no_error_are_recognized() {
        for text in ["true", "True", "TRUE", "1", " true "] {
            assert!(is_true(text) && !is_false(text), "{text}");
        }
        for text in ["false", "False", "FALSE", "0"] {
            assert!(is_false(text) && !is_true(text) && !is_error(text), "{text}");
        }
        for text in ["null", "None", "NONE", "", "  ", "{}", "nil", "undefined"] {
            assert!(!is_error(text) && !is_true(text) && !is_false(text), "{text}");
        }
        for text in ["true", "1", "boom", "0 bytes read", "null pointer"] {
            assert!(is_error(text), "{text}");
        }
    }

    #[test]
    fn stack_traces_removed_values_and_random_ids_are_recognized() {
        assert!(is_traceback("ValueError('x')Traceback (most recent call last):\n  File"));
        assert!(is_traceback("no\n\nError: no\n    at tool (file.mjs:14)"));
        assert!(!is_traceback("no flights at 10"));
        for text in ["[Scrubbed due to 'session']", "[REDACTED]", "<redacted>", "[Filtered]", "****"] {
            assert!(is_scrubbed(text), "{text}");
        }
        assert!(!is_scrubbed("scrubbed") && !is_scrubbed("") && !is_scrubbed("[é"));
        assert!(is_random_id("0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e6f") && is_random_id("de9e16e2398d7876"));
        assert!(!is_random_id("agent-7") && !is_random_id("cafe"));
    }
}
