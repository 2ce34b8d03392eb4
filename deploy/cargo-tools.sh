#!/bin/sh
# Installs cargo binaries into a directory of their own, unless it already contains them.
# cargo-tools.sh DIRECTORY NAME@VERSION...
set -eu
folder=$1
shift
for tool in "$@"; do
    name=${tool%@*}
    version=${tool#*@}
    if ! grep -qs "\"$name $version " "$folder/.crates.toml"; then
        cargo install --quiet --locked --root "$folder" "$tool"
    fi
done
