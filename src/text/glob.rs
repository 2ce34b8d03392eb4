//! Patterns with `*` for any text. Letter case of ASCII does not count.

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    /// The texts between the `*`, in lower case.
    parts: Vec<Box<str>>,
}

impl Glob {
    /// Reads a pattern. Every text is one.
    pub fn new(pattern: &str) -> Glob {
        Glob { parts: pattern.split('*').map(|part| part.to_ascii_lowercase().into()).collect() }
    }

    /// Whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.wildcard(text).is_some()
    }

    /// If the text matches, what the first `*` stands for; the whole text for a pattern without one.
    pub fn wildcard<'t>(&self, text: &'t str) -> Option<&'t str> {
        let [first, rest @ ..] = &self.parts[..] else { return None };
        let Some((last, between)) = rest.split_last() else {
            return text.eq_ignore_ascii_case(first).then_some(text);
        };
        if text.len() < first.len() + last.len() {
            return None;
        }
        let starts = text.as_bytes()[..first.len()].eq_ignore_ascii_case(first.as_bytes());
        let end = text.len() - last.len();
        let ends = text.as_bytes()[end..].eq_ignore_ascii_case(last.as_bytes());
        if !starts || !ends {
            return None;
        }
        let (mut at, mut first_end) = (first.len(), None);
        for part in between {
            let found = text.as_bytes()[at..end]
                .windows(part.len().max(1))
                .position(|window| window.eq_ignore_ascii_case(part.as_bytes()))?;
            first_end.get_or_insert(at + found);
            at += found + part.len();
        }
        text.get(first.len()..first_end.unwrap_or(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_what_its_stars_may_stand_for() {
        for (pattern, text, expected) in [
            ("call_llm", "CALL_LLM", Some("CALL_LLM")),
            ("call_llm", "call_llms", None),
            ("*.run", "boss.run", Some("boss")),
            ("*.run", ".run", Some("")),
            ("*.run", "run", None),
            ("tool.*", "tool.grep", Some("grep")),
            ("a*a", "a", None),
            ("a*a", "aa", Some("")),
            ("*openai*", "x.OpenAI.y", Some("x.")),
            ("*openai*", "openai", Some("")),
            ("*openai*", "opena", None),
            ("a*b*b", "a1b2b", Some("1")),
            ("a*b*b", "a1b", None),
            ("*é*", "xéy", Some("x")),
            ("", "", Some("")),
        ] {
            assert_eq!(Glob::new(pattern).wildcard(text), expected, "{pattern} {text}");
        }
    }
}
