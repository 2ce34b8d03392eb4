//! The built-in patterns. `docs/redaction.md` lists them with examples.

use regex::{Regex, RegexBuilder};

use super::numbers::{card_len, iban_len, is_luhn, is_nanp, is_ssn};

/// The name under which members that were redacted by their name are counted.
pub const KEY_RULE: &str = "key";
/// The maximum memory of a compiled rule, in bytes.
const MAX_RULE_BYTES: usize = 4 << 20;
/// The memory that the search for a rule keeps in each thread that searches, in bytes. The default is 2 MiB, which would be a
/// large part of what a sidecar has.
pub const CACHE_BYTES: usize = 128 << 10;

/// A group of patterns that one word turns on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// Keys, tokens and private keys.
    Secrets,
    /// Personal data.
    Pii,
}

/// A built-in pattern.
pub struct Pattern {
    /// The name, which the replacement contains.
    pub name: &'static str,
    /// The preset that it belongs to.
    pub preset: Preset,
    /// The regular expression: see [`Pattern::source`].
    pub regex: &'static str,
    /// How many bytes of the text that would be replaced are what the pattern is for; 0 if it is something else.
    pub accepts: fn(&str) -> usize,
    /// Texts of which every match contains one, so that most events are done after a search for all of them at once; empty if
    /// there are none.
    pub literals: &'static [&'static str],
    /// Whether numbers are examined as well as strings.
    pub in_numbers: bool,
}

/// What may be before a match that begins with `\b`: no letter or digit, unless they are the end of an escape that a terminal, a
/// URL or the text of a program has there. It is consumed, because the crate regex has no look-behind.
const BEFORE: &str =
    r"(?:^|[^A-Za-z0-9]|\x1b\[[0-9;]*[A-Za-z]|%[0-9A-Fa-f]{2}|\\[nrt]|\\x[0-9A-Fa-f]{2}|\\u[0-9A-Fa-f]{4})";
/// The same before numbers: a fraction is none.
const BEFORE_NUMBER: &str = r"(?:^|[^A-Za-z0-9.]|\x1b\[[0-9;]*[A-Za-z]|%[0-9A-Fa-f]{2}|\\[nrt])";

impl Pattern {
    /// The regular expression as it is compiled. In the table, `\b` at its beginning is [`BEFORE`], `\B` is [`BEFORE_NUMBER`], and
    /// `\b` and `\d` elsewhere are those of ASCII: with those of Unicode, a search in a text with other characters takes many
    /// times as long. If it has no group, all but what is before the match is one, and is replaced.
    pub fn source(&self) -> String {
        let (before, rest) = match (self.regex.strip_prefix(r"\b"), self.regex.strip_prefix(r"\B")) {
            (Some(rest), _) => (BEFORE, rest),
            (_, Some(rest)) => (BEFORE_NUMBER, rest),
            _ => ("", self.regex),
        };
        let rest = rest.replace(r"\b", r"(?-u:\b)").replace(r"\d", "[0-9]");
        let has_group = compile(&rest).is_ok_and(|regex| regex.captures_len() > 1);
        if has_group { format!("{before}{rest}") } else { format!("{before}({rest})") }
    }
}

const fn secret(name: &'static str, regex: &'static str, literals: &'static [&'static str]) -> Pattern {
    Pattern { name, preset: Preset::Secrets, regex, accepts: if_any, literals, in_numbers: false }
}

const fn personal(name: &'static str, regex: &'static str, accepts: fn(&str) -> usize) -> Pattern {
    Pattern { name, preset: Preset::Pii, regex, accepts, literals: &[], in_numbers: false }
}

const fn card(name: &'static str, regex: &'static str) -> Pattern {
    Pattern { in_numbers: true, ..personal(name, regex, card_len) }
}

