//! Tile paths and checkpoints of untrusted origin.
#![no_main]

use cairn_proof::tree::TilePath;
use cairn_proof::tree::checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(path) = TilePath::parse(text) {
        // Every tile has exactly one path.
        assert_eq!(path.to_string(), text);
        assert!((1..=256).contains(&path.width));
    }
    let _ = checkpoint::parse(text.as_bytes());
    let _ = checkpoint::parse_unverified(text.as_bytes());
    assert!(checkpoint::open(text.as_bytes(), &[]).is_err(), "accepted without a trusted key");
});
