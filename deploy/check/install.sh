#!/bin/sh
# Installs what checks the deployment files, into a folder of its own. Only this needs the network.
set -eu
folder=$1
here=$(cd "$(dirname "$0")" && pwd)
if ! cmp -s "$here/requirements.txt" "$folder/requirements.txt"; then
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$folder/requirements.txt"
fi
