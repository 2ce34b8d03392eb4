//! OTLP: the first byte says which signal and which encoding.
#![no_main]

use cairn::ingest::OtlpConfig;
use cairn::ingest::otlp::{Items, Limits, Mapped, Mapper, Signal, to_protobuf};
use cairn_proof::chain::canonicalize;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { event: 1 << 16, items: 1000, spread: 1 << 22 };

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let signal = if kind & 1 == 0 { Signal::Traces } else { Signal::Logs };
    let made;
    let request = match kind & 2 {
        0 => data,
        _ => match to_protobuf(signal, data) {
            Ok((request, _)) => {
                made = request;
                &made[..]
            }
            Err(_) => return,
        },
    };
    let config = OtlpConfig::default();
    let Ok(mut mapper) = Mapper::new(signal, request, &config, LIMITS) else { return };
    for item in Items::of(request) {
        let item = item.expect("the request was looked at");
        let Ok(Mapped::Draft(draft, id)) = mapper.map(&item) else { continue };
        let text = std::str::from_utf8(draft.canonical()).expect("UTF-8");
        assert_eq!(canonicalize(text).expect("JSON"), draft.canonical());
        let _ = mapper.map_beside(&item, id);
    }
});
