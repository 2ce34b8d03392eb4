//! OTLP requests: every mapped item is an event in canonical form. The first byte selects signal and encoding.
#![no_main]

use std::sync::LazyLock;

use cairn::ingest::OtlpConfig;
use cairn::ingest::otlp::{
    Items, Limits, Mapped, Mapper, Mapping, NoEvents, Signal, Surroundings, mapping, to_protobuf,
};
use cairn_proof::chain::canonicalize;
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits { event: 1 << 16, items: 1000, expanded_bytes: 1 << 22 };

static MAPPING: LazyLock<Mapping> = LazyLock::new(|| mapping::build(&[]));

fuzz_target!(|data: &[u8]| {
    let Some((&kind, data)) = data.split_first() else { return };
    let signal = if kind & 1 == 0 { Signal::Traces } else { Signal::Logs };
    let converted;
    let request = match kind & 2 {
        0 => data,
        _ => match to_protobuf(signal, data) {
            Ok(request) => {
                converted = request.protobuf;
                &converted[..]
            }
            Err(_) => return,
        },
    };
    let config = OtlpConfig::default();
    let around = Surroundings { config: &config, mapping: &MAPPING, stored: &NoEvents, limits: LIMITS };
    let Ok(mut mapper) = Mapper::new(signal, request, around) else { return };
    for item in Items::of(request) {
        let item = item.expect("Mapper::new checks the request");
        let Ok(Mapped::Draft(draft, id)) = mapper.map(&item, &[]) else { continue };
        let text = std::str::from_utf8(draft.canonical()).expect("UTF-8");
        assert_eq!(canonicalize(text).expect("JSON"), draft.canonical());
        let _ = mapper.map_with_replacement_id(&item, &[], id);
    }
});