/// The built-in patterns. Where matches overlap, the first of them names what is replaced.
pub const PATTERNS: [Pattern; 25] = [
    // The header alone is no key: what follows has to look like one. A block that was cut off ends with its base64.
    secret(
        "private_key",
        r"-----BEGIN(?:[ +]|%20)(?:[A-Z0-9]+(?:[ +]|%20))*PRIVATE(?:[ +]|%20)KEY(?:[ +]BLOCK)?-----[^A-Za-z0-9]{0,64}(?:[rnt][^A-Za-z0-9]{0,8})?(?:[A-Za-z0-9+/=]{16}|[A-Z][A-Za-z]+(?:-[A-Za-z]+)?: )(?:(?s:.*?)-----END(?:[ +]|%20)(?:[A-Z0-9]+(?:[ +]|%20))*PRIVATE(?:[ +]|%20)KEY(?:[ +]BLOCK)?-----|[A-Za-z0-9+/=]*(?:[^A-Za-z0-9+/=]{1,8}[rn]?[A-Za-z0-9+/=]{16,})*)",
        &["-----BEGIN"],
    ),
    // RFC 7519: the header is an object, which begins with `{"`, `{ ` or `{` and a line feed. Two to four parts follow, of which an
    // encrypted token may have an empty one.
    secret("jwt", r"\b(?:eyJ|eyAi|ewogI)[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){2,4}", &["eyJ", "eyAi", "ewogI"]),
    secret("aws_access_key", r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}", &["AKIA", "ASIA", "ABIA", "ACCA"]),
    Pattern {
        accepts: if_aws_secret,
        ..secret(
            "aws_secret_key",
            r"(?i-u:secret[_ .-]?(?:access[_ .-]?)?key(?:[_-][a-z0-9]+)?|aws[_ .-]?secret)[^A-Za-z0-9/+]{1,64}(?:(?i-u:value)[^A-Za-z0-9/+]{1,16}|b')?([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|\z)",
            &NEEDED_NAMES,
        )
    },
    secret(
        "github_token",
        r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"],
    ),
    secret("gitlab_token", r"\bglpat-[A-Za-z0-9_.-]{20,}", &["glpat-"]),
    secret("npm_token", r"\bnpm_[A-Za-z0-9]{36}", &["npm_"]),
    secret("slack_token", r"\b(?:xox[a-z]|xapp)-[A-Za-z0-9-]{10,}", &["xox", "xapp-"]),
    secret("google_api_key", r"\bAIza[A-Za-z0-9_-]{35}", &["AIza"]),
    secret("stripe_key", r"\b[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}", &["k_live_", "k_test_"]),
    Pattern { accepts: if_api_key, ..secret("api_key", r"\b[sp]k-[A-Za-z0-9_-]{16,}", &["sk-", "pk-"]) },
    Pattern {
        accepts: if_token,
        ..secret(
            "bearer_token",
            r#"\b(?i-u:bearer)(?:[ \t:=+"']{1,8}|%20|\\[nt])([A-Za-z0-9._~+/|:%\\-]{8,}=*)"#,
            &["bearer", "Bearer", "BEARER"],
        )
    },
    personal(
        "email",
        r"[\p{L}\p{M}\p{N}_][\p{L}\p{M}\p{N}._%+'-]*@(?:[\p{L}\p{N}](?:[\p{L}\p{M}\p{N}_-]*[\p{L}\p{M}\p{N}])?\.)+(?:xn--[a-z0-9-]+|[\p{L}\p{M}]{2,})",
        if_any,
    ),
    personal("iban", r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,9}", if_iban),
    card("visa", r"\B4\d{3}[ -]?\d{4}[ -]?\d{4}[ -]?\d{1,4}(?:[ -]?\d{3})?\b"),
    card("mastercard", r"\B(?:5[1-5]\d{2}|2[2-7]\d{2})[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}\b"),
    card("amex", r"\B3[47]\d{2}[ -]?\d{4}[ -]?\d{2}[ -]?\d{2}[ -]?\d{3}\b"),
    card("discover", r"\B(?:6011|64[4-9]\d|65\d{2}|622\d)[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}(?:[ -]?\d{3})?\b"),
    personal("us_ssn", r"\B\d{3}(?:-\d{2}-| \d{2} )\d{4}\b", if_ssn),
    personal("ca_sin", r"\B\d{3}(?:-\d{3}-| \d{3} |\d{3})\d{3}\b", if_sin),
    personal("uk_nino", r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?:[ -]?\d{2}){3}[ -]?[A-D]\b", if_nino),
    // E.164, written with separators as people do.
    personal("phone", r"\+[1-9](?:[ .()/-]{0,3}\d){6,14}\b", if_any),
    personal("us_phone", r"\B(?:1[ .-])?(?:\(\d{3}\)[ .-]?|\d{3}[ .-])\d{3}[ .-]\d{4}\b", if_nanp),
    personal("ipv4", r"\B(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)\b", if_any),
    personal(
        "ipv6",
        r"(?:^|[^A-Za-z0-9:])((?:[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:]{1,45}(?:(?:\.\d{1,3}){3})?)(?:[^A-Za-z0-9:]|\z)",
        if_ipv6,
    ),
];

