//! The number of allocations of each step of an event's path. The expected counts are in `benches/allocations.json`, so
//! that no change goes unnoticed; the commit message gives the reason for a change.

use std::collections::BTreeMap;

use allocation_counter::measure;
use cairn_proof::chain::EventReader;
use cairn_proof::chain::walk::Checker;

use crate::support::harness::repository;
use crate::support::work;

/// The number of allocations of `work` after a first run, which fills its buffers.
fn allocations<T>(mut work: impl FnMut() -> T) -> u64 {
    work();
    once(work).0
}

/// The number of allocations of `work`, and its result.
fn once<T>(work: impl FnOnce() -> T) -> (u64, T) {
    let mut result = None;
    let counted = measure(|| result = Some(work())).count_total;
    (counted, result.unwrap())
}

/// The allocations of each step that `make bench-micro` times, by its name there.
fn counted() -> BTreeMap<String, u64> {
    let text = work::event();
    let mut reader = EventReader::default();
    let canonicalize = allocations(|| work::canonicalize(&mut reader, &text));
    let draft = work::canonicalize(&mut reader, &text);
    let (seal, record) = once(|| work::seal(draft));
    let mut checker = Checker::default();
    let verify = allocations(|| work::verify(&record, &mut checker));
    let (answer, _) = once(|| work::answer(record));
    let (request, otlp) = (work::spans(), work::Otlp::default());
    let map = allocations(|| work::map(&request, &otlp));
    let counts = [
        ("event/canonicalize", canonicalize),
        ("event/seal", seal),
        ("event/answer", answer),
        ("event/verify", verify),
        ("otlp/map", map),
    ];
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

#[test]
fn each_step_of_an_events_path_makes_the_expected_number_of_allocations() {
    let stored = std::fs::read_to_string(repository("benches/allocations.json")).unwrap();
    let stored: BTreeMap<String, u64> = serde_json::from_str(&stored).unwrap();
    assert_eq!(counted(), stored, "if the change is intended, store the new counts in benches/allocations.json");
}
