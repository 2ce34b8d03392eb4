#!/bin/sh
# Measures durable single-event POSTs beside a bare hyper echo of the same body, in turns, and prints the ratio.
# Usage: ratio.sh [ROUNDS]. Needs wrk, and what `cargo build --release --benches` made.
set -eu

rounds=${1:-5}
target=${CARGO_TARGET_DIR:-$HOME/.cache/cairn/target}/release
echo=$(find "$target/deps" -maxdepth 1 -name 'echo-*' -type f -perm -u+x -printf '%T@ %p\n' | sort -n | tail -1 | cut -d' ' -f2)
data=$(mktemp -d)

"$echo" 127.0.0.1:7710 &
echo_pid=$!
CAIRN_ADMIN__LISTEN=127.0.0.1:7712 "$target/cairn" serve --listen 127.0.0.1:7711 --data-dir "$data" >/dev/null &
cairn_pid=$!
trap 'kill $echo_pid $cairn_pid; wait; rm -rf "$data"' EXIT

. "$(dirname "$0")/load.sh"

for _ in $(seq "$rounds"); do
    limit=$(rate 7710)
    cairn=$(rate 7711)
    echo "$limit $cairn" | awk '{ printf "echo %.0f/s  cairn %.0f/s  ratio %.2f\n", $1, $2, $2 / $1 }'
done | tee "$data/rounds"
sort -t' ' -k6 "$data/rounds" | awk '{ ratios[NR] = $NF } END { printf "median ratio %.2f\n", ratios[int((NR + 1) / 2)] }'
