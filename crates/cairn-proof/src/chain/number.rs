//! The canonical form of a JSON number.
//!
//! RFC 8785 reads every number as an IEEE 754 double, and so rounds integers beyond 2^53. Evidence must not be rounded:
//! an integer literal in [-2^63, 2^64) keeps exactly its digits. An integer literal outside that range is accepted only
//! if it is exactly what a double prints as, so that canonical text parses back to itself. Every other number is the
//! nearest double in its shortest ECMAScript form. See `docs/verification.md`, "Canonical bytes".

/// Why a well-formed number literal has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberError {
    /// An integer that neither 64 bits nor a double can represent exactly.
    Inexact,
    /// The nearest double is infinite.
    Overflow,
}

/// A number literal that follows the grammar of RFC 8259.
#[derive(Debug, Clone, Copy)]
pub struct Literal<'a> {
    /// The literal as it was sent.
    pub text: &'a str,
    /// Whether the literal has neither a fraction nor an exponent.
    pub is_integer: bool,
}

/// Integers of at most this many digits are always in range.
pub(super) const ALWAYS_IN_RANGE_DIGITS: usize = 18;

/// Appends the canonical form of `literal` to `out`.
///
/// # Errors
/// When the number has no canonical form; see [`NumberError`]. Nothing is appended then.
pub fn write(literal: Literal<'_>, out: &mut Vec<u8>) -> Result<(), NumberError> {
    let text = literal.text;
    if literal.is_integer && is_64_bit_integer(text) {
        let digits = if text == "-0" { "0" } else { text };
        out.extend_from_slice(digits.as_bytes());
        return Ok(());
    }
    // Rust's parser accepts every literal of the JSON grammar, so this does not fail.
    let value: f64 = text.parse().map_err(|_| NumberError::Overflow)?;
    if !value.is_finite() {
        return Err(if literal.is_integer { NumberError::Inexact } else { NumberError::Overflow });
    }
    let mut buffer = ryu_js::Buffer::new();
    let shortest = buffer.format_finite(value);
    if literal.is_integer && shortest != text {
        return Err(NumberError::Inexact);
    }
    out.extend_from_slice(shortest.as_bytes());
    Ok(())
}

fn is_64_bit_integer(text: &str) -> bool {
    let negative = text.starts_with('-');
    let digits = &text.as_bytes()[usize::from(negative)..];
    if digits.len() <= ALWAYS_IN_RANGE_DIGITS {
        return true;
    }
    if negative { text.parse::<i64>().is_ok() } else { text.parse::<u64>().is_ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Result<String, NumberError> {
        let mut out = Vec::new();
        let is_integer = !text.contains(['.', 'e', 'E']);
        write(Literal { text, is_integer }, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn integers_of_64_bits_keep_their_digits() {
        for text in ["0", "-1", "9007199254740993", "18446744073709551615", "-9223372036854775808"] {
            assert_eq!(canonical(text).as_deref(), Ok(text));
        }
        assert_eq!(canonical("-0").as_deref(), Ok("0"));
    }

    #[test]
    fn larger_integers_are_accepted_only_if_a_double_prints_them() {
        assert_eq!(canonical("100000000000000000000").as_deref(), Ok("100000000000000000000"));
        assert_eq!(canonical("-10000000000000000000").as_deref(), Ok("-10000000000000000000"));
        for text in ["18446744073709551616", "-9223372036854775809", "1000000000000000000000000"] {
            assert_eq!(canonical(text), Err(NumberError::Inexact), "{text}");
        }
        let beyond_every_double = "9".repeat(400);
        assert_eq!(canonical(&beyond_every_double), Err(NumberError::Inexact));
    }

    #[test]
    fn other_numbers_are_the_shortest_form_of_the_nearest_double() {
        let cases = [
            ("-0.0", "0"),
            ("1e0", "1"),
            ("1E21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("1e-7", "1e-7"),
            ("0.000001234", "0.000001234"),
            ("333333333.33333329", "333333333.3333333"),
            ("5e-324", "5e-324"),
            ("9007199254740993.0", "9007199254740992"),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(canonical("1e400"), Err(NumberError::Overflow));
    }
}
