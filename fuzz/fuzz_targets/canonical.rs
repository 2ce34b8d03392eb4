//! Canonical bytes, against a slow and obvious implementation.
#![no_main]

#[path = "../../crates/cairn-proof/src/chain/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(canonical) = cairn_proof::chain::canonicalize(text) else { return };
    // Ours allows a level more than the library does by itself.
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader).expect("what is taken is JSON");
    assert_eq!(String::from_utf8_lossy(&canonical), reference::reference_canonical(&value));
    let again = cairn_proof::chain::canonicalize(std::str::from_utf8(&canonical).expect("UTF-8"));
    assert_eq!(again.expect("canonical bytes are JSON"), canonical);
});
