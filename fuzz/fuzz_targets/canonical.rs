//! Canonical bytes, compared with a simple reference implementation.
#![no_main]

#[path = "../../crates/cairn-proof/src/chain/reference.rs"]
mod reference;

use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(canonical) = cairn_proof::chain::canonicalize(text) else { return };
    // Our reader permits one level of nesting more than the default of serde_json.
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader).expect("accepted text is JSON");
    assert_eq!(String::from_utf8_lossy(&canonical), reference::reference_canonical(&value));
    let repeated = cairn_proof::chain::canonicalize(std::str::from_utf8(&canonical).expect("UTF-8"));
    assert_eq!(repeated.expect("canonical bytes are JSON"), canonical);
});
