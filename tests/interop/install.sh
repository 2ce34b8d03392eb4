#!/bin/sh
# Installs the pinned versions of the clients into a folder, and builds those of Go and Java. Usage: install.sh FOLDER
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
if ! command -v go >/dev/null 2>&1; then
    echo "install.sh: please install Go 1.26 or later" >&2
    exit 1
fi
(cd "$here/go" && go build -o "$1/otel_client" .)
if ! diff -r "$here/java" "$1/java.installed" >/dev/null 2>&1; then
    rm -rf "$1/java" "$1/java.installed"
    cp -R "$here/java" "$1/java"
    (cd "$1/java" && mvn --quiet --batch-mode compile dependency:copy-dependencies)
    cp -R "$here/java" "$1/java.installed"
fi
