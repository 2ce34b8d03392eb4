#!/bin/sh
# Installs the pinned versions of the clients into a folder. Usage: install.sh FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
if ! cmp -s "$here/requirements.txt" "$1/requirements.txt"; then
    python3 -m venv "$1/python"
    "$1/python/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$1/requirements.txt"
fi
if ! cmp -s "$here/package.json" "$1/package.json.installed"; then
    cp "$here/package.json" "$1/package.json"
    (cd "$1" && npm install --loglevel=error --no-package-lock --no-audit --no-fund)
    cp "$here/package.json" "$1/package.json.installed"
fi
