//! How many allocations an event costs on its way. Each is paid by every user on every event: a number here may fall, and
//! does not rise without a word about why.

use allocation_counter::measure;
use cairn::ingest::OtlpConfig;
use cairn_proof::chain::EventReader;
use cairn_proof::chain::walk::Checker;

use crate::support::work;

/// What `work` allocates when it has run before.
fn again<T>(mut work: impl FnMut() -> T) -> u64 {
    work();
    let mut made = None;
    let counted = measure(|| made = Some(work())).count_total;
    drop(made);
    counted
}

#[test]
fn an_event_costs_one_allocation_on_its_way_in_and_none_after() {
    let text = work::event();
    let mut reader = EventReader::default();
    assert_eq!(again(|| work::canonicalize(&mut reader, &text)), 1, "the record");
    let draft = work::canonicalize(&mut reader, &text);
    let mut sealed = None;
    assert_eq!(measure(|| sealed = Some(work::seal(draft))).count_total, 0, "sealing fills in what is laid out");
    let record = sealed.unwrap();
    let mut checker = Checker::default();
    assert_eq!(again(|| work::verify(&record, &mut checker)), 0, "verifying reads");
    let mut answered = None;
    assert_eq!(measure(|| answered = Some(work::answer(record))).count_total, 0, "the answer is spliced in place");
}

#[test]
fn a_span_costs_few_allocations() {
    let (request, config) = (work::spans(), OtlpConfig::default());
    let counted = again(|| work::map(&request, &config));
    // A span's attributes are two lists, its start a text, its event a record; the rest is per request: among it the
    // agent's id, so that it is not hashed for each of its spans.
    assert!(counted <= 4 * work::SPANS as u64 + 26, "{counted} for {} spans", work::SPANS);
}
