//! The one hex codec: lower-case digits, in constant time (base16ct).

use std::fmt;

/// The `N` hex digits of `N / 2` bytes. `N` is twice the number of bytes.
pub fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut digits = [0; N];
    debug_assert_eq!(bytes.len() * 2, N, "two digits for each byte");
    // It fails only if there is not enough room.
    let _ = base16ct::lower::encode(bytes, &mut digits);
    digits
}

/// The hex digits of bytes.
pub fn encode(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Writes the hex digits of bytes.
///
/// # Errors
/// When `f` fails.
pub fn fmt(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&encode(bytes))
}

/// Parses exactly `2 * N` lower-case hex digits.
pub fn parse<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_whole = base16ct::lower::decode(digits, &mut bytes).is_ok_and(|decoded| decoded.len() == N);
    is_whole.then_some(bytes)
}

/// Parses hex digits of either case.
pub fn parse_mixed(digits: &[u8]) -> Option<Vec<u8>> {
    base16ct::mixed::decode_vec(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip_and_other_digits_are_refused() {
        let bytes: [u8; 32] = std::array::from_fn(|n| (n * 37) as u8);
        let digits: [u8; 64] = array(&bytes);
        assert_eq!(encode(&bytes).as_bytes(), digits);
        assert_eq!(parse::<32>(&digits), Some(bytes));
        assert_eq!(parse::<32>(&digits[..62]), None);
        assert_eq!(parse::<31>(&digits), None);
        assert_eq!(parse::<1>(b"0g"), None);
        assert_eq!(parse::<1>(b"AB"), None);
        assert_eq!(parse_mixed(b"aB"), Some(vec![0xab]));
        assert_eq!(parse_mixed(b"aBc"), None);
    }
}
