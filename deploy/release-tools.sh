#!/bin/sh
# Installs what a release is made with: cargo subcommands, into a folder of their own.
# release-tools.sh FOLDER
set -eu
for tool in cargo-auditable@0.7.7 cargo-cyclonedx@0.5.9 cargo-deb@3.8.0; do
    name=${tool%@*}
    version=${tool#*@}
    if ! grep -qs "\"$name $version " "$1/.crates.toml"; then
        cargo install --quiet --locked --root "$1" "$tool"
    fi
done
