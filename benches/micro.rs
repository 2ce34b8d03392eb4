//! Micro-benchmarks of the steps of an event's path, without a server: `cargo bench --bench micro`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a benchmark stops by panicking")]

#[path = "../tests/support/protobuf.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod protobuf;
mod work;

use cairn_proof::chain::EventReader;
use cairn_proof::chain::walk::Checker;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

fn steps(criterion: &mut Criterion) {
    let text = work::event();
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    let mut reader = EventReader::default();
    group.bench_function("canonicalize", |bencher| bencher.iter(|| work::canonicalize(&mut reader, &text)));
    let draft = || work::canonicalize(&mut EventReader::default(), &text);
    group.bench_function("seal", |bencher| bencher.iter_batched(draft, work::seal, BatchSize::SmallInput));
    let record = || work::seal(draft());
    group.bench_function("answer", |bencher| bencher.iter_batched(record, work::answer, BatchSize::SmallInput));
    let (record, mut checker) = (record(), Checker::default());
    group.bench_function("verify", |bencher| bencher.iter(|| work::verify(&record, &mut checker)));
    group.finish();
    let (request, otlp) = (work::spans(), work::Otlp::default());
    let mut group = criterion.benchmark_group("otlp");
    group.throughput(Throughput::Elements(work::SPANS as u64));
    group.bench_function("map", |bencher| bencher.iter(|| work::map(&request, &otlp)));
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
