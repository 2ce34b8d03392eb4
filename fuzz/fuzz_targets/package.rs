//! Evidence packages: no input makes the reader panic, and no package is valid without a trusted key.
#![no_main]

use cairn_proof::evidence::Outcome;
use cairn_proof::evidence::package;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let verdict = package::verify(data, &[], || {}).expect("reading a slice does not fail");
    assert!(verdict.outcome() != Outcome::Valid, "valid without a trusted key");
    let text = verdict.to_string();
    // Untrusted text of the package is escaped, so that it contains no control sequences for a terminal.
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    let _ = verdict.to_json().to_string();
});
