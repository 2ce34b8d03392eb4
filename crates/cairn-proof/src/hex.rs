//! Encodes and decodes hex, in constant time (base16ct). Cairn writes hashes in lower-case hex only.

use std::fmt;

/// Encodes bytes as an array of lower-case hex digits. `N` must be twice the number of bytes.
pub fn encode_array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut digits = [0; N];
    debug_assert_eq!(bytes.len() * 2, N, "two digits for each byte");
    // Encoding fails only if the output is too short.
    let _ = base16ct::lower::encode(bytes, &mut digits);
    digits
}

/// Encodes bytes as lower-case hex digits.
pub fn encode(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Appends bytes as lower-case hex digits.
pub fn push(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + 2 * bytes.len(), 0);
    // Encoding fails only if the output is too short.
    let _ = base16ct::lower::encode(bytes, &mut out[start..]);
}

/// Writes bytes as lower-case hex digits.
///
/// # Errors
/// When the formatter fails.
pub fn fmt(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&encode(bytes))
}

/// Decodes exactly `2 * N` lower-case hex digits; `None` for any other input.
pub fn parse<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_complete = base16ct::lower::decode(digits, &mut bytes).is_ok_and(|decoded| decoded.len() == N);
    is_complete.then_some(bytes)
}

/// Decodes hex digits of either case; `None` if the input is not hex or has an odd length.
pub fn parse_mixed(digits: &[u8]) -> Option<Vec<u8>> {
    base16ct::mixed::decode_vec(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_malformed_digits_are_rejected() {
        let bytes: [u8; 32] = std::array::from_fn(|n| (n * 37) as u8);
        let digits: [u8; 64] = encode_array(&bytes);
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