/// Parts of the names of members that a pattern needs beside the value: `"secret_access_key": "..."`.
pub const NEEDED_NAMES: [&str; 3] = ["secret", "Secret", "SECRET"];

/// Compiles a pattern.
///
/// # Errors
/// When it is not a regular expression, or is too large.
pub fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(MAX_RULE_BYTES).dfa_size_limit(CACHE_BYTES).build()
}

fn if_any(text: &str) -> usize {
    text.len()
}

/// All of a text, if it is what a pattern is for.
fn all_if(is: bool, text: &str) -> usize {
    if is { text.len() } else { 0 }
}

fn has(text: &str, is: fn(&u8) -> bool) -> bool {
    text.as_bytes().iter().any(is)
}

fn is_mixed(text: &str) -> bool {
    has(text, u8::is_ascii_digit) && has(text, u8::is_ascii_alphabetic)
}

/// A random text of 40 characters of base64 has digits and letters of both cases; a path or a hash does not.
fn if_aws_secret(text: &str) -> usize {
    let is_random = is_mixed(text) && has(text, u8::is_ascii_uppercase) && has(text, u8::is_ascii_lowercase);
    all_if(is_random && !text.starts_with('/'), text)
}

/// Keys rather than words with hyphens or underscores, such as `sk-learn-based-classifier`: one part is long, all parts are random, or
/// there is a UUID.
fn if_api_key(text: &str) -> usize {
    let key = &text[3..];
    let parts = || key.split(['-', '_']).filter(|part| !part.is_empty());
    let is_random =
        |part: &str| is_mixed(part) && has(part, u8::is_ascii_uppercase) && has(part, u8::is_ascii_lowercase);
    let has_long_part = parts().any(|part| part.len() >= 16 && is_mixed(part) || part.len() >= 24);
    let is_all_random = key.len() >= 24 && parts().all(is_random);
    let is_long = key.len() >= 50 && is_random(key);
    let has_uuid = key
        .as_bytes()
        .windows(36)
        .any(|window| std::str::from_utf8(window).is_ok_and(|window| uuid::Uuid::try_parse(window).is_ok()));
    all_if(has_long_part || is_all_random || is_long || has_uuid, text)
}

/// Tokens rather than words and names of a program: at least two digits with letters, or long.
fn if_token(text: &str) -> usize {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    let is_token = digits >= 2 && is_mixed(text) || digits >= 16 || text.len() >= 32 && !text.contains('.');
    all_if(is_token && !text.starts_with('/'), text)
}

fn if_iban(text: &str) -> usize {
    iban_len(text)
}

fn if_ssn(text: &str) -> usize {
    all_if(is_ssn(text), text)
}

fn if_sin(text: &str) -> usize {
    all_if(is_luhn(text) && !text.starts_with("000"), text)
}

fn if_nanp(text: &str) -> usize {
    all_if(is_nanp(text), text)
}

/// Prefixes that are not issued: HMRC, National Insurance Manual, NIM39110.
fn if_nino(text: &str) -> usize {
    let prefix = text.get(..2).unwrap_or_default();
    all_if(!["BG", "GB", "KN", "NK", "NT", "TN", "ZZ"].contains(&prefix), text)
}

/// Addresses of IPv6 rather than paths and slices of programs, such as `a::b` and `x[1::2]`.
fn if_ipv6(text: &str) -> usize {
    let colons = text.bytes().filter(|byte| *byte == b':').count();
    let has_long_group = text.split(':').any(|group| group.len() >= 3 && has(group, u8::is_ascii_digit));
    let is_address = text.parse::<std::net::Ipv6Addr>().is_ok() && has(text, u8::is_ascii_digit);
    all_if(is_address && (colons >= 3 || has_long_group || text == "::1"), text)
}
