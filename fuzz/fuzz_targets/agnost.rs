//! Request bodies of the Agnost SDKs: every accepted body becomes an event in canonical form.
#![no_main]

use cairn::ingest::{AgnostConfig, agnost};
use cairn_proof::chain::canonicalize;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(draft) = agnost::draft(&AgnostConfig::default(), kind & 1 == 1, text, 1 << 16) else { return };
    let canonical = std::str::from_utf8(draft.canonical()).expect("UTF-8");
    assert_eq!(canonicalize(canonical).expect("JSON"), draft.canonical());
});
