#!/bin/sh
# Compiles the workspace's crates with the coverage instrumentation of libFuzzer; dependencies are shared with the
# product. These are the flags of cargo-fuzz, which would use them, and a nightly compiler, for all crates.
case " $* " in
    # A build script is linked without libFuzzer, which has the functions that the instrumentation calls.
    *" --crate-name build_script_build "*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions=on --cfg fuzzing
