//! Replaces values that look like secrets: one Agnost SDK sends every HTTP header of its caller in its metadata.
//!
//! Only the names of keys are examined, never the values. `docs/agnost.md`, section "Redaction", lists the keys.

use cairn_proof::chain::scan;
use cairn_proof::chain::string::write_string;

/// Appends a canonical value to `out`, with the values of keys that look like secrets replaced by `[REDACTED:key]`. The
/// output is canonical.
pub fn redact(value: &[u8], out: &mut Vec<u8>) {
    match value.first() {
        Some(b'{') => {
            out.push(b'{');
            for (index, (key, member)) in scan::members(value).enumerate() {
                out.extend_from_slice(if index == 0 { b"\"" } else { b",\"" });
                out.extend_from_slice(key);
                out.extend_from_slice(b"\":");
                let name = std::str::from_utf8(key).ok().and_then(scan::unescape).unwrap_or_default();
                if is_secret(&name) && member != b"null" {
                    write_string(&format!("[REDACTED:{name}]"), out);
                } else {
                    redact(member, out);
                }
            }
            out.push(b'}');
        }
        Some(b'[') => {
            out.push(b'[');
            let mut rest = &value[1..];
            while let Some(length) = scan::value_len(rest) {
                redact(&rest[..length], out);
                rest = &rest[length..];
                if rest.first() == Some(&b',') {
                    out.push(b',');
                    rest = &rest[1..];
                }
            }
            out.push(b']');
        }
        _ => out.extend_from_slice(value),
    }
}

/// Whether the value of this key is probably a secret.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    key.ends_with("authorization")
        || key.ends_with("cookie")
        || key.ends_with("api-key")
        || key.ends_with("api_key")
        || key.ends_with("apikey")
        || key.ends_with("token")
        || key.contains("secret")
        || key.contains("password")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_proof::chain::canonicalize;

    fn redacted(text: &str) -> String {
        let mut out = Vec::new();
        redact(&canonicalize(text).unwrap(), &mut out);
        assert_eq!(canonicalize(std::str::from_utf8(&out).unwrap()).unwrap(), out, "it stays canonical");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_redacted_by_the_names_of_their_keys_at_any_depth() {
        let sent = r#"{"metadata":{"X-Api-Key":"k","a":[{"access_token":{"b":1}},[],"token",1.5,[[]]],"client_secret":3,
            "max_tokens":5,"Authorization":"Bearer x","cookie":"c","db_password_hash":"p","nothing_token":null}}"#;
        let expected = concat!(
            r#"{"metadata":{"Authorization":"[REDACTED:Authorization]","X-Api-Key":"[REDACTED:X-Api-Key]","#,
            r#""a":[{"access_token":"[REDACTED:access_token]"},[],"token",1.5,[[]]],"#,
            r#""client_secret":"[REDACTED:client_secret]","cookie":"[REDACTED:cookie]","#,
            r#""db_password_hash":"[REDACTED:db_password_hash]","max_tokens":5,"nothing_token":null}}"#
        );
        assert_eq!(redacted(sent), expected);
        for same in ["{}", "[]", "[[],{}]", r#"{"a":{"b":[1,"x",null]}}"#, r#""token""#] {
            assert_eq!(redacted(same), same);
        }
    }
}
