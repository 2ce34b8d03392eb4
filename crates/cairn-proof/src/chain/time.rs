//! RFC 3339 times. The server writes UTC with milliseconds; clients may send any RFC 3339 time.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The length of the output of [`format_ms`], such as `2026-02-17T10:30:00.250Z`, in bytes.
pub const LEN: usize = 24;

/// The last millisecond of the year 9999, the latest that RFC 3339 can represent.
const LAST_MS: u64 = 253_402_300_799_999;

/// Parses an RFC 3339 time as nanoseconds since 1970; `None` if `text` is not one.
pub fn parse(text: &str) -> Option<i128> {
    // RFC 3339, section 5.6, requires the separator `T`; the `time` crate also accepts other characters.
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    OffsetDateTime::parse(text, &Rfc3339).ok().map(OffsetDateTime::unix_timestamp_nanos)
}

/// Formats milliseconds since 1970 as RFC 3339, in UTC. Times after the year 9999 become its last millisecond.
pub fn format_ms(ms: u64) -> [u8; LEN] {
    let ms = ms.min(LAST_MS);
    // The conversion cannot fail: `ms` is in range.
    let time = OffsetDateTime::from_unix_timestamp((ms / 1000) as i64).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    write_digits(&mut text[0..4], time.year().unsigned_abs());
    write_digits(&mut text[5..7], u32::from(u8::from(time.month())));
    write_digits(&mut text[8..10], u32::from(time.day()));
    write_digits(&mut text[11..13], u32::from(time.hour()));
    write_digits(&mut text[14..16], u32::from(time.minute()));
    write_digits(&mut text[17..19], u32::from(time.second()));
    write_digits(&mut text[20..23], (ms % 1000) as u32);
    text
}

/// Formats nanoseconds since 1970 as RFC 3339, in UTC, with nine decimal digits.
pub fn format_ns(ns: u64) -> [u8; LEN + 6] {
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    text[..LEN - 1].copy_from_slice(&format_ms(ns / 1_000_000)[..LEN - 1]);
    write_digits(&mut text[LEN - 1..LEN + 5], (ns % 1_000_000) as u32);
    text
}

/// Parses an RFC 3339 time as milliseconds since 1970, rounded down; `None` if it is not one, or before 1970.
pub fn parse_ms(text: &str) -> Option<u64> {
    u64::try_from(parse(text)?.div_euclid(1_000_000)).ok()
}

/// Parses an RFC 3339 time as milliseconds since 1970, rounded up; 0 for times before 1970, `None` if it is not a time.
///
/// A bound of a filter is parsed in this way, so that it keeps its meaning for times in milliseconds.
pub fn parse_ms_ceil(text: &str) -> Option<u64> {
    const NS_PER_MS: i128 = 1_000_000;
    parse(text).map(|ns| u64::try_from((ns + NS_PER_MS - 1).div_euclid(NS_PER_MS)).unwrap_or(0))
}

fn write_digits(digits: &mut [u8], mut value: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_round_trip_through_text() {
        for ms in [0, 1, 999, 1_771_324_200_250, 4_107_542_400_000, LAST_MS] {
            let text = format_ms(ms);
            assert_eq!(parse_ms(std::str::from_utf8(&text).unwrap()), Some(ms));
        }
        assert_eq!(&format_ms(1_771_324_200_250), b"2026-02-17T10:30:00.250Z");
        assert_eq!(&format_ms(u64::MAX), b"9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn nanoseconds_round_trip_through_text() {
        for ns in [0, 1, 999_999, 1_000_000, 1_771_324_200_250_000_001, 4_102_444_799_999_999_999, u64::MAX] {
            let text = format_ns(ns);
            let text = std::str::from_utf8(&text).unwrap();
            assert_eq!((parse(text), text.len()), (Some(i128::from(ns)), 30), "{text}");
        }
    }

    #[test]
    fn only_rfc_3339_times_are_accepted() {
        for text in ["2026-02-17T10:30:00Z", "2026-02-17t10:30:00.123456789z", "2026-02-17T10:30:00+05:30"] {
            assert!(parse(text).is_some(), "{text}");
        }
        let wrong = [
            "",
            "2026-02-17",
            "2026-02-17 10:30:00Z",
            "2026-02-17T10:30:00",
            "2026-02-30T10:30:00Z",
            "2026-02-17T25:30:00Z",
            "2026-02-17T10:30:00Z ",
            "2026-02-17T10:30:00+0530",
            "20260217T103000Z",
        ];
        for text in wrong {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
