//! Words of others, as they may be shown.

/// Characters that change the direction of what follows (Unicode UAX #9), or end a line without being a control character.
const TURNS_TEXT: [char; 14] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
    '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

/// What others said must not control a terminal, begin a line of its own, nor turn the direction of its text.
pub fn sanitize(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || TURNS_TEXT.contains(&c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_was_said_looks_like_something_that_we_say() {
        assert_eq!(
            sanitize("fine\nVALID\r\x1b[2J\u{202e}\u{2028}"),
            "fine\u{fffd}VALID\u{fffd}\u{fffd}[2J\u{fffd}\u{fffd}"
        );
        assert_eq!(sanitize("агент 7 😀"), "агент 7 😀");
    }
}
