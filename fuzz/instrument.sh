#!/bin/sh
# Compiles our own crates with what libFuzzer counts coverage by; what they depend on is shared with the product. These are
# the flags of cargo-fuzz, which wants them, and a compiler that is not stable, for all crates.
exec "$@" -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions=on --cfg fuzzing
