//! Examples of what each built-in pattern finds and what it leaves.

/// For each pattern: texts whose part in `«»` is replaced, and texts that stay. `~` is removed first, so that no scanner takes the
/// examples for real secrets; `¤` stands for it.
pub const EXAMPLES: [(&str, &[&str], &[&str]); 25] = [
    (
        "private_key",
        &[
            "key: «-----BEGIN ~PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\n-----END PRIVATE KEY-----»\nafter",
            "key: «-----BEGIN ~RSA PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\n-----END RSA PRIVATE KEY-----»",
            "key: «-----BEGIN ~OPENSSH PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\n-----END OPENSSH PRIVATE KEY-----»",
            "key: «-----BEGIN ~ENCRYPTED PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\n-----END ENCRYPTED PRIVATE KEY-----»",
            "key: «-----BEGIN ~PGP PRIVATE KEY BLOCK-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\n-----END PGP PRIVATE KEY BLOCK-----»",
            "key: «-----BEGIN ~EC PRIVATE KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w»\ncut off",
            "«-----BEGIN ~PRIVATE KEY-----\\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9w\\n-----END PRIVATE KEY-----»\\n",
        ],
        &[
            "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----",
            "-----BEGIN CERTIFICATE-----",
            "PRIVATE KEY",
            "if text.startswith(\"-----BEGIN PRIVATE KEY-----\"):\n    return load(text)",
        ],
    ),
    (
        "jwt",
        &[
            "«eyJ~hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c»",
            "token=«eyJ~hbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»",
            "session=«eyJ~hbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..Tk9Ob25jZQ.Y2lwaGVy.dGFn»",
            "\u{1b}[32m«eyJ~hbGciOiJub25lIn0.eyJzdWIiOiIxIn0.»\u{1b}[0m",
            "jwe «eyJ~hbGciOiJSU0EtT0FFUCJ9.OKOawDo13gRp2oja.48V1_ALb6US04U3b.5eym8TW_c8SuK0lt.XFBoMYUZodetZdvT»",
        ],
        &["eyJ", "eyJhbGciOiJIUzI1NiJ9", "heyJude12345.abcdefgh.ijkl", "eyJ.a.b"],
    ),
    (
        "aws_access_key",
        &[
            "«AKIA~IOSFODNN7EXAMPLE»",
            "キー«AKIA~IOSFODNN7EXAMPLE»を使う",
            "\\n«AKIA~IOSFODNN7EXAMPLE»\\n",
            "%22«AKIA~IOSFODNN7EXAMPLE»%22",
            "_«AKIA~IOSFODNN7EXAMPLE»_2024.csv",
            "id=«ASIA~ABCDEFGHIJKLMNOP»;",
        ],
        &["AKIASHORT", "XAKIA~IOSFODNN7EXAMPLE", "asia", "AKIA-IOSFODNN7EXAMPLE"],
    ),
    (
        "aws_secret_key",
        &[
            "aws_secret_access_key = «wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY»",
            "AWS_SECRET_ACCESS_KEY=«wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY»\n",
            "secret_key                  = \"«wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY»\"",
            "- name: AWS_SECRET_ACCESS_KEY\n  value: «wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY»",
            "SecretAccessKey: «wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY»,",
            "\"secret_key\": \"«wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY»\"",
        ],
        &[
            "wJalrXUtnFEMI/K7MDENG~/bPxRfiCYEXAMPLEKEY",
            "commit 0123456789abcdef0123456789abcdef01234567",
            "secret_key_id=short",
            "secretKey /usr/local/share/ca/certificates/company",
        ],
    ),
    (
        "github_token",
        &[
            "«ghp_~A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8»",
            "https://x:«ghs_~A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8»@github.com/o/r",
            "«github_pat_~11ABCDEFG0A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8»",
        ],
        &["ghp_short", "github_path_to_something_that_is_long"],
    ),
    ("gitlab_token", &["«glpat-~A1b2C3d4E5f6G7h8I9j0»"], &["glpat-short", "my-glpat"]),
    (
        "npm_token",
        &["//registry/:_authToken=«npm_~A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8»"],
        &["npm_config_registry", "npm_lifecycle"],
    ),
    ("slack_token", &["«xoxb-~123456789012-abcdefABCDEF»", "«xapp-~1-A123-456-abcdef»"], &["xoxo", "xoxb-1"]),
    ("google_api_key", &["?key=«AIza~SyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q»"], &["AIza", "AIzashort"]),
    (
        "stripe_key",
        &["«sk_~live_A1b2C3d4E5f6G7h8»", "«pk_~test_A1b2C3d4E5f6G7h8I9j0»", "«rk_~live_A1b2C3d4E5f6G7h8»"],
        &["task_live_A1b2C3d4E5f6G7h8", "sk_test_short", "disk_live_now"],
    ),
    (
        "api_key",
        &[
            "«sk-~proj-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6»",
            "OPENAI_API_KEY=«sk-~A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q7r8S9t0U1v2W3x4»",
            "«sk-~ant-api03-A1b2C3d4E5f6G7h8I9j0_K1l2M3n4O5p6-Q7r8S9t0AA»",
            "«pk-~lf-0198c6b2-7d0e-4cc5-a4ef-1f2b3c4d5e6f»",
            "«sk-~or-v1-0123456789abcdef0123456789abcdef0123456789abcdef»",
        ],
        &[
            "sk-learn-based-classification-model-v2",
            "task-0123456789abcdef0123",
            "risk-A1b2C3d4E5f6G7h8I9j0",
            "sk-short",
            "sk-SK-locale-and-other-words",
            "sk-my_very_long_table_name_v2",
            "pk-20240101_backup_full_db",
        ],
    ),
    (
        "bearer_token",
        &[
            "Authorization: Bearer «abc123~DEF456-._¤+/x==»",
            "authorization=bearer «0123456789abcdef»",
            "BEARER  «A1b2C3d4»",
            "Bearer: «AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh»",
            "Bearer «12|A1b2C3d4E5f6G7h8»",
            "Bearer%20«A1b2C3d4E5f6»",
        ],
        &[
            "Bearer authentication",
            "bearer: HTTPAuthorizationCredentials",
            "Bearer /api/v2/users",
            "bearer: OAuth2PasswordBearer",
            "type Bearer\n2026-01-01T00:00:00Z",
            "the bearer of bad news",
            "Bearer tokens (RFC 6750)",
            "forbearer 12345abcde",
            "Bearer",
        ],
    ),
    (
        "email",
        &[
            "write to «jane.doe+x@mail.example.co.uk», please",
            "<«a@b.io»>",
            "mailto:«o'neil@example.com»",
            "«jürgen@bücher.example»",
            "«x@xn--bcher-kva.example»",
        ],
        &["@user", "a@b", "user@localhost", "1.5@2.5", "git@", "@types/node@20.1.0", "left @ right.com"],
    ),
    (
        "iban",
        &[
            "«DE89370400440532013000»",
            "to «GB82 WEST 1234 5698 7654 32» today",
            "«ES91 2100 0418 4502 0005 1332» EUR",
            "«AT611904300234573201» BIC",
            "«NO9386011117947»",
            "«FR1420041010050500013M02606»",
            "«MT84MALT011000012345MTLCAST001S»",
        ],
        &["DE89370400440532013001", "DE8937040044053201300", "ZZ89370400440532013000", "AB12CDEF3456GH78"],
    ),
    (
        "visa",
        &[
            "card «4111 1111 1111 1111»",
            "«4111-1111-1111-1111»",
            "«4012888888881881»",
            "«4222222222222»",
            "«4111 1111 1111 1111» 737 12/28",
            "卡号«4111111111111111»",
        ],
        &[
            "4111 1111 1111 1112",
            "41111111111111111111",
            "trace 4111111111111111aa",
            "0.4223835393905593",
            "1771324200250",
        ],
    ),
    (
        "mastercard",
        &["«5555 5555 5555 4444»", "«2223003122003222»", "«5105105105105100»"],
        &["5555555555554445", "2220003122003225"],
    ),
    ("amex", &["«378282246310005»", "«3714 496353 98431»"], &["378282246310006", "358282246310005"]),
    ("discover", &["«6011 1111 1111 1117»", "«6445644564456445»"], &["6011111111111118", "6012111111111117"]),
    (
        "us_ssn",
        &["SSN «123-45-6789»", "«219 09 9999»"],
        &[
            "000-45-6789",
            "666-45-6789",
            "900-45-6789",
            "123-00-6789",
            "123-45-0000",
            "2026-02-17",
            "123-45-67890",
            "123456789",
        ],
    ),
    (
        "ca_sin",
        &["SIN «046 454 286»", "«046-454-286»", "«046454286»"],
        &["046 454 287", "000 000 000", "046 454-286", "1046454286"],
    ),
    (
        "uk_nino",
        &["«AB 12 34 56 C»", "NI «JG103759A»"],
        &["GB123456A", "DA123456A", "AB123456E", "AO123456A", "xAB123456C"],
    ),
    (
        "phone",
        &["call «+44 20 7946 0958»", "«+14155552671»", "«+49 (0)30 901820»"],
        &["+1", "+0123456789", "a+b", "2+3456", "+1234"],
    ),
    (
        "us_phone",
        &["«(415) 555-2671»", "«415-555-2671»", "«1-416-555-0123»", "tel: «415.555.2671»"],
        &["115-555-2671", "415-155-2671", "4155552671", "2026-02-17-1234", "415-555-26711"],
    ),
    ("ipv4", &["from «192.168.1.10»:8080", "«8.8.8.8»"], &["256.1.1.1", "1.2.3", "v1.2.3-beta", "1.2.3.4567"]),
    (
        "ipv6",
        &["«2001:db8::1»", "[«fe80::1ff:fe23:4567:890a»]:80", "«::1»", "«::ffff:192.0.2.1»", "«2001:db8::»/32"],
        &[
            "std::fmt",
            "a::b",
            "AWS::EC2::Instance",
            "$1::date",
            "lst[::2]",
            "std::f64::INFINITY",
            "crate::e2e::tests",
            "10:30:00",
            "::",
            "de:ad:be:ef",
            "12:34:56:78:9a:bc",
        ],
    ),
];

/// The text of an example.
pub fn text(example: &str) -> String {
    example.replace('~', "").replace('¤', "~")
}
