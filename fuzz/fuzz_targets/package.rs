//! Evidence packages: no file makes the reader fall, and none is valid that names no key of ours.
#![no_main]

use cairn_proof::evidence::Outcome;
use cairn_proof::evidence::package;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let verdict = package::verify(data, &[], || {}).expect("a slice is always read");
    assert!(verdict.outcome() != Outcome::Valid, "valid under no key");
    let said = verdict.to_string();
    // Words of the file are shown, and none of them is an order to a terminal.
    assert!(said.chars().all(|c| c == '\n' || !c.is_control()), "{said:?}");
    let _ = verdict.to_json().to_string();
});
