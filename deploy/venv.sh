#!/bin/sh
# Makes a folder with the Python packages that a file asks for, unless they are in it already. Only this needs the network.
# venv.sh FOLDER REQUIREMENTS
set -eu
folder=$1
requirements=$2
if ! cmp -s "$requirements" "$folder/requirements.txt"; then
    python3 -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$folder/requirements.txt"
fi
