//! Check digits and ranges of numbers that identify people and accounts.

/// The digits of a text, without separators.
fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> {
    text.chars().filter_map(|character| character.to_digit(10))
}

/// Whether the digits of a text have a valid check digit (ISO/IEC 7812-1, annex B).
pub fn is_luhn(text: &str) -> bool {
    let sum: u32 = digits(text)
        .rev()
        .enumerate()
        .map(|(at, digit)| match (at % 2, digit * 2) {
            (0, _) => digit,
            (_, doubled) => doubled / 10 + doubled % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The length in bytes of the number of a payment card that a text begins with, 0 if there is none: the number of digits is one of
/// the issuer, and the check digit is valid. The pattern has checked how it begins. Three digits of another code may follow.
pub fn card_len(text: &str) -> usize {
    let first: Vec<u32> = digits(text).take(4).collect();
    let lengths: &[usize] = match first[..] {
        [4, ..] => &[19, 16, 13],
        [3, ..] => &[15],
        [2, a, b, c] if !(221..=720).contains(&(a * 100 + b * 10 + c)) => &[],
        [2 | 5, ..] => &[16],
        _ => &[19, 16],
    };
    let end_of = |count: usize| {
        let (at, _) = text.char_indices().filter(|(_, character)| character.is_ascii_digit()).nth(count - 1)?;
        let is_end = !text[at + 1..].starts_with(|next: char| next.is_ascii_digit());
        (is_end && is_luhn(&text[..=at])).then_some(at + 1)
    };
    lengths.iter().find_map(|count| end_of(*count)).unwrap_or(0)
}

/// The length of an IBAN by country (SWIFT, IBAN Registry, release 99).
const IBAN_LENGTHS: [(&str, usize); 86] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VG", 24),
];

/// The length in bytes of the International Bank Account Number (ISO 13616) that a text begins with, 0 if there is none: length and
/// check digits are those of its country. A word may follow.
pub fn iban_len(text: &str) -> usize {
    let country = IBAN_LENGTHS.iter().find(|(country, _)| text.starts_with(country));
    let last =
        country.and_then(|(_, length)| text.char_indices().filter(|(_, character)| *character != ' ').nth(length - 1));
    let Some((at, _)) = last.filter(|(at, _)| !text[at + 1..].starts_with(|next: char| next.is_ascii_alphanumeric()))
    else {
        return 0;
    };
    let compact: String = text[..=at].chars().filter(|character| *character != ' ').collect();
    let (country, account) = compact.split_at(4);
    let remainder = account.chars().chain(country.chars()).try_fold(0u32, |remainder, character| {
        let value = character.to_digit(36)?;
        Some((remainder * if value > 9 { 100 } else { 10 } + value) % 97)
    });
    if remainder == Some(1) { at + 1 } else { 0 }
}

/// Whether a text is a US social security number that can be issued: 20 CFR 422.103, and not an area that never was.
pub fn is_ssn(text: &str) -> bool {
    let parts: Vec<&str> = text.split(['-', ' ']).collect();
    let [area, group, serial] = parts[..] else { return false };
    !area.starts_with('9') && !["000", "666"].contains(&area) && group != "00" && serial != "0000"
}

/// Whether a text is a number of the North American Numbering Plan: neither area nor exchange begins with 0 or 1.
pub fn is_nanp(text: &str) -> bool {
    let mut all: Vec<u32> = digits(text).collect();
    if all.len() == 11 && all[0] == 1 {
        all.remove(0);
    }
    all.len() == 10 && all[0] >= 2 && all[3] >= 2
}
