#!/bin/sh
# Cross-compiles the programs for 64-bit ARM with Debian's toolchain, runs the unit tests in emulation, and tries a server there.
set -eu
cd "$(dirname "$0")/.."
triple=aarch64-unknown-linux-gnu
sysroot=/usr/aarch64-linux-gnu
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L $sysroot"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
export AR_aarch64_unknown_linux_gnu=aarch64-linux-gnu-ar
export BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu="--sysroot=$sysroot -I$sysroot/include"

rustup target add "$triple"
cargo build --release --locked --target "$triple" --bin cairn
cargo build --release --locked --target "$triple" -p cairn-proof --bin cairn-verify
programs=${CARGO_TARGET_DIR:-target}/$triple/release
for program in cairn cairn-verify; do
    newest=$(aarch64-linux-gnu-objdump -T "$programs/$program" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -n 1)
    if [ "$(printf '%s\n' GLIBC_2.34 "$newest" | sort -V | tail -n 1)" != GLIBC_2.34 ]; then
        echo "$program needs $newest, later than 2.34" >&2
        exit 1
    fi
done
cargo test --release --locked --target "$triple" --workspace --lib

# A server: an event that is accepted, verified and proven.
folder=$(mktemp -d)
run="qemu-aarch64 -L $sysroot $programs"
export CAIRN_STORAGE__DATA_DIR="$folder/data" CAIRN_LISTEN="unix:$folder/cairn.sock" CAIRN_ADMIN__LISTEN=127.0.0.1:0
$run/cairn serve > "$folder/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server; rm -r "$folder"' EXIT
curl() {
    command curl --silent --fail --retry 20 --retry-delay 1 --retry-all-errors --unix-socket "$folder/cairn.sock" "$@"
}
curl http://cairn/v1/events -H 'Content-Type: application/json' -d '{"agent_id": "arm"}'
echo
curl -o "$folder/evidence.json" 'http://cairn/v1/export?agent_id=arm'
$run/cairn key show > "$folder/key"
$run/cairn-verify package "$folder/evidence.json" --key "$folder/key"
$run/cairn verify --all
echo "the programs are in $programs"
