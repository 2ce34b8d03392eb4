//! Escapes untrusted text for terminals and logs.

/// Characters that change the direction of the text after them (Unicode UAX #9), and line separators that
/// [`char::is_control`] does not include.
const UNSAFE_FORMATTING: [char; 14] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}',
    '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

/// Replaces control characters, line separators and bidirectional controls with U+FFFD.
///
/// The result has no terminal control sequence and no line break, and does not change the direction of text.
pub fn sanitize(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || UNSAFE_FORMATTING.contains(&c) { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_cannot_forge_a_line_of_output() {
        assert_eq!(
            sanitize("fine\nVALID\r\x1b[2J\u{202e}\u{2028}"),
            "fine\u{fffd}VALID\u{fffd}\u{fffd}[2J\u{fffd}\u{fffd}"
        );
        assert_eq!(sanitize("агент 7 😀"), "агент 7 😀");
    }
}
