#!/bin/sh
# Measures durable single-event POSTs with and without a relay whose upstream is unavailable, in alternating rounds, and
# prints the ratio. Usage: relay.sh [ROUNDS]. Needs wrk, and the binaries of `cargo build --release`.
set -eu

rounds=${1:-5}
target=${CARGO_TARGET_DIR:-$HOME/.cache/cairn/target}/release
data=$(mktemp -d)

CAIRN_ADMIN__LISTEN=127.0.0.1:7712 "$target/cairn" serve --listen 127.0.0.1:7711 --data-dir "$data/alone" >/dev/null &
alone_pid=$!
# Nothing listens on port 9.
CAIRN_RELAY__AGNOST__ORG_ID=00000000-0000-4000-8000-000000000000 CAIRN_RELAY__AGNOST__ENDPOINT=http://127.0.0.1:9 \
    CAIRN_ADMIN__LISTEN=127.0.0.1:7714 "$target/cairn" serve --listen 127.0.0.1:7713 --data-dir "$data/relay" >/dev/null &
relay_pid=$!
trap 'kill $alone_pid $relay_pid; wait; rm -rf "$data"' EXIT

. "$(dirname "$0")/load.sh"

for _ in $(seq "$rounds"); do
    alone=$(rate 7711)
    relay=$(rate 7713)
    echo "$alone $relay" | awk '{ printf "no relay %.0f/s  upstream unavailable %.0f/s  ratio %.3f\n", $1, $2, $2 / $1 }'
done | tee "$data/rounds"
awk '{ print $NF, $0 }' "$data/rounds" | sort -n | awk '{ ratios[NR] = $1 } END { printf "median ratio %.3f\n", ratios[int((NR + 1) / 2)] }'
