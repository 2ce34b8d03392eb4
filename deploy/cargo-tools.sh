#!/bin/sh
# Installs programs that cargo makes, into a folder of their own, unless they are in it already.
# cargo-tools.sh FOLDER NAME@VERSION...
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
